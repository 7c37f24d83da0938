"""PLY files, read back the way a splat viewer does it: its own activations, its own quaternion order."""

import os
import struct

import numpy as np
import pytest
import torch
from support.random_gaussians import make_prediction, random_gaussians

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.ply import read_ply, write_ply

STANDARD = [
    'x',
    'y',
    'z',
    'nx',
    'ny',
    'nz',
    'f_dc_0',
    'f_dc_1',
    'f_dc_2',
    'opacity',
    'scale_0',
    'scale_1',
    'scale_2',
    'rot_0',
    'rot_1',
    'rot_2',
    'rot_3',
]


def as_a_viewer(path):
    """(property names, (N, P) float32 values) by the PLY text alone."""
    head, body = path.read_bytes().split(b'end_header\n', 1)
    lines = head.decode().split('\n')
    assert lines[:2] == ['ply', 'format binary_little_endian 1.0']
    count = int(lines[2].removeprefix('element vertex '))
    names = [line.removeprefix('property float ') for line in lines[3:] if line]
    values = struct.unpack(f'<{count * len(names)}f', body)
    return names, np.array(values, np.float32).reshape(count, len(names))


def viewer_covariances(table, names):
    """Sigma = R S S^T R^T with exp(scale) and the quaternion taken as w, x, y, z."""
    column = {name: table[:, i].astype(np.float64) for i, name in enumerate(names)}
    w, x, y, z = (column[f'rot_{i}'] for i in range(4))
    rotation = np.stack(
        [
            w * w + x * x - y * y - z * z,
            2 * (x * y - w * z),
            2 * (x * z + w * y),
            2 * (x * y + w * z),
            w * w - x * x + y * y - z * z,
            2 * (y * z - w * x),
            2 * (x * z - w * y),
            2 * (y * z + w * x),
            w * w - x * x - y * y + z * z,
        ],
        -1,
    )
    rotation = rotation.reshape(-1, 3, 3)
    scales = np.exp(np.stack([column[f'scale_{i}'] for i in range(3)], -1))
    return np.einsum('nij,nj,nkj->nik', rotation, scales**2, rotation)


def test_a_viewer_sees_what_the_network_predicted(tmp_path):
    """The four defects of public exporters (docs/published.md 24), each by the value a viewer would get."""
    prediction = make_prediction(h=4, w=5)
    path = tmp_path / 'scene.ply'
    write_ply(path, Gaussians.from_prediction(prediction, 'left'))
    names, table = as_a_viewer(path)
    assert names == [*STANDARD, *(f'code_{i}' for i in range(32))]
    column = {name: table[:, i] for i, name in enumerate(names)}

    def flat(field):
        views = (prediction.first, prediction.second)
        return torch.cat([getattr(view, field)[0].flatten(0, 1) for view in views]).numpy()

    viewer_opacity = 1 / (1 + np.exp(-column['opacity']))
    np.testing.assert_allclose(viewer_opacity, flat('opacities'), atol=1e-6)
    x, y, z, w = flat('quats_xyzw').T
    np.testing.assert_allclose(table[:, 13:17], np.stack([w, x, y, z], -1), atol=1e-7)
    vector = np.stack([x, y, z], -1)
    axes = []
    for e, scale in zip(np.eye(3), flat('scales').T, strict=True):  # v + 2 q x (q x v + w v)
        turned = e + 2 * np.cross(vector, np.cross(vector, e) + w[:, None] * e)
        axes.append(scale[:, None] * turned)
    axes = np.stack(axes, -1)
    np.testing.assert_allclose(viewer_covariances(table, names), axes @ axes.transpose(0, 2, 1), atol=1e-6)
    np.testing.assert_array_equal(table[:, :3], flat('means'))
    assert np.abs(flat('means') - flat('pts3d')).max() > 0.1
    np.testing.assert_allclose(table[:, 6:9], flat('sh'), atol=1e-6)
    np.testing.assert_array_equal(table[:, 17:], flat('codes')[:, :32])
    assert not table[:, 3:6].any()


