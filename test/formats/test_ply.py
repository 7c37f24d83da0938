"""PLY files, read back the way a splat viewer does it: its own activations, its own quaternion order."""

import os
import struct

import numpy as np
import pytest
import torch
from support.damaged import damaged
from support.random_gaussians import make_prediction, random_gaussians

from gsemsplat_ros.formats.ply import read_ply, write_ply
from gsemsplat_ros.gaussians.gaussians import Gaussians

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


SPLAT = [name for name in STANDARD if not name.startswith('n')]


def of_another_maker(path, order='<', names=SPLAT, kinds=None, before=(), after=(), count=200, change=None):
    """Write a PLY of `count` Gaussians; before, after: (name, count, property lines, bytes). Returns its
    numbers (count, len(names)).
    """
    kinds = kinds or {}
    table = np.random.default_rng(0).normal(size=(count, len(names))).astype('f4')
    if change:
        change(table)
    codes = {'float': 'f4', 'double': 'f8', 'uchar': 'u1', 'int': 'i4'}
    record = np.dtype([(name, (order or '<') + codes[kinds.get(name, 'float')]) for name in names])
    rows = np.zeros(count, record)
    for name, column in zip(names, table.T):
        rows[name] = column if record[name].kind == 'f' else 7
    form = {'<': 'binary_little_endian', '>': 'binary_big_endian', '': 'ascii'}[order]
    lines = ['ply', f'format {form} 1.0', 'comment by hand']
    for name, number, properties, _ in before:
        lines += [f'element {name} {number}', *properties]
    lines += [f'element vertex {count}', *(f'property {kinds.get(name, "float")} {name}' for name in names)]
    for name, number, properties, _ in after:
        lines += [f'element {name} {number}', *properties]
    body = rows.tobytes() if order else '\n'.join(' '.join(map(str, row)) for row in rows.tolist()).encode()
    body = b''.join(data for *_, data in before) + body + b''.join(data for *_, data in after)
    path.write_bytes('\n'.join([*lines, 'end_header', '']).encode() + body)
    return table


FACES = ['property list uchar int vertex_indices']
OTHERS = {
    'SHARP': dict(
        after=[
            ('extrinsic', 16, ['property float extrinsic'], np.eye(4, dtype='<f4').tobytes()),
            ('image_size', 2, ['property uint image_size'], bytes(8)),
            ('color_space', 1, ['property uchar color_space'], b'\1'),
            ('version', 3, ['property uchar version'], b'\1\5\0'),
        ]
    ),
    'no faces': dict(after=[('face', 0, FACES, b'')]),
    'faces': dict(after=[('face', 2, FACES, (b'\3' + bytes(12)) * 2)]),
    'lists before': dict(
        before=[('camera', 3, ['property float a', 'property uchar b'], bytes(15)), ('face', 0, FACES, b'')]
    ),
    'big endian': dict(
        order='>', before=[('version', 3, ['property uchar version'], bytes(3))], kinds={'x': 'double'}
    ),
    'text': dict(order='', after=[('face', 1, FACES, b'\n3 0 1 2\n')]),
    'text, lists before': dict(order='', before=[('camera', 2, ['property float a'], b'1.5\n\n2.5\n')]),
    'normals, degree 3, other numbers': dict(
        names=['id', *STANDARD[:9], *(f'f_rest_{i}' for i in range(45)), *STANDARD[9:], 'segment'],
        kinds={'id': 'int', 'segment': 'uchar', 'opacity': 'double'},
    ),
}


