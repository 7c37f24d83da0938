"""Whether gsplat draws on a GPU is found out once, and another renderer draws where it cannot."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from support.drawn_scenes import assert_same_picture, make, random_scene
from support.gsplat_operators import install
from support.pretend_gpu import PretendGPU
from support.random_gaussians import pose
from support.tile_pictures import renew_trial

from gsemsplat_ros.gaussians.render import render_on_gpu
from gsemsplat_ros.gaussians.render_gsplat import _is_compiled
from gsemsplat_ros.gaussians.render_plain import render_plain
from gsemsplat_ros.images.camera import Camera

IDENTITY = np.eye(4)
CAMERA = Camera(48, 40, 60.0, 50.0, 20.0, 17.0)


def test_without_gsplat_other_operations_draw_and_this_is_said_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'gsplat', None)
    renew_trial(monkeypatch)
    gaussians = random_scene(CAMERA, 100, seed=7)
    for _ in range(2):
        got = render_on_gpu(gaussians, CAMERA, pose(0), (0.2, 0.4, 0.6))
    assert_same_picture(got, render_plain(gaussians, CAMERA, pose(0), (0.2, 0.4, 0.6)), rare=0)
    (record,) = caplog.records
    assert record.levelname == 'WARNING' and 'rendering with PyTorch operations' in record.message


def gsplat_that_raises(error):
    """As gsplat 1.5.3 without a compiler: it can be imported, and each operator raises."""
    calls = []

    def rasterization(*args, **kwargs):
        print('gsplat: No CUDA toolkit found. gsplat will be disabled.')
        calls.append(args)
        raise error

    module = ModuleType('gsplat')
    vars(module)['rasterization'] = rasterization
    return module, calls


def test_gsplat_without_its_operators_is_tried_once(monkeypatch, caplog, capsys):
    module, calls = gsplat_that_raises(AttributeError("'NoneType' object has no attribute 'projection'"))
    monkeypatch.setitem(sys.modules, 'gsplat', module)
    renew_trial(monkeypatch)
    gaussians = random_scene(CAMERA, 100, seed=7)
    for _ in range(3):
        assert render_on_gpu(gaussians, CAMERA, IDENTITY, (0, 0, 0)).alpha.any()
    assert len(calls) == 1 and len(caplog.records) == 1
    assert "has no attribute 'projection'): rendering with PyTorch" in caplog.text
    assert capsys.readouterr().out == ''  # where a command prints its JSON


def test_no_memory_for_the_trial_of_gsplat_is_no_verdict(monkeypatch):
    module, calls = gsplat_that_raises(torch.cuda.OutOfMemoryError('CUDA out of memory'))
    monkeypatch.setitem(sys.modules, 'gsplat', module)
    renew_trial(monkeypatch)
    for n in (1, 2):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            render_on_gpu(random_scene(CAMERA, 5, 0), CAMERA, IDENTITY, (0, 0, 0))
        assert len(calls) == n


def test_compiled_operators_of_gsplat_are_found(monkeypatch, tmp_path):
    module = ModuleType('gsplat')
    module.__file__ = str(tmp_path / 'gsplat' / '__init__.py')
    monkeypatch.setitem(sys.modules, 'gsplat', module)
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'extensions'))
    (tmp_path / 'gsplat' / 'cuda' / 'csrc').mkdir(parents=True)
    (tmp_path / 'extensions').mkdir()
    assert not _is_compiled()
    of_package, of_torch = tmp_path / 'gsplat' / 'csrc.so', tmp_path / 'extensions' / 'gsplat_cuda'
    of_package.touch()
    assert _is_compiled()
    of_package.unlink()
    of_torch.mkdir()
    assert not _is_compiled()
    (of_torch / 'gsplat_cuda.so').touch()
    assert _is_compiled()


def test_a_compilation_is_announced_and_may_fail(monkeypatch, caplog, tmp_path):
    error = RuntimeError("Error building extension 'gsplat_cuda': [1/9] nvcc\nfatal error: cublas_v2.h")
    module, _ = gsplat_that_raises(error)
    module.__file__ = str(tmp_path / '__init__.py')
    monkeypatch.setitem(sys.modules, 'gsplat', module)
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    renew_trial(monkeypatch)
    with PretendGPU():
        scene = make([[0, 0, 2]], 0.3).to('cuda')
        assert render_on_gpu(scene, CAMERA, IDENTITY).alpha.cpu().any()
    first, second = (record.message for record in caplog.records)
    assert 'not compiled yet' in first
    assert "Error building extension 'gsplat_cuda': [1/9] nvcc): rendering with" in second


def test_gsplat_draws_where_it_can(monkeypatch, caplog):
    """Its cap of one alpha tells who drew."""
    install(monkeypatch)
    renew_trial(monkeypatch)
    opaque = make([[0, 0, 2]], 0.3, 1.0)
    assert render_on_gpu(opaque, CAMERA, IDENTITY, (0, 0, 0)).alpha.max() > 0.995
    assert not caplog.records


def test_gsplat_without_a_compiler_as_installed(monkeypatch, caplog, capsys):
    """The package itself, whose operators find neither a compiled extension nor a CUDA toolkit."""
    pytest.importorskip('gsplat')
    for name in ('CUDA_HOME', 'CUDA_PATH'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('torch.utils.cpp_extension._find_cuda_home', lambda: None)
    monkeypatch.setitem(sys.modules, 'gsplat.cuda._backend', None)  # as it is after the test
    del sys.modules['gsplat.cuda._backend']
    renew_trial(monkeypatch)
    opaque = make([[0, 0, 2]], 0.3, 1.0)
    assert render_on_gpu(opaque, CAMERA, IDENTITY, (0, 0, 0)).alpha.max() < 0.995
    (record,) = caplog.records
    assert 'gsplat does not run here' in record.message and capsys.readouterr().out == ''
