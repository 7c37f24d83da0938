"""Splat files as programs that are not ours read them: pygltflib, GaussForge and tinyusdz (C++)."""

import numpy as np

TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {'SCALAR': 1, 'VEC2': 2, 'VEC3': 3, 'VEC4': 4}


def glb(path):
    """(the document, attribute -> (N, width) numbers) of the first primitive of a GLB."""
    from pygltflib import GLTF2

    document = GLTF2().load(str(path))
    names = vars(document.meshes[0].primitives[0].attributes)
    return document, {name: column(document, number) for name, number in names.items() if number is not None}


def column(document, number):
    """(N, width) of an accessor: bytes as they lie, normalised ones divided."""
    accessor = document.accessors[number]
    view = document.bufferViews[accessor.bufferView]
    kind, width = np.dtype(TYPES[accessor.componentType]), WIDTHS[accessor.type]
    first, item = (view.byteOffset or 0) + (accessor.byteOffset or 0), width * kind.itemsize
    blob, step = document.binary_blob(), view.byteStride or item
    rows = [blob[at : at + item] for at in range(first, first + accessor.count * step, step)]
    values = np.frombuffer(b''.join(rows), kind).reshape(-1, width)
    return values / np.float32(np.iinfo(kind).max) if accessor.normalized else values


def by_gaussforge(path):
    """Property -> (N,) float32 of the PLY that GaussForge makes of an SPZ or PLY file, in the file's axes."""
    from gaussforge import GaussForge

    made = GaussForge().convert(path.read_bytes(), path.suffix[1:], 'ply')
    assert 'error' not in made, made
    head, body = made['data'].split(b'end_header\n', 1)
    names = [line.split()[-1] for line in head.decode().split('\n') if line.startswith('property float')]
    values = np.frombuffer(body, '<f4').reshape(-1, len(names))
    return dict(zip(names, values.T))


def plain_gaussians(columns):
    """The columns of a PLY of 3D Gaussian splatting -> means, covariances, opacities and colours, by its
    published formulas in float64."""

    def stacked(*names):
        return np.stack([columns[name] for name in names], -1).astype(float)

    quats = stacked('rot_0', 'rot_1', 'rot_2', 'rot_3')
    return {
        'means': stacked('x', 'y', 'z'),
        'covariances': covariances(quats, np.exp(stacked('scale_0', 'scale_1', 'scale_2'))),
        'opacities': 1 / (1 + np.exp(-columns['opacity'].astype(float))),
        'colors': 0.5 + 0.28209479177387814 * stacked('f_dc_0', 'f_dc_1', 'f_dc_2'),
    }


def covariances(quats, scales):
    """(N, 3, 3) of quaternions (N, 4) w x y z, by turning the unit vectors."""
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    w, v = quats[:, :1], quats[:, 1:]
    axes = []
    for i in range(3):
        unit = np.eye(3)[i] * scales[:, i : i + 1]
        axes.append(unit + 2 * np.cross(v, np.cross(v, unit) + w * unit))
    turned = np.stack(axes, -1)
    return turned @ turned.transpose(0, 2, 1)


USD_COLUMNS = ('positions', 'orientations', 'scales', 'opacities', 'radiance:sphericalHarmonicsCoefficients')


def usda(path):
    """(the stage, its default prim, name -> (N, ...) numbers) of an OpenUSD file; quaternions w x y z."""
    import tinyusdz

    stage = tinyusdz.load(str(path))
    prim = stage.get_prim_at_path('/' + stage.get_default_prim())
    columns = {name: np.asarray(prim.get_attribute(name).value) for name in USD_COLUMNS}
    columns['orientations'] = np.roll(columns['orientations'], 1, axis=1)  # it holds them as x y z w
    return stage, prim, columns
