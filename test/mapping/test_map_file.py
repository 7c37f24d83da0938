"""Maps on disk: the same answers after loading, and one line instead of a map for anything half-written or
foreign.
"""

import errno
import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file
from support.word_maps import HERE, scene_cloud, worded_map

from gsemsplat_ros.bench.tools import Memory
from gsemsplat_ros.checkpoints.checkpoint import SHIPPED
from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.mapping.map import Map, cut
from gsemsplat_ros.mapping.map_file import KIND, load_map, save_map
from gsemsplat_ros.mapping.tile import HISTORY, MISSES_TO_GO
from gsemsplat_ros.mapping.voxels import HALF, voxel_cells
from gsemsplat_ros.scene.coded_file import CodeSpace, fingerprint
from gsemsplat_ros.scene.gaussian_columns import DTYPES
from gsemsplat_ros.semantics.answer import Question

SPACE = CodeSpace('small.safetensors', 'minilm-l6', 'abc', 32)


@pytest.fixture
def map_():
    map_ = Map.empty('map', 0.05)
    for seed in range(2):
        map_ = map_.merged(scene_cloud(seed), HERE, 10**6, 'stereo baseline')
    misses = (map_.keys % MISSES_TO_GO).to(torch.uint8)
    return replace(map_, tiles=cut(replace(map_.whole, misses=misses)))


@pytest.fixture
def path(tmp_path, map_):
    save_map(tmp_path / 'kitchen.safetensors', map_, SPACE)
    return tmp_path / 'kitchen.safetensors'


def test_what_is_saved_is_what_loads(path, map_):
    again = load_map(path, SPACE)
    assert (again.frame, again.voxel, again.scenes, again.scale_source) == ('map', 0.05, 2, 'stereo baseline')
    assert again.tiles.keys() == map_.tiles.keys() and len(map_.tiles) > 1
    for name in HISTORY:
        assert torch.equal(getattr(again.whole, name), getattr(map_.whole, name)), name
    assert torch.equal(again.gaussians.means, map_.gaussians.means)
    for name, rtol in dict(scales=4e-3, opacities=1e-3, colors=1e-3, codes=1e-3).items():
        values = getattr(again.gaussians, name)
        np.testing.assert_allclose(values, getattr(map_.gaussians, name), rtol, 1e-6, err_msg=name)
    likeness = (again.gaussians.quats * map_.gaussians.quats).sum(1)
    assert likeness.min() > 1 - 1e-6 and (again.gaussians.quats.norm(dim=1) - 1).abs().max() < 1e-6
    assert path.stat().st_size < 125 * len(map_) + 4096


def test_a_loaded_map_grows_on(path, map_):
    grown = load_map(path, SPACE).merged(scene_cloud(5), HERE, 10**6)
    expected = map_.merged(scene_cloud(5), HERE, 10**6)
    assert all(torch.equal(getattr(grown.whole, name), getattr(expected.whole, name)) for name in HISTORY)


@pytest.mark.parametrize('version', [1, 2])
def test_a_map_of_an_earlier_version_loads(path, map_, version):
    """Its keys were x, y and z one after the other, and it knew no owners; the first one no misses."""
    tensors, card = parts_of(path)
    assert card['version'] == 3
    x, y, z = (voxel_cells(tensors['keys'].numpy()) + HALF).T
    keys = torch.from_numpy(x << 42 | y << 21 | z)
    rows = {name: tensors[name][keys.argsort()] for name in DTYPES | HISTORY}
    tensors |= {**rows, 'keys': keys.sort().values}
    assert not torch.equal(tensors['means'], map_.gaussians.means)
    for name, since in KIND.since.items():
        if since > version:
            tensors.pop(name)
    write_parts(path, tensors, {**card, 'version': version})
    again = load_map(path, SPACE)
    kept = {name for name in HISTORY if KIND.since.get(name, 1) <= version}
    assert len(kept) == 3 + version
    for name in HISTORY:
        values = getattr(map_.whole, name)
        assert torch.equal(getattr(again.whole, name), values if name in kept else 0 * values), name
    assert torch.equal(again.gaussians.means, map_.gaussians.means) and again.keyframes == ()
    tensors['keys'][-1] += 1
    write_parts(path, tensors, {**card, 'version': version})
    one_line(path, 'not in their voxels')


