"""Gaussians of GLB files, ours or another program's (glb.py), checked at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.formats.axes import Axes
from gsemsplat_ros.formats.glb import (
    CARD_VERSION,
    COLOR_SPACE,
    COLUMNS,
    EXTENSION,
    IN_CODE,
    KERNEL,
    KEY,
    OPACITY,
    ROTATION,
    SCALE,
    SH,
    padded,
)
from gsemsplat_ros.formats.glb_file import MAX_STRIDE, WIDTHS, GlbFile
from gsemsplat_ros.formats.splats import SPACE, Splats
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.config import SH_C0

LARGEST = 1e6  # of a coordinate, scale, colour or code; squares stay finite
LONGEST_TEXT = 256  # characters of a frame or another text
MAX_SIDE = 1 << 10  # pixels of a camera, whose picture is drawn to answer words
MAX_CLASSES = 1 << 13  # channels of the counts
FOREIGN = {  # the card of another program's file
    'axes': Axes.OPTICAL.name,
    'frame': 'the frame of the file',
    'metric': False,
    'voxel': None,
    'camera': None,
    'codes': None,
    'counts': None,
}
DIFFERENT_LENGTHS = 'has attributes of different lengths'
CURE = 'give a file of `gsemsplat export`, or another GLB of Gaussians'


def read_glb(path: str | Path) -> Splats:
    """The Gaussians of a GLB on the CPU, in the axes that they had as a scene or map, with their codes and
    what reads them; those of another program's file in optical axes.

    One primitive of Gaussians in a node that stands still is read; higher SH degrees are left out. Raises
    ValueError, in one line, for a missing, foreign or damaged file, and for numbers out of their range.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no GLB at {path}')
    try:
        return _splats(GlbFile.open(path))
    except ValueError as error:
        raise ValueError(f'{path} {error}: {CURE}') from None


def _splats(file: GlbFile) -> Splats:
    """Raises ValueError in words that follow the name of the file."""
    attributes, card = attributes_of(file.document), card_of(file.document)
    columns = {
        name: file.column(attributes.get(name), name, WIDTHS[kind])
        for name, (kind, _) in COLUMNS.items()
        if name != 'COLOR_0'
    }
    count = len(columns['POSITION'])
    if any(len(column) != count for column in columns.values()):
        raise ValueError(DIFFERENT_LENGTHS)
    codes = np.zeros((count, 0), np.float32)
    if card['codes']:
        codes = codes_of(file, attributes, card['codes'], count)
    ranges = {
        'positions': (columns['POSITION'], -LARGEST, LARGEST),
        'scales': (columns[SCALE], 0, LARGEST),
        'opacities': (columns[OPACITY], 0, 1),
        'colours': (columns[SH], -LARGEST, LARGEST),
        'codes': (codes, -LARGEST, LARGEST),
        'lengths of rotations': (np.linalg.norm(columns[ROTATION], axis=1), 0.99, 1.01),
    }
    for name, (values, least, most) in ranges.items():
        if values.size and not (values.min() >= least and values.max() <= most):  # true for NaN
            raise ValueError(f'holds {name} out of their range, {least:g} to {most:g}')
    gaussians = Gaussians(
        torch.from_numpy(columns['POSITION']),
        torch.nn.functional.normalize(torch.from_numpy(columns[ROTATION]).roll(1, dims=-1), dim=1),
        torch.from_numpy(columns[SCALE]),
        torch.from_numpy(columns[OPACITY][:, 0]),
        torch.from_numpy(columns[SH]) * SH_C0 + 0.5,
        torch.from_numpy(codes),
        card['frame'],
    )
    camera = card['camera'] and Camera(**card['camera'])
    space = card['codes'] and {name: card['codes'][name] for name in SPACE}
    counts = card['counts'] and counts_of(file, card['counts'])
    splats = Splats((gaussians,), Axes.Y_UP, card['metric'], camera, card['voxel'], space, counts)
    return splats.turned(Axes[card['axes']])


def codes_of(file: GlbFile, attributes: Mapping[str, Any], entry: dict[str, Any], count: int) -> np.ndarray:
    """(count, C) by the codes' entry of the card. Raises ValueError."""
    low, high = (np.array(entry[name], np.float32) for name in ('low', 'high'))
    if count * len(low) > file.size:  # attributes may name the same bytes, whose codes would fill the memory
        raise ValueError('holds fewer bytes than codes')
    codes = np.empty((count, len(low)), np.float32)
    for first in range(0, len(low), IN_CODE):
        some = slice(first, first + IN_CODE)
        numbers = file.column(attributes.get(f'_CODE_{first // IN_CODE}'), 'codes', IN_CODE)
        if len(numbers) != count:
            raise ValueError(DIFFERENT_LENGTHS)
        codes[:, some] = between(numbers, low[some], high[some])
    return codes


