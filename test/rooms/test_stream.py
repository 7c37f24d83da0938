"""Furniture with names, its split, and the samples of rooms: drawn twice the same, packed and read back."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed')

from gsemsplat_ros.datasets.packed_rooms import FURNITURE_VERSION, PackedRooms, encode
from gsemsplat_ros.rooms.catalogue import base_noun, clean_name
from gsemsplat_ros.rooms.furniture import attribution, load_furniture
from gsemsplat_ros.rooms.packing import pack
from gsemsplat_ros.rooms.preview import preview
from gsemsplat_ros.rooms.stream import PAIRS, RoomStream, vocabulary
from gsemsplat_ros.rooms.wavefront import read_mtl, read_obj

H, W = 48, 64


@pytest.fixture(scope='module')
def stream():
    try:
        return RoomStream(H, W)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def room(stream):
    return stream.room(3)


def test_names():
    assert clean_name('Modern chair 2') == 'modern chair' and clean_name('Frame Hôi An') == 'picture frame'
    assert clean_name('TV 16:9') == 'television' and clean_name("Captain's bed") == "captain's bed"
    assert base_noun('chair with cushion') == 'chair' and base_noun('glass table') == 'table'


def test_obj_and_mtl_text():
    text = (
        'mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\nusemtl red\n'
        'f 1/1/1 2/1/1 3//1 4\nf -1 -2 -3\n'
    )
    vertices, uvs, normals, corners, materials, library = read_obj(text)
    assert (
        vertices.shape == (4, 3)
        and len(uvs) == len(normals) == 1
        and materials == ['red']
        and library == 'a.mtl'
    )
    np.testing.assert_array_equal(corners[..., 0], [[0, 1, 2], [0, 2, 3], [3, 2, 1]])
    np.testing.assert_array_equal(corners[0], [[0, 0, 0, 0], [1, 0, 0, 0], [2, -1, 0, 0]])
    look = read_mtl('newmtl red\nKd 1 0 0.5\nd 0.25\nmap_Kd a\\b.jpg\nnewmtl plain\n')
    assert look == {'red': ((1.0, 0.0, 0.5), 0.25, 'a/b.jpg'), 'plain': ((0.7, 0.7, 0.7), 1.0, '')}


def test_indices_from_the_end_are_relative():
    corners = read_obj('v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 2 0 0\nf -3 -2 -1\n')[3]
    np.testing.assert_array_equal(corners[..., 0], [[0, 1, 2], [1, 2, 3]])


def test_models_have_their_catalogue_size(stream):
    models = stream.furniture.models
    assert len(models) > 400
    for i in range(0, len(models), 7):
        mesh, size = stream.furniture.mesh(i), np.array(models[i].size)
        used = mesh.vertices[mesh.faces]
        assert used[..., 2].min() > -0.01 and (np.ptp(used.reshape(-1, 3), axis=0) < size * 1.11 + 0.02).all()
        assert mesh.faces.max() < len(mesh.vertices) and models[i].top.max() <= size[2] + 0.01


def test_held_out_are_some_names_whole_and_some_meshes_of_others(stream):
    sides = {False: (set(), set(), set()), True: (set(), set(), set())}
    for i, model in enumerate(stream.furniture.models):
        mesh = stream.furniture.mesh(i)
        names, nouns, meshes = sides[model.heldout]
        names.add(model.name)
        nouns.add(model.noun)
        inside = np.rint(50 * mesh.vertices / np.maximum(np.ptp(mesh.vertices, axis=0), 1e-3))
        meshes.add(mesh.faces.tobytes() + inside.astype(np.int8).tobytes())
    assert not sides[False][2] & sides[True][2]
    assert len(sides[True][0] - sides[False][0]) > 10  # names that training never hears
    assert {'chair', 'table', 'sofa'} <= sides[True][0] & sides[False][0]
    assert 0.1 < np.mean([m.heldout for m in stream.furniture.models]) < 0.25


def test_a_room_is_determined_by_its_number(stream, room):
    again, other = stream.room(3), stream.room(4)
    assert 0 < len(room) == len(again) <= PAIRS
    for a, b in zip(room, again):
        for key in ('images', 'depth', 'instance', 'first_from_camera'):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
        assert (a.camera, a.names, a.stereo) == (b.camera, b.names, b.stereo)
    assert room[0].names != other[0].names


def test_samples_say_what_they_are(stream, room):
    names = vocabulary(stream.furniture, stream.split)
    assert {sample.stereo for sample in room} == {True, False}
    for sample in room:
        assert sample.images.shape == (3, H, W, 3) and sample.images.dtype == np.uint8
        assert sample.depth.shape == (3, H, W) and sample.depth.dtype == np.float32
        assert sample.instance.max() < len(sample.names) and set(sample.names[1:]) <= set(names)
        assert np.quantile(sample.depth, 0.02) > 0.14 and sample.depth.max() < 20
        poses, focal = sample.first_from_camera, sample.camera.fx
        np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-12)
        np.testing.assert_allclose(
            poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (3, 1, 1)), atol=1e-9
        )
        assert 40 < np.degrees(2 * np.arctan(W / 2 / focal)) < 91
        step = poses[1, :3, 3]
        if sample.stereo:
            np.testing.assert_allclose(poses[1, :3, :3], np.eye(3), atol=1e-9)
            np.testing.assert_allclose(step[1:], 0, atol=1e-9)
            assert 0.05 <= step[0] <= 0.15
        else:
            assert 0.09 < np.linalg.norm(step) < 1.5


def test_views_for_training_see_more_than_one_thing(room):
    for sample in room:
        for instance in sample.instance:
            assert np.bincount(instance.ravel()).max() <= 0.61 * instance.size


def test_stereo_disparity_is_focal_times_baseline_over_depth(room):
    """The right image, read at u - f b / z, shows the same depth and thing as the left."""
    sample = next(s for s in room if s.stereo)
    left, right = sample.depth[:2]
    v, u = np.mgrid[:H, :W]
    to = np.rint(u - sample.camera.fx * sample.first_from_camera[1, 0, 3] / left).astype(int)
    inside = (to >= 0) & (to < W)
    same = np.abs(right[v[inside], to[inside]] - left[inside]) < 0.03 * left[inside]
    assert same.mean() > 0.85
    assert (sample.instance[1][v[inside], to[inside]] == sample.instance[0][inside])[same].mean() > 0.95


def test_packed_rooms_are_the_stream(tmp_path, stream, room):
    pack(tmp_path, H, W, range(3, 4), processes=1)
    before = (tmp_path / 'train_000003.npz').stat().st_mtime_ns
    pack(tmp_path, H, W, range(3, 5))  # goes on, leaves what is there
    assert (tmp_path / 'train_000003.npz').stat().st_mtime_ns == before and not list(tmp_path.glob('*.part'))
    rooms = PackedRooms(tmp_path)
    assert len(rooms) > len(room) and rooms.vocabulary() == vocabulary(stream.furniture, stream.split)
    for packed, drawn in zip((rooms[i] for i in range(len(room))), room):
        np.testing.assert_array_equal(packed.instance, drawn.instance)
        np.testing.assert_allclose(packed.depth, drawn.depth, atol=6e-4)
        np.testing.assert_array_equal(packed.first_from_camera, drawn.first_from_camera)
        assert np.abs(packed.images.astype(int) - drawn.images).mean() < 8
    pack(tmp_path / 'two', H, W, range(3, 5), processes=2)  # bit for bit the same
    for number in (3, 4):
        name = f'train_{number:06d}.npz'
        with np.load(tmp_path / name) as one, np.load(tmp_path / 'two' / name) as two:
            assert one.files == two.files
            for key in one.files:
                np.testing.assert_array_equal(one[key], two[key])
    preview(tmp_path, tmp_path / 'sheet.png', rows=2)
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape == (2 * H, 5 * W, 3)


def test_rooms_of_another_split_are_refused(tmp_path, room):
    parts = encode(room)
    for name, version in (('old', {}), ('new', {'furniture': np.array(FURNITURE_VERSION + 1)})):
        folder = tmp_path / name
        folder.mkdir()
        np.savez(
            folder / 'train_000003.npz', **{**{k: v for k, v in parts.items() if k != 'furniture'}, **version}
        )
        with pytest.raises(
            ValueError, match=f'furniture of version .*wanted {FURNITURE_VERSION}: pack the rooms into'
        ):
            PackedRooms(folder)


def test_the_sources_are_named(stream):
    """docs/ATTRIBUTION.md holds the list of the furniture that is used, wrapped."""
    wanted = attribution(stream.furniture)
    assert all(m.creator in wanted for m in stream.furniture.models)
    written = (Path(__file__).parents[2] / 'docs' / 'ATTRIBUTION.md').read_text()
    assert ' '.join(wanted.split()) in ' '.join(written.split()), f'write this into it:\n{wanted}'


def test_a_missing_package_is_said(tmp_path):
    with pytest.raises(ValueError, match='sweethome3d-furniture'):
        load_furniture(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="wanted 'train' or 'heldout'"):
        RoomStream(H, W, split='test')
