"""Meshes in few bytes and back, and packed furniture without its package."""

from pathlib import Path

import numpy as np
import pytest

from gsemsplat_ros.rooms.furniture import load_furniture
from gsemsplat_ros.rooms.mesh import Mesh, restored, squeezed


def random_mesh(vertices=300, faces=500, seed=0):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(vertices, 3))
    normals[::5] = 0
    return Mesh(
        rng.uniform([-1.5, -0.3, 0], [1.5, 0.3, 2.2], (vertices, 3)).astype(np.float32),
        (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)).astype(np.float32),
        rng.uniform(-2, 2, (vertices, 2)).astype(np.float32),
        rng.integers(0, 256, (vertices, 3)).astype(np.uint8),
        rng.integers(-1, 300, vertices).astype(np.int16),
        rng.integers(0, vertices, (faces, 3)).astype(np.int32),
    )


def test_a_squeezed_mesh_comes_back():
    mesh = random_mesh()
    parts = squeezed(mesh)
    back = restored(parts)
    assert {p.dtype for k, p in parts.items() if k != 'box'} == {np.dtype(np.uint8)}
    before, after = mesh.faces, back.faces  # numbered anew: compare corner by corner
    step = np.array([3.0, 0.6, 2.2]) / 65535
    assert (np.abs(mesh.vertices[before] - back.vertices[after]) <= 0.51 * step + 2e-7).all()
    assert np.abs(mesh.normals[before] - back.normals[after]).max() < 0.005
    assert not back.normals[after][(mesh.normals[before] == 0).all(-1)].any()  # flat shading stays flat
    np.testing.assert_allclose(mesh.uv[before], back.uv[after], atol=2**-11)
    np.testing.assert_array_equal(mesh.colors[before], back.colors[after])
    np.testing.assert_array_equal(mesh.textures[before], back.textures[after])
    assert after.dtype == np.int32 and back.textures.dtype == np.int16
    assert len(back.vertices) == len(np.unique(before)), 'a vertex that no face uses is dropped'
    first = np.unique(after, return_index=True)[1]
    assert (np.diff(first) > 0).all(), 'vertices are numbered as they first occur'


def test_squeezing_twice_changes_nothing_more():
    once = restored(squeezed(random_mesh(seed=1)))
    twice = restored(squeezed(once))
    for name in ('normals', 'uv', 'colors', 'textures', 'faces'):
        np.testing.assert_array_equal(getattr(once, name), getattr(twice, name))
    np.testing.assert_allclose(once.vertices, twice.vertices, atol=5e-5)


def test_a_flat_mesh_and_wild_texture_coordinates():
    mesh = random_mesh(4, 2)
    mesh.vertices[:, 2] = 0.7
    mesh.uv[0] = 3e9
    back = restored(squeezed(mesh))
    np.testing.assert_allclose(back.vertices[:, 2], 0.7, atol=1e-6)
    assert np.isfinite(back.uv).all() and np.isfinite(back.vertices).all()


def test_the_packed_file_is_enough(tmp_path):
    """Without the Debian package, from a copy of the file alone."""
    try:
        load_furniture()
    except ValueError as error:
        pytest.skip(str(error))
    (source,) = (Path.home() / '.cache' / 'gsemsplat').glob('gsemsplat-furniture-*.npz')
    assert source.stat().st_size < 20e6
    (tmp_path / source.name).write_bytes(source.read_bytes())
    furniture = load_furniture(tmp_path, tmp_path / 'no package here')
    assert len(furniture.models) > 400
    for i in range(0, len(furniture.models), 23):
        mesh, size = furniture.mesh(i), np.array(furniture.models[i].size)
        used = mesh.vertices[mesh.faces].reshape(-1, 3)
        assert (np.abs(used[:, :2]) < size[:2] * 0.56 + 0.02).all() and used[:, 2].min() > -0.01
        for t in np.unique(mesh.textures[mesh.textures >= 0]):
            assert furniture.texture(int(t)).shape == (256, 256, 4)


def test_a_broken_file_is_refused(tmp_path):
    try:
        load_furniture(tmp_path, tmp_path)
    except ValueError as error:
        name = str(error).split('copy ')[1].split(' ')[0]
    (tmp_path / name).write_bytes(b'PK\3\4 and no more')
    with pytest.raises(ValueError, match=f'{name} is no packed furniture .*: delete it, or copy it again'):
        load_furniture(tmp_path, tmp_path)