def test_the_memory_of_saving_and_loading_is_the_map_and_little_more(tmp_path):
    """Five million numbers in codes: neither the whole of them in half precision, nor a second copy."""
    map_ = Map.empty('map', 0.05).merged(scene_cloud(0, 40_000, side=8.0, channels=128), HERE, 10**6)
    assert len(map_.tiles) > 100 and (map_.gaussians.codes.nbytes > 19e6)
    map_ = replace(map_)  # without the whole
    with Memory(torch.device('cpu')) as saving:
        save_map(tmp_path / 'large.safetensors', map_, replace(SPACE, code_dim=128))
    with Memory(torch.device('cpu')) as loading:
        again = load_map(tmp_path / 'large.safetensors', replace(SPACE, code_dim=128))
    assert saving.megabytes < 8 and loading.megabytes < 36, (saving.megabytes, loading.megabytes)
    assert torch.equal(again.keys, map_.keys) and torch.equal(again.whole.owners, map_.whole.owners)


def test_queries_answer_the_same_without_images(tmp_path, pipeline):
    map_, _, score = worded_map(pipeline)
    save_map(tmp_path / 'map.safetensors', map_, pipeline.code_space)
    loaded = load_map(tmp_path / 'map.safetensors', pipeline.code_space)
    for text in ('chair', 'door', 'plant'):
        question = Question(text, 0.5 * score)
        before = pipeline.query(pipeline.index(map_), question)
        after = pipeline.query(pipeline.index(loaded), question)
        assert after.found == before.found and after.score == pytest.approx(before.score, abs=1e-3)
        np.testing.assert_allclose(after.relevancy, before.relevancy, atol=2e-3)
        assert len(after.objects) == len(before.objects)
        boxes = [sorted((*thing.center, *thing.size) for thing in one.objects) for one in (after, before)]
        np.testing.assert_allclose(*boxes, atol=0.03)  # two may have nearly one score


def test_the_ply_beside_it_is_for_viewers(path, map_):
    shown = read_ply(path.with_suffix('.ply'), 'map')
    assert shown.codes.shape == (len(map_), 0)
    np.testing.assert_allclose(shown.means, map_.gaussians.means)
    np.testing.assert_allclose(shown.scales, map_.gaussians.scales, rtol=1e-5)


def test_an_empty_map_survives_too(tmp_path):
    save_map(tmp_path / 'empty.safetensors', Map.empty('map', 0.03), SPACE)
    assert len(load_map(tmp_path / 'empty.safetensors', SPACE)) == 0


def one_line(path, said, space=SPACE):
    with pytest.raises(ValueError, match=said) as error:
        load_map(path, space)
    assert '\n' not in str(error.value) and str(path) in str(error.value)


def test_other_decoders_refuse_the_map(path, pipeline):
    one_line(path, 'made with a small.safetensors', replace(SPACE, decoders='abd'))
    one_line(path, 'set weights to that checkpoint', replace(SPACE, text_encoder='openclip:ViT-B-16'))
    assert (
        load_map(path, replace(SPACE, weights='renamed.safetensors')).scenes == 2
    )  # a file's name is no identity
    decoders = pipeline.decoders.state_dict()
    space = CodeSpace.of('x', 'minilm-l6', decoders, 32)
    assert space.decoders == CodeSpace.of('y', 'minilm-l6', dict(reversed(decoders.items())), 32).decoders
    name = next(iter(decoders))
    changed = {**decoders, name: decoders[name] + 1e-6}
    assert space.decoders != CodeSpace.of('x', 'minilm-l6', changed, 32).decoders


def test_a_half_written_file_is_refused_at_any_length(path):
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in {0, 1, 7, 8, 9, 200, len(data) - 1, *rng.integers(10, len(data), 40).tolist()}:
        path.write_bytes(data[:length])
        one_line(path, 'no map, or only a part of one')
    path.write_bytes(data + b'x')
    one_line(path, 'no map')