def counts_of(file: GlbFile, entry: dict[str, Any]) -> torch.Tensor:
    """(C, h, w) by the counts' entry of the card. Raises ValueError."""
    (height, width), channels = entry['size'], len(entry['low'])
    numbers = file.column(entry['accessor'], 'counts', 1)
    if len(numbers) != height * width * padded(channels):
        raise ValueError('holds counts of another size than it says')
    low, high = (np.array(entry[name], np.float32) for name in ('low', 'high'))
    values = between(numbers.reshape(height, width, -1), low, high)
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def between(numbers: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Numbers (..., C or more) from 0 to 1 -> (..., C) between the bounds (C,)."""
    return numbers[..., : len(low)] * (high - low) + low


def attributes_of(document: dict[str, Any]) -> dict[str, Any]:
    """Those of the one primitive of Gaussians. Raises ValueError for another number of them."""
    found = [
        (number, primitive)
        for number, mesh in enumerate(dicts(document, 'meshes'))
        for primitive in dicts(mesh, 'primitives')
        if EXTENSION in inner(primitive, 'extensions')
    ]
    if len(found) != 1:
        raise ValueError(f'is a GLB with {len(found) or "no"} primitives of {EXTENSION}, wanted one')
    (number, primitive), *_ = found
    said = inner(inner(primitive, 'extensions'), EXTENSION)
    if primitive.get('mode') != 0 or said.get('kernel') != KERNEL or inner(said, 'extensions'):
        raise ValueError('is a GLB of Gaussians of a kind that is not read, such as compressed ones')
    if said.get('colorSpace') != COLOR_SPACE:
        raise ValueError(f'is a GLB of Gaussians in another colour space than {COLOR_SPACE}')
    for node in dicts(document, 'nodes'):
        moves = node.keys() & {'matrix', 'rotation', 'scale', 'translation'}
        if moves and (node.get('mesh') == number or 'children' in node):
            raise ValueError('is a GLB whose Gaussians are moved by a node, which is not read')
    return inner(primitive, 'attributes')


def card_of(document: dict[str, Any]) -> dict[str, Any]:
    """Our entry in the extras of a document, FOREIGN where there is none. Raises ValueError for one that
    makes no sense."""
    card = inner(document, 'extras').get(KEY)
    if card is None:
        return FOREIGN
    if not isinstance(card, dict) or not FOREIGN.keys() < card.keys() or type(card.get('version')) is not int:
        raise ValueError(f'has an entry {KEY} that makes no sense')
    if card['version'] > CARD_VERSION:
        raise ValueError('was written by a later release')
    voxel, camera, codes, counts = (card[name] for name in ('voxel', 'camera', 'codes', 'counts'))
    sound = (
        card['axes'] in [axes.name for axes in Axes],
        is_text(card['frame']),
        type(card['metric']) is bool,
        voxel is None or (is_number(voxel) and voxel > 0),
        camera is None or is_camera(camera),
        codes is None or is_space(codes),
        counts is None or is_counts(counts),
    )
    for name, fine in zip(FOREIGN, sound):
        if not fine:
            raise ValueError(f'has an entry {KEY} whose {name} makes no sense')
    return card


def is_camera(values: object) -> bool:
    """Whether `values` are those of a Camera."""
    if not isinstance(values, dict) or values.keys() != {field.name for field in fields(Camera)}:
        return False
    sides = values['width'], values['height']
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in sides):
        return False
    return all(map(is_number, values.values())) and values['fx'] > 0 and values['fy'] > 0


def is_space(values: object) -> bool:
    """Whether `values` tell what reads the codes, and their bounds."""
    if not isinstance(values, dict) or not all(is_text(values.get(name)) for name in SPACE):
        return False
    return are_bounds(values, MAX_STRIDE)


def is_counts(values: object) -> bool:
    """Whether `values` tell where counts are, of how many pixels, and their bounds."""
    if not isinstance(values, dict) or not isinstance(values.get('size'), list) or len(values['size']) != 2:
        return False
    return all(type(side) is int and 0 < side <= MAX_SIDE for side in values['size']) and are_bounds(
        values, MAX_CLASSES
    )


def are_bounds(values: dict[str, Any], most: int) -> bool:
    """Whether `values` hold as many low as high numbers, `most` at most."""
    low, high = values.get('low'), values.get('high')
    if not isinstance(low, list) or not isinstance(high, list) or not len(low) == len(high) <= most:
        return False
    return all(map(is_number, (*low, *high)))


def is_text(value: object) -> bool:
    """Whether a value is one short line: it goes into messages."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and value.isprintable()


def is_number(value: object) -> bool:
    """Whether a value is a number of a sensible size."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= LARGEST  # not NaN


def dicts(item: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The list `name` of an item, without what is no object; empty where there is none."""
    found = item.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def inner(item: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object `name` of an item, an empty one where there is none."""
    found = item.get(name)
    return found if isinstance(found, dict) else {}