@pytest.mark.parametrize('codes', [0, 12])
def test_round_trip(tmp_path, codes):
    gaussians, _ = random_gaussians(50, codes)
    path = tmp_path / 'scene.ply'
    write_ply(path, gaussians)
    again = read_ply(path, 'map')
    assert again.frame == 'map' and len(again) == 50
    for name in ('means', 'codes'):
        assert torch.equal(getattr(again, name), getattr(gaussians, name)), name
    for name in ('quats', 'scales', 'opacities', 'colors'):
        torch.testing.assert_close(getattr(again, name), getattr(gaussians, name), rtol=2e-6, atol=2e-7)


def test_empty_and_saturated(tmp_path):
    path = tmp_path / 'scene.ply'
    gaussians, _ = random_gaussians(3)
    write_ply(path, gaussians.select(slice(0, 0)))
    assert len(read_ply(path, 'map')) == 0
    changes = {'opacities': torch.tensor([0.0, 1.0, 0.5]), 'scales': torch.zeros(3, 3)}
    edge = Gaussians(**{**vars(gaussians), **changes})
    write_ply(path, edge)
    assert np.isfinite(as_a_viewer(path)[1]).all()
    torch.testing.assert_close(read_ply(path, 'map').opacities, edge.opacities)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'scene.ply'
    gaussians, _ = random_gaussians(3)
    write_ply(path, gaussians)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError('no space left')

    monkeypatch.setattr(os, 'replace', refuse)
    with pytest.raises(OSError, match='no space left'):
        write_ply(path, gaussians.scaled(2))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['scene.ply']


def test_reads_another_programs_file(tmp_path):
    """Other order, higher SH degrees, doubles, bytes, comments, a quaternion of length 2."""
    floats = [
        'rot_0',
        'rot_1',
        'rot_2',
        'rot_3',
        'x',
        'y',
        'z',
        'f_dc_0',
        'f_dc_1',
        'f_dc_2',
        'f_rest_0',
        'scale_0',
        'scale_1',
        'scale_2',
    ]
    record = np.dtype([('red', 'u1'), ('opacity', '<f8'), *((name, '<f4') for name in floats)])
    kinds = {'u1': 'uchar', '<f8': 'double', '<f4': 'float'}
    row = np.array([(7, 0.0, 0, 2, 0, 0, 1, 2, 3, 0, 1, -1, 9, 0, np.log(2), 1)], record)
    lines = [
        'ply',
        'format binary_little_endian 1.0',
        'comment by hand',
        'element vertex 1',
        *(f'property {kinds[record[name].str.lstrip("|")]} {name}' for name in record.names),
        'end_header',
        '',
    ]
    path = tmp_path / 'other.ply'
    path.write_bytes('\n'.join(lines).encode() + row.tobytes())
    got = read_ply(path, 'map')
    assert got.means.tolist() == [[1, 2, 3]] and got.quats.tolist() == [[0, 1, 0, 0]]
    assert got.codes.shape == (1, 0)
    torch.testing.assert_close(got.scales, torch.tensor([[1.0, 2.0, np.e]]))
    torch.testing.assert_close(got.colors, torch.tensor([[0.5, 0.78209479, 0.21790521]]))
    assert got.opacities.tolist() == [0.5]


def broken_files(good):
    head, body = good.split(b'end_header\n', 1)
    return {
        'truncated': good[:-3],
        'longer': good + b'\0',
        'half a header': good[:40],
        'empty': b'',
        'png': b'\x89PNG\r\n\x1a\n',
        'ascii': good.replace(b'binary_little_endian', b'ascii'),
        'big endian': good.replace(b'little', b'big'),
        'no opacity': head.replace(b'property float opacity\n', b'') + b'end_header\n' + body,
        'twice x': head.replace(b'float nx', b'float x') + b'end_header\n' + body,
        'mesh': head + b'element face 1\nproperty list uchar int vertex_indices\nend_header\n' + body,
        'huge count': good.replace(b'vertex 3', b'vertex 99999999999999'),
        'negative': good.replace(b'vertex 3', b'vertex -3'),
    }


@pytest.mark.parametrize('kind', broken_files(b'end_header\n'))
def test_a_broken_file_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / 'scene.ply'
    write_ply(path, random_gaussians(3)[0])
    path.write_bytes(broken_files(path.read_bytes())[kind])
    with pytest.raises(ValueError) as error:
        read_ply(path, 'map')
    assert 'scene.ply' in str(error.value) and '\n' not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match='no PLY file at'):
        read_ply(tmp_path / 'absent.ply', 'map')