def test_foreign_files_are_refused(path, tmp_path):
    one_line(tmp_path / 'missing.safetensors', 'no map at')
    one_line(tmp_path, 'no map at')
    one_line(SHIPPED, 'no map')
    for name, data in (
        ('noise', np.random.default_rng(0).bytes(5000)),
        ('text', b'hello'),
        ('ply', b'ply\nformat a'),
        ('huge', struct.pack('<Q', 1 << 62) + b'{}'),
    ):
        (tmp_path / name).write_bytes(data)
        one_line(tmp_path / name, 'no map')
    for card in ('no json', '[]', '{}', json.dumps({'version': 4}), json.dumps({'version': '1'})):
        save_file({'keys': torch.zeros(1)}, tmp_path / 'other', {KIND.key: card})
        one_line(tmp_path / 'other', 'no map|is a map of version')


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda t, c: t.pop('codes'), 'its tensors are'),
        (lambda t, c: t.update(extra=torch.zeros(2)), 'its tensors are'),
        (lambda t, c: t.update(means=t['means'][:-1]), 'wanted torch'),
        (lambda t, c: t.update(codes=t['codes'].float()), 'codes is torch.float32'),
        (lambda t, c: t.update(codes=t['codes'][:-1].contiguous()), 'wanted torch.float16'),
        (lambda t, c: t.update(codes=t['codes'][:, 0].contiguous()), 'wanted torch.float16'),
        (lambda t, c: t['means'].__setitem__((0, 0), torch.nan), 'means holds numbers that are not finite'),
        (lambda t, c: t.update(keys=t['keys'].flip(0)), 'not in order'),
        (lambda t, c: t['opacities'].__setitem__(0, 2.0), 'out of their range'),
        (lambda t, c: t['weights'].__setitem__(0, -1.0), 'out of their range'),
        (lambda t, c: t.update(keys=torch.tensor(3)), 'is damaged'),
        (lambda t, c: c.pop('frame'), 'its card lacks frame'),
        (lambda t, c: c.update(voxel_m=-1.0), 'voxel_m of -1'),
        (lambda t, c: c.update(voxel_m=1e-300), 'voxel_m of 1e-300'),
        (lambda t, c: c.update(voxel_m=float('nan')), 'voxel_m of its card is not finite'),
        (lambda t, c: c.update(scenes='many'), 'its card lacks scenes'),
        (lambda t, c: c.update(scenes=True), 'its card lacks scenes'),
        (lambda t, c: c.update(scenes=2**31), 'counts 2147483648 scenes'),
        (lambda t, c: c.update(scenes=10**4000), 'scenes of its card is too large'),
        (lambda t, c: c.update(scenes=-1), 'counts -1 scenes'),
        (lambda t, c: c.update(frame=''), 'frame is empty'),
        (lambda t, c: c.update(frame='\ud800'), 'no short text'),
        (lambda t, c: c.update(frame='map\n[INFO] all is well'), 'no short text'),
        (lambda t, c: c.update(frame='\x1b[31mred'), 'no short text'),
        (lambda t, c: c.update(frame='m' * 300), 'no short text'),
        (lambda t, c: c.update(scale_source='s' * 5_000_000), 'no short text'),
        (lambda t, c: c.update(scale_source='\udfff'), 'no short text'),
        (lambda t, c: c.update(weights='a\x07b'), 'no short text'),
        (lambda t, c: t['log_scales'].fill_(89), 'log_scales are out of their range'),
        (lambda t, c: t['log_scales'].__setitem__((3, 1), 65504), 'log_scales are out of their range'),
        (lambda t, c: t['log_scales'].__setitem__((3, 1), -65504), 'log_scales are out of their range'),
        (lambda t, c: t['quats'].zero_(), 'not of unit length'),
        (lambda t, c: t['colors'].__setitem__((0, 0), torch.inf), 'colors holds numbers'),
        (lambda t, c: t['means'].__setitem__((0, 0), 1e30), 'means are out of their range'),
        (lambda t, c: t['means'].__setitem__((0, 0), 0.6), 'not in their voxels'),
        (lambda t, c: t['keys'].add_(1), 'not in their voxels'),
        (lambda t, c: t['keys'].__setitem__(0, -5), 'not in their voxels'),
        (lambda t, c: t['keys'].__setitem__(-1, 1 << 20), 'not in order'),
        (lambda t, c: t['means'].__setitem__((-1, 0), torch.nan), 'means holds numbers that are not finite'),
        (lambda t, c: t['counts'].__setitem__(0, -1), 'counts are out of their range'),
        (lambda t, c: t['counts'].__setitem__(0, 3), 'counts are out of their range'),
        (lambda t, c: t['last_seen'].__setitem__(0, 0), 'last_seen are out of their range'),
        (lambda t, c: t['misses'].__setitem__(0, MISSES_TO_GO), 'misses are out of their range'),
        (lambda t, c: t['owners'].__setitem__(0, 3), 'owners are out of their range'),
        (lambda t, c: t['owners'].__setitem__(9, -1), 'owners are out of their range'),
        (lambda t, c: t.pop('misses'), 'its tensors are'),
        (lambda t, c: c.update(version=1), 'its tensors are'),
        (lambda t, c: t.update(codes=t['codes'][:, :16].contiguous()), 'a code has 16 channels'),
    ],
)
def test_a_map_by_someone_who_knows_the_format_is_refused(path, change, said):
    tensors, card = parts_of(path)
    change(tensors, card)
    write_parts(path, tensors, card)
    one_line(path, said)


