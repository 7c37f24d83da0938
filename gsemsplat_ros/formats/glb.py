"""Gaussians to GLB: glTF 2.0 with KHR_gaussian_splatting (Khronos, release candidate of 2026).

Right-handed, y up. Attributes of a primitive of points: scales and opacities are linear, rotations x y z w,
colours coefficients of degree 0, display-referred sRGB. Programs without the extension show COLOR_0.

The codes follow as `_CODE_0` ..., four channels each, a byte a channel; other programs skip them. The
`extras` of the document say what reads them, and which frame this was; a whole scene has the counts of its
picture too (Splats), a byte each. So the file answers words (glb_reader.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.formats.axes import Axes
from gsemsplat_ros.formats.glb_file import MAX_STRIDE, NUMBERS, WIDTHS, write_glb_file
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.config import SH_C0

EXTENSION = 'KHR_gaussian_splatting'
ROTATION, SCALE, OPACITY, SH = (
    f'{EXTENSION}:{name}' for name in ('ROTATION', 'SCALE', 'OPACITY', 'SH_DEGREE_0_COEF_0')
)
KERNEL, COLOR_SPACE = 'ellipse', 'srgb_rec709_display'
COLUMNS = {  # attribute -> type, numbers; in the order of the file
    'POSITION': ('VEC3', '<f4'),
    'COLOR_0': ('VEC4', 'u1'),
    ROTATION: ('VEC4', '<f4'),
    SCALE: ('VEC3', '<f4'),
    OPACITY: ('SCALAR', '<f4'),
    SH: ('VEC3', '<f4'),
}
KEY, CARD_VERSION = 'gsemsplat', 1  # of our entry in the extras
IN_CODE = 4  # channels of an attribute
NEAR = 0.01  # of the camera, which glTF wants to know
Bounds = tuple[np.ndarray, np.ndarray]


def write_glb(path: Path, splats: Splats) -> None:
    """Write Gaussians, with their codes where it is known what reads them.

    Raises ValueError for none, and for more than a GLB holds; OSError.
    """
    if not len(splats):
        raise ValueError(f'cannot write {path}: there are no Gaussians, and a GLB holds one at least')
    turned = splats.turned(Axes.Y_UP)
    codes = counts = None
    if splats.space is not None:
        codes = bounds(part.codes for part in turned.parts)
        counts = None if splats.counts is None else bounds([pixels_of(splats.counts)])
    document = document_of(splats, bounds(part.means for part in turned.parts), codes, counts)
    document['nodes'][0]['name'] = path.stem
    write_glb_file(path, document, blocks(turned, codes, counts), document['buffers'][0]['byteLength'])


def pixels_of(counts: torch.Tensor) -> torch.Tensor:
    """Counts (C, h, w) -> (h * w, C)."""
    return counts.flatten(1).mT


def bounds(tensors: Iterable[torch.Tensor]) -> Bounds:
    """Smallest and largest value (C,) of each column of tensors (N, C)."""
    parts = [part for part in tensors if len(part)]
    low = torch.stack([part.amin(0) for part in parts]).amin(0)
    high = torch.stack([part.amax(0) for part in parts]).amax(0)
    return low.cpu().numpy(), high.cpu().numpy()


def document_of(
    splats: Splats, corners: Bounds, codes: Bounds | None, counts: Bounds | None
) -> dict[str, Any]:
    """The JSON of the file; corners: of the box of the means, y up; codes, counts: bounds of theirs."""
    count = len(splats)
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    for kind, number in COLUMNS.values():
        views.append({'byteLength': count * WIDTHS[kind] * np.dtype(number).itemsize})
        accessors.append({'bufferView': len(accessors), 'componentType': NUMBERS[number], 'type': kind})
    accessors[0] |= {'min': corners[0].tolist(), 'max': corners[1].tolist()}
    accessors[1]['normalized'] = True
    attributes = list(COLUMNS)
    stride = 0 if codes is None else padded(len(codes[0]))
    assert stride <= MAX_STRIDE, stride
    if stride:
        views.append({'byteLength': count * stride, 'byteStride': stride})
    for first in range(0, stride, IN_CODE):
        attributes.append(f'_CODE_{first // IN_CODE}')
        form = {'componentType': NUMBERS['u1'], 'type': 'VEC4', 'normalized': True}
        accessors.append({'bufferView': len(views) - 1, 'byteOffset': first, **form})
    for view in views:
        view['target'] = 34962  # of attributes
    card = card_of(splats, codes)
    if splats.counts is not None and counts is not None:
        channels, *size = splats.counts.shape
        views.append({'byteLength': math.prod(size) * padded(channels)})
        card['counts'] = {'accessor': len(accessors), 'size': size, **listed(counts)}
        form = {'componentType': NUMBERS['u1'], 'type': 'SCALAR', 'normalized': True}
        accessors.append({'bufferView': len(views) - 1, 'count': views[-1]['byteLength'], **form})
    total = 0
    for view in views:
        view |= {'buffer': 0, 'byteOffset': total}
        total += view['byteLength']
    splatting = {'kernel': KERNEL, 'colorSpace': COLOR_SPACE}
    primitive = {
        'mode': 0,  # points
        'attributes': {name: number for number, name in enumerate(attributes)},
        'extensions': {EXTENSION: splatting},
    }
    document: dict[str, Any] = {
        'asset': {'version': '2.0', 'generator': 'gsemsplat'},
        'extensionsUsed': [EXTENSION],
        'scene': 0,
        'scenes': [{'nodes': [0]}],
        'nodes': [{'mesh': 0}],
        'meshes': [{'primitives': [primitive]}],
        'buffers': [{'byteLength': total}],
        'bufferViews': views,
        'accessors': [{'count': count, **accessor} for accessor in accessors],
        'extras': {KEY: card},
    }
    if splats.camera:  # at the origin and looking ahead, as a camera of glTF does
        lens = {'yfov': splats.camera.fov_y, 'aspectRatio': splats.camera.aspect, 'znear': NEAR}
        document['cameras'] = [{'type': 'perspective', 'perspective': lens}]
        document['nodes'].append({'camera': 0, 'name': 'first camera'})
        document['scenes'][0]['nodes'].append(1)
    return document


def card_of(splats: Splats, codes: Bounds | None) -> dict[str, Any]:
    """What a reader here needs besides the attributes."""
    space = None
    if splats.space is not None and codes is not None:
        space = {**splats.space, **listed(codes)}
    return {
        'version': CARD_VERSION,
        'axes': splats.axes.name,
        'frame': splats.parts[0].frame,
        'metric': splats.metric,
        'voxel': splats.voxel,
        'camera': splats.camera and asdict(splats.camera),
        'codes': space,
        'counts': None,
    }


def blocks(splats: Splats, codes: Bounds | None, counts: Bounds | None) -> Iterator[np.ndarray]:
    """The bytes of all columns, one part of one column at a time."""
    makers = [
        lambda part: part.means,
        fallback_colors,
        lambda part: part.quats.roll(-1, dims=-1),  # w x y z -> x y z w
        lambda part: part.scales,
        lambda part: part.opacities,
        lambda part: (part.colors - 0.5) / SH_C0,
    ]
    if codes is not None:
        makers.append(lambda part: in_bytes(part.codes, *codes))
    for make in makers:
        for part in splats.parts:
            yield np.ascontiguousarray(make(part).detach().cpu().numpy())
    if splats.counts is not None and counts is not None:
        yield np.ascontiguousarray(in_bytes(pixels_of(splats.counts), *counts).cpu().numpy())


def fallback_colors(gaussians: Gaussians) -> torch.Tensor:
    """(N, 4) uint8: linear RGB (IEC 61966-2-1) and opacity."""
    display = gaussians.colors.clamp(0, 1)
    linear = torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    return torch.cat((linear, gaussians.opacities[:, None]), 1).mul(255).round().byte()


def padded(channels: int) -> int:
    """The bytes of a row, a byte a channel."""
    return -(-channels // IN_CODE) * IN_CODE


def listed(limits: Bounds) -> dict[str, list[float]]:
    """Bounds as the card has them."""
    return {'low': limits[0].tolist(), 'high': limits[1].tolist()}


def in_bytes(codes: torch.Tensor, low: np.ndarray, high: np.ndarray) -> torch.Tensor:
    """Rows (N, C) -> (N, padded C) uint8: 0 is the `low` of a channel, 255 its `high`."""
    least, most = torch.from_numpy(low).to(codes), torch.from_numpy(high).to(codes)
    numbers = ((codes - least) * (255 / (most - least).clamp(min=1e-30))).round().byte()
    return torch.nn.functional.pad(numbers, (0, -codes.shape[1] % IN_CODE))
