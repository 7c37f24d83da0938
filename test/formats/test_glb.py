"""GLB files read by pygltflib, value by value, and by our reader, which believes nothing."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.damaged import damaged
from support.independent_readers import covariances, glb
from support.random_gaussians import random_gaussians

from gsemsplat_ros.formats.axes import Axes
from gsemsplat_ros.formats.glb_reader import read_glb
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.formats.writers import write
from gsemsplat_ros.images.camera import Camera

KHR = 'KHR_gaussian_splatting'
SPACE = {'weights': 'some.safetensors', 'text_encoder': 'words', 'decoders': 'abc'}
CAMERA = Camera(64, 48, 50.0, 52.0, 31.5, 23.5)
FLIP = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope='module')
def splats():
    """A scene in two parts, of codes with six channels, one of them constant, and counts of 5 classes."""
    gaussians, _ = random_gaussians(1000, codes=6, seed=4)
    gaussians.codes[:, 3] = 2.5
    parts = gaussians.select(slice(0, 400)), gaussians.select(slice(400, None))
    counts = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 6, 8)).astype(np.float32)) * 3
    return Splats(parts, Axes.OPTICAL, True, CAMERA, None, SPACE, counts)


@pytest.fixture(scope='module')
def file(splats, tmp_path_factory):
    path = tmp_path_factory.mktemp('glb') / 'room.glb'
    write(path, splats)
    return path


def test_another_program_reads_the_gaussians(splats, file):
    document, columns = glb(file)
    gaussians = splats.joined()
    np.testing.assert_array_equal(columns['POSITION'], gaussians.means.numpy() * np.float32([1, -1, -1]))
    xyzw = columns[f'{KHR}:ROTATION'].astype(float)
    np.testing.assert_allclose(np.linalg.norm(xyzw, axis=1), 1, atol=1e-6)
    found = covariances(np.roll(xyzw, 1, axis=1), columns[f'{KHR}:SCALE'].astype(float))
    np.testing.assert_allclose(found, FLIP @ gaussians.covariances().double().numpy() @ FLIP, atol=1e-6)
    np.testing.assert_array_equal(columns[f'{KHR}:SCALE'], gaussians.scales.numpy())
    np.testing.assert_array_equal(columns[f'{KHR}:OPACITY'][:, 0], gaussians.opacities.numpy())
    sh = columns[f'{KHR}:SH_DEGREE_0_COEF_0'].astype(float)
    np.testing.assert_allclose(sh * 0.28209479177387814 + 0.5, gaussians.colors.numpy(), atol=1e-6)
    display = gaussians.colors.double().numpy()
    linear = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(columns['COLOR_0'][:, :3], linear, atol=0.51 / 255)
    np.testing.assert_allclose(columns['COLOR_0'][:, 3], gaussians.opacities.numpy(), atol=0.51 / 255)
    codes = np.concatenate([columns['_CODE_0'], columns['_CODE_1']], 1)
    card = document.extras['gsemsplat']['codes']
    low, high = np.array(card['low']), np.array(card['high'])
    np.testing.assert_array_equal(codes[:, 6:], 0)
    wanted = gaussians.codes.numpy()
    assert (np.abs(codes[:, :6] * (high - low) + low - wanted) <= (high - low) / 255 * 0.51 + 1e-6).all()


def test_the_document_says_what_the_extension_wants(splats, file):
    document, columns = glb(file)
    primitive = document.meshes[0].primitives[0]
    assert primitive.mode == 0 and document.extensionsUsed == [KHR] and document.asset.version == '2.0'
    assert primitive.extensions[KHR] == {'kernel': 'ellipse', 'colorSpace': 'srgb_rec709_display'}
    place = document.accessors[primitive.attributes.POSITION]
    np.testing.assert_array_equal(np.float32(place.min), columns['POSITION'].min(0))
    np.testing.assert_array_equal(np.float32(place.max), columns['POSITION'].max(0))
    assert document.buffers[0].byteLength == len(document.binary_blob())
    for view in document.bufferViews:
        assert (
            view.byteOffset % 4 == 0 and view.byteOffset + view.byteLength <= document.buffers[0].byteLength
        )
    lens = document.cameras[0].perspective
    assert 2 * np.arctan(24 / 52) == pytest.approx(lens.yfov)
    assert lens.aspectRatio == pytest.approx(CAMERA.aspect)
    standing = document.nodes[1]
    assert standing.camera == 0 and standing.rotation is standing.translation is None


def test_what_is_read_is_what_was_written(splats, file):
    again, before = read_glb(file), splats.joined()
    found = again.parts[0]
    assert (again.axes, again.metric, again.camera) == (Axes.OPTICAL, True, CAMERA)
    assert (again.voxel, again.space, found.frame) == (None, SPACE, before.frame)
    for name in ('means', 'scales', 'opacities'):
        torch.testing.assert_close(getattr(found, name), getattr(before, name), atol=0, rtol=0)
    torch.testing.assert_close(found.covariances(), before.covariances())
    torch.testing.assert_close(found.colors, before.colors)
    for got, wanted, of in (found.codes, before.codes, 0), (again.counts, splats.counts, (1, 2)):
        step = (wanted.amax(of, keepdim=True) - wanted.amin(of, keepdim=True)) / 255
        assert bool(((got - wanted).abs() <= step * 0.51 + 1e-5).all())


def test_a_map_comes_back_in_its_own_axes(tmp_path, splats):
    gaussians = replace(splats.joined(), frame='odom')
    write(tmp_path / 'map.glb', Splats((gaussians,), Axes.Z_UP, True, voxel=0.03, space=SPACE))
    again = read_glb(tmp_path / 'map.glb')
    assert (again.axes, again.voxel, again.camera, again.counts) == (Axes.Z_UP, 0.03, None, None)
    assert again.parts[0].frame == 'odom' and torch.equal(again.parts[0].means, gaussians.means)
    _, columns = glb(tmp_path / 'map.glb')
    np.testing.assert_array_equal(columns['POSITION'][:, 1], gaussians.means[:, 2].numpy())  # up


def test_codes_that_nothing_reads_are_left_out(tmp_path, splats):
    write(tmp_path / 'a.glb', replace(splats, space=None))
    assert '_CODE_0' not in glb(tmp_path / 'a.glb')[1]
    again = read_glb(tmp_path / 'a.glb')
    assert again.space is again.counts is None and again.parts[0].codes.shape == (1000, 0)


def changed(data, change):
    """A GLB with another document, for which `change` mends the old one in place or returns a new one."""
    (length,) = struct.unpack('<I', data[12:16])
    document = json.loads(data[20 : 20 + length])
    document = change(document) or document
    text = json.dumps(document).encode()
    text += b' ' * (-len(text) % 4)
    rest = data[20 + length :]
    return struct.pack('<4sIII4s', b'glTF', 2, 20 + len(text) + len(rest), len(text), b'JSON') + text + rest


def primitive(document):
    return document['meshes'][0]['primitives'][0]


def attribute(document, name):
    return document['accessors'][primitive(document)['attributes'][name]]


def card(document):
    return document['extras']['gsemsplat']


def test_another_programs_file_is_read(tmp_path, splats, file):
    def foreign(document):
        del document['extras'], document['cameras'], document['nodes'][1]

    (tmp_path / 'b.glb').write_bytes(changed(file.read_bytes(), foreign))
    again = read_glb(tmp_path / 'b.glb')
    assert again.space is again.camera is None and not again.metric
    torch.testing.assert_close(again.parts[0].means, splats.joined().means, atol=0, rtol=0)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda d: [1], 'without a document'),
        (lambda d: d.pop('meshes') and None, 'no primitives'),
        (lambda d: d['meshes'][0]['primitives'].append(primitive(d)), '2 primitives'),
        (lambda d: primitive(d).update(mode=4), 'not read'),
        (lambda d: primitive(d)['extensions'][KHR].update(extensions={'SPZ': {}}), 'compressed'),
        (lambda d: primitive(d)['extensions'][KHR].update(colorSpace='lin_rec709_display'), 'colour space'),
        (lambda d: primitive(d)['attributes'].pop(f'{KHR}:SCALE') and None, 'does not hold'),
        (lambda d: primitive(d)['attributes'].update(POSITION=True), 'does not hold POSITION'),
        (lambda d: attribute(d, 'POSITION').update(count=999), 'different lengths'),
        (lambda d: attribute(d, 'POSITION').update(count=10**9), 'beyond its end'),
        (lambda d: attribute(d, 'POSITION').update(count=-1), 'no size'),
        (lambda d: attribute(d, 'POSITION').update(type='VEC4'), 'of 4 numbers, wanted 3'),
        (lambda d: attribute(d, 'POSITION').update(componentType=5130), 'not read'),
        (lambda d: attribute(d, 'POSITION').update(sparse={}), 'not read'),
        (lambda d: d['bufferViews'][0].update(byteOffset=10**8), 'beyond its end'),
        (lambda d: d['bufferViews'][0].update(byteStride=0), 'beyond its end'),
        (lambda d: d['buffers'][0].update(uri='other.bin'), 'another file'),
        (lambda d: d['nodes'][0].update(scale=[2, 2, 2]), 'moved by a node'),
        (lambda d: card(d).update(version=99), 'later release'),
        (lambda d: card(d).update(axes=['OPTICAL']), 'whose axes'),
        (lambda d: card(d).update(frame='a\nb'), 'whose frame'),
        (lambda d: card(d).update(metric=1), 'whose metric'),
        (lambda d: card(d).update(voxel=-1), 'whose voxel'),
        (lambda d: card(d)['camera'].update(width=10**6), 'whose camera'),
        (lambda d: card(d)['codes'].update(low=[float('nan')] * 6), 'whose codes'),
        (lambda d: card(d)['codes'].update(high=[1e30] * 6), 'whose codes'),
        (lambda d: card(d)['codes']['low'].append(0), 'whose codes'),
        (lambda d: card(d)['codes'].update(low=[0] * 252, high=[1] * 252), 'fewer bytes than codes'),
        (lambda d: card(d)['counts'].update(size=[6, 9]), 'another size'),
        (lambda d: card(d)['counts'].update(accessor=0), 'counts of 3 numbers'),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(tmp_path, file, change, message):
    path = tmp_path / 'bad.glb'
    path.write_bytes(changed(file.read_bytes(), change))
    with pytest.raises(ValueError, match=message) as error:
        read_glb(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name, value', [('means', np.nan), ('opacities', 1.5), ('scales', -1), ('quats', 0)])
def test_numbers_out_of_their_range_are_refused(tmp_path, name, value):
    path = tmp_path / 'bad.glb'
    write(path, Splats((random_gaussians(20)[0],), Axes.Y_UP))
    _, columns = glb(path)
    names = {'means': 'POSITION', 'opacities': 'OPACITY', 'scales': 'SCALE', 'quats': 'ROTATION'}
    column = next(values for key, values in columns.items() if key.endswith(names[name]))
    data = path.read_bytes()
    at = data.index(column.tobytes())
    bad = column.copy()
    bad[3] = value
    path.write_bytes(data[:at] + bad.tobytes() + data[at + len(bad.tobytes()) :])
    with pytest.raises(ValueError, match='out of their range'):
        read_glb(path)


def test_damaged_files_are_refused_or_read(tmp_path, splats):
    """What damage leaves readable is in range; nothing but a ValueError of one line comes out."""
    path, small = tmp_path / 'a.glb', splats.select(np.arange(1000) < 8)
    write(path, replace(small, counts=splats.counts))
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    (length,) = struct.unpack('<I', whole[12:16])
    for _ in range(200):
        path.write_bytes(damaged(rng, whole, least=1, head=20 + length))
        try:
            again = read_glb(path)
        except ValueError as error:
            refused += 1
            assert '\n' not in str(error)
        else:
            assert torch.isfinite(again.parts[0].codes).all() and bool((again.parts[0].opacities <= 1).all())
    assert refused > 100
    for length in range(0, len(whole), 211):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError):
            read_glb(path)