def parts_of(path):
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack('<Q', data[:8])[0]])
    return load(data), json.loads(header['__metadata__'][KIND.key])


def write_parts(path, tensors, card):
    """With a digest that is right."""
    card['sha256'] = fingerprint(card, tensors)
    path.write_bytes(save(tensors, {KIND.key: json.dumps(card)}))


def test_a_card_of_endless_depth_is_refused(path):
    tensors, _ = parts_of(path)
    path.write_bytes(save(tensors, {KIND.key: '[' * 100_000}))
    one_line(path, 'no map')


def test_what_could_not_be_loaded_is_not_saved(tmp_path, map_):
    """Codes beyond half precision would be infinite in the file."""
    [*map_.tiles.values()][1].gaussians.codes[5, 2] = 1e6
    with pytest.raises(ValueError, match='cannot write the map.*codes holds numbers that are not finite'):
        save_map(tmp_path / 'a.safetensors', map_, SPACE)
    assert list(tmp_path.iterdir()) == []


def test_huge_scales_are_saved_as_large_ones(tmp_path, map_):
    [*map_.tiles.values()][1].gaussians.scales[0] = torch.tensor([1e30, 1e-45, 0.0])
    save_map(tmp_path / 'a.safetensors', map_, SPACE)
    scales = load_map(tmp_path / 'a.safetensors', SPACE).gaussians.scales
    assert torch.isfinite(scales).all() and scales.max() == pytest.approx(1e6, rel=0.01)


def test_a_folder_in_the_place_of_the_map_leaves_no_new_ply(tmp_path, map_):
    (tmp_path / 'a.safetensors').mkdir()
    (tmp_path / 'a.ply').write_text('before')
    with pytest.raises(ValueError, match='it is a folder'):
        save_map(tmp_path / 'a.safetensors', map_, SPACE)
    assert (tmp_path / 'a.ply').read_text() == 'before'
    assert sorted(each.name for each in tmp_path.iterdir()) == ['a.ply', 'a.safetensors']


def test_the_files_are_as_private_as_the_umask_wants(tmp_path, map_):
    before = os.umask(0o077)
    try:
        save_map(tmp_path / 'a.safetensors', map_, SPACE)
    finally:
        os.umask(before)
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}


def test_no_damage_goes_unseen(path, map_):
    """Flipped bytes, in the header and in the numbers: one line, or what was saved."""
    data, rng = path.read_bytes(), np.random.default_rng(0)
    header = 8 + struct.unpack('<Q', data[:8])[0]
    for trial in range(300):
        broken = bytearray(data)
        for place in rng.integers(0, header if trial % 2 else len(data), rng.integers(1, 5)):
            broken[place] ^= rng.integers(1, 256)
        path.write_bytes(broken)
        try:
            again = load_map(path, SPACE)
        except ValueError as error:
            assert '\n' not in str(error)
        else:
            assert again.frame == 'map' and torch.equal(again.gaussians.means, map_.gaussians.means), trial


@pytest.mark.parametrize('call, number', [('fsync', errno.ENOSPC), ('replace', errno.EIO)])
def test_a_full_disk_leaves_the_old_map(path, map_, monkeypatch, call, number):
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ValueError, match=os.strerror(number)) as error:
        save_map(path, map_.merged(scene_cloud(7), HERE, 10**6), SPACE)
    monkeypatch.undo()
    assert '\n' not in str(error.value) and path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ['kitchen.ply', 'kitchen.safetensors']


def test_a_place_that_cannot_be_written_is_said(tmp_path, map_):
    with pytest.raises(ValueError, match='cannot write the map'):
        save_map(tmp_path / 'no' / 'such' / 'folder.safetensors', map_, SPACE)
    with pytest.raises(ValueError, match='beside the map'):
        save_map(tmp_path / 'room.ply', map_, SPACE)
    assert list(tmp_path.iterdir()) == []
