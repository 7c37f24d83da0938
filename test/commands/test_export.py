"""`gsemsplat export`: the file that the suffix names, of whatever was saved, and what it says."""

import json

import numpy as np
import pytest
from support.independent_readers import by_gaussforge, glb, plain_gaussians
from support.random_gaussians import random_gaussians
from support.word_maps import scene_cloud

from gsemsplat_ros.cli import main
from gsemsplat_ros.commands.infer import FORMATS
from gsemsplat_ros.formats.ply import write_ply
from gsemsplat_ros.formats.writers import WRITERS
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import save_map
from gsemsplat_ros.scene.coded_file import CodeSpace


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A folder with the PLY file of some Gaussians and a map of several tiles."""
    folder = tmp_path_factory.mktemp('saved')
    write_ply(folder / 'some.ply', random_gaussians(300)[0])
    made = Map.empty('map', 0.005).merged(scene_cloud(1), np.zeros(3), 10**6, 'tf')
    assert len(made.tiles) > 3
    save_map(folder / 'map.safetensors', made, CodeSpace('some', 'words', 'decoders', 32))
    return folder, made


def test_the_copy_of_the_formats_is_right():
    assert sorted((*FORMATS, 'ply')) == sorted(suffix[1:] for suffix in WRITERS)


@pytest.mark.parametrize('suffix', ['.ply', '.spz', '.glb'])
def test_a_map_is_exported_whole(saved, tmp_path, capsys, suffix):
    (folder, made), out = saved, tmp_path / f'map{suffix}'
    assert main(['export', str(folder / 'map.safetensors'), str(out), '--json']) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said['file'], said['gaussians'], said['of']) == (str(out), len(made), len(made))
    assert said['bytes'] == out.stat().st_size
    means = made.gaussians.means.numpy()
    found = glb(out)[1]['POSITION'] if suffix == '.glb' else plain_gaussians(by_gaussforge(out))['means']
    wanted = means if suffix == '.ply' else np.stack([-means[:, 1], means[:, 2], -means[:, 0]], 1)
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_one_format_becomes_another(saved, tmp_path):
    folder, _ = saved
    assert main(['export', str(folder / 'some.ply'), str(tmp_path / 'a.glb'), '--quiet']) == 0
    assert main(['export', str(tmp_path / 'a.glb'), str(tmp_path / 'b.ply'), '--quiet']) == 0
    before, after = (by_gaussforge(path) for path in (folder / 'some.ply', tmp_path / 'b.ply'))
    for name in ('x', 'y', 'z', 'f_dc_0', 'opacity', 'scale_1'):
        np.testing.assert_allclose(after[name], before[name], atol=1e-4)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['some.ply', 'out.obj'], 'names no format: wanted a name that ends in .ply'),
        (['some.ply', 'out.glb', '--without'], 'wanted --query too'),
        (['some.ply', 'out.glb', '--query', 'chair'], 'holds no codes'),
        (['no.glb', 'out.ply'], 'no scene at'),
        (['some.ply', 'no folder/out.glb'], 'cannot write'),
    ],
)
def test_errors_are_one_line(saved, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(saved[0])
    monkeypatch.setattr('gsemsplat_ros.pipeline.Pipeline.load', lambda *_: None)
    scene, out, *others = arguments
    assert main(['export', scene, str(tmp_path / out), *others]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and words in said[0]
    assert not list(tmp_path.iterdir())