@pytest.mark.parametrize('maker', OTHERS)
def test_reads_the_files_of_other_makers(tmp_path, maker):
    path = tmp_path / 'a.ply'
    asked = OTHERS[maker]
    table = of_another_maker(path, **asked)
    names = asked.get('names', SPLAT)
    got = read_ply(path, 'camera')
    assert len(got) == 200 and got.codes.shape == (200, 0)
    x = names.index('x')
    np.testing.assert_allclose(got.means, table[:, x : x + 3], rtol=1e-6)
    scale = names.index('scale_0')
    np.testing.assert_allclose(got.scales, np.exp(table[:, scale : scale + 3]), rtol=1e-5)
    opacity = table[:, names.index('opacity')]
    np.testing.assert_allclose(got.opacities, 1 / (1 + np.exp(-opacity)), rtol=1e-5)
    quats = table[:, names.index('rot_0') : names.index('rot_0') + 4]
    np.testing.assert_allclose(got.quats, quats / np.linalg.norm(quats, axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize('order', ['<', '>', ''])
def test_gaussians_that_are_not_finite_are_left_out_and_counted(tmp_path, caplog, order):
    def change(table):
        table[3, 0] = np.nan
        table[5, SPLAT.index('scale_1')] = 200.0  # its exponential is no float32
        table[7, 2] = 1e30
        table[9, SPLAT.index('opacity')] = np.inf  # an opaque one
        table[11, SPLAT.index('scale_2')] = -np.inf  # a flat one

    table = of_another_maker(tmp_path / 'a.ply', order=order, change=change)
    got = read_ply(tmp_path / 'a.ply', 'camera')
    assert caplog.messages == [
        f'{tmp_path / "a.ply"}: 3 of 200 Gaussians are left out: their numbers are not finite'
    ]
    kept = np.delete(np.arange(200), [3, 5, 7])
    np.testing.assert_allclose(got.means, table[kept, :3], rtol=1e-6)
    assert got.opacities[6] == 1.0 and got.scales[8, 2] == 0.0
    assert all(torch.isfinite(t).all() for t in (got.means, got.scales, got.colors, got.opacities))


def broken_files(good):
    head, body = good.split(b'end_header\n', 1)
    vertex = b'element vertex 3\n'
    return {
        'truncated': (good[:-3], 'bytes, its header announces'),
        'longer': (good + b'\0', 'bytes, its header announces'),
        'half a header': (good[:40], 'has no PLY header'),
        'empty': (b'', 'has no PLY header'),
        'png': (b'\x89PNG\r\n\x1a\n', 'has no PLY header'),
        'no text': (good.replace(b'binary_little_endian', b'ascii'), 'vertices that are no 20 numbers'),
        'other format': (good.replace(b'little', b'middle'), 'is PLY in format binary_middle_endian'),
        'no opacity': (
            head.replace(b'property float opacity\n', b'') + b'end_header\n' + body[12:],
            'vertices without opacity: wanted .* not a mesh, a point cloud',
        ),
        'twice x': (head.replace(b'float nx', b'float x') + b'end_header\n' + body, 'x.* more than once'),
        'faces cut off': (
            head + b'element face 1\nproperty list uchar int vertex_indices\nend_header\n' + body[:-1],
            'bytes, its header announces',
        ),
        'lists in vertices': (
            head + b'property list uchar int near\nend_header\n' + body,
            'has vertices that are no plain numbers',
        ),
        'no properties': (b'ply\nformat ascii 1.0\nelement vertex 3\nend_header\n', 'no plain numbers'),
        'no vertices': (good.replace(b'vertex', b'point'), 'has no vertices'),
        'faces before': (
            good.replace(vertex, b'element face 2\nproperty list uchar int vertex_indices\n' + vertex),
            r'list of unknown size before the vertices \(face\)',
        ),
        'huge count': (good.replace(b'vertex 3', b'vertex 99999999999999'), 'its header announces'),
        'count of 5,000 digits': (good.replace(b'vertex 3', b'vertex ' + b'9' * 5000), 'is no PLY'),
        'code of 5,000 digits': (good.replace(b'code_0', b'code_' + b'9' * 5000), None),
        'negative': (good.replace(b'vertex 3', b'vertex -3'), 'is no PLY'),
        'a terminal escape': (good.replace(b'element', b'\x1b[31m'), 'is no PLY'),
    }


@pytest.mark.parametrize('kind', broken_files(b'end_header\n'))
def test_a_broken_file_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / 'scene.ply'
    write_ply(path, random_gaussians(3, 3)[0])
    data, words = broken_files(path.read_bytes())[kind]
    path.write_bytes(data)
    if words is None:  # an unknown property
        assert read_ply(path, 'map').codes.shape == (3, 2)
        return
    with pytest.raises(ValueError, match=words) as error:
        read_ply(path, 'map')
    said = str(error.value)
    assert 'scene.ply' in said and said.isprintable() and len(said) < 400


def test_mutated_files_are_read_or_refused(tmp_path):
    path, random = tmp_path / 'a.ply', np.random.default_rng(1)
    for maker in OTHERS:
        of_another_maker(path, **{**OTHERS[maker], 'count': 5})
        good = path.read_bytes()
        for _ in range(150):
            path.write_bytes(damaged(random, good, least=1, head=1500))
            try:
                got = read_ply(path, 'map')
            except ValueError as error:
                assert str(error).isprintable()
            else:
                assert torch.isfinite(got.means).all() and torch.isfinite(got.scales).all()


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match='no PLY file at'):
        read_ply(tmp_path / 'absent.ply', 'map')
