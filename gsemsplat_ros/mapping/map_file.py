"""Maps on disk: one safetensors file that can be queried without images, and a PLY beside it for viewers.

The header's JSON card holds frame, voxel and the decoders of its codes. Files appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.formats.ply import write_ply
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.mapping import graph_file, keyframe_file, objects_file
from gsemsplat_ros.mapping.map import Map, cut
from gsemsplat_ros.mapping.tile import HISTORY, MISSES_TO_GO, Tile
from gsemsplat_ros.mapping.voxels import HALF, KEY_BITS, keys_of, runs, unpacked, voxel_cells
from gsemsplat_ros.scene import coded_file as codedfile
from gsemsplat_ros.scene import gaussian_columns
from gsemsplat_ros.scene.coded_file import CodedFile, CodeSpace, Kind

VOXELS = 1e-3, 1e3  # edge of a voxel, in the unit of the map
SLACK = 1e-6  # of a mean beyond its voxel: eight times the rounding of float32
BY_TILE = 3  # the first version whose keys are those of voxels.py
OUT_OF_ORDER = 'its voxels are not in order'


def save_map(path: str | Path, map_: Map, space: CodeSpace) -> None:
    """Write `map_` to `path`, and its Gaussians without codes to the same name with .ply.

    Raises ValueError when the folder cannot be written to or the disk is full; earlier files then stay.
    """
    path = Path(path)
    if path.suffix == '.ply':
        raise ValueError(
            f'{path}: the .ply is written beside the map; name the map, such as {path.stem}.safetensors'
        )
    card = {
        'frame': map_.frame,
        'voxel_m': map_.voxel,
        'scenes': map_.scenes,
        'scale_source': map_.scale_source,
    }
    tensors = {
        **keyframe_file.tensors_of(map_.keyframes),
        **graph_file.tensors_of(map_.graph),
        **objects_file.tensors_of(map_.objects),
    }
    tiles = [*map_.tiles.values()] or [Tile.empty(map_.frame)]
    without_codes = [replace(tile.gaussians, codes=tile.gaussians.codes[:, :0]) for tile in tiles]
    codedfile.write(
        path,
        KIND,
        card,
        tensors,
        tiles,
        COLUMNS,
        space,
        lambda: write_ply(path.with_suffix('.ply'), *without_codes),
    )


def of_gaussians(make: Callable[[Gaussians], Tensor]) -> Callable[[Tile], Tensor]:
    """What makes a tensor of Gaussians, for those of a tile."""
    return lambda tile: make(tile.gaussians)


COLUMNS = {name: of_gaussians(make) for name, make in gaussian_columns.COLUMNS.items()} | {
    name: attrgetter(name) for name in HISTORY
}


def load_map(path: str | Path, space: CodeSpace) -> Map:
    """Read the map at `path`, for the decoders of `space`.

    Raises ValueError, in one line, for a file that is missing, damaged or of another kind, and for codes of
    other decoders or another text encoder.
    """
    map_, theirs = read_map(path)
    codedfile.check_space(Path(path), theirs, space, 'set weights to that checkpoint')
    return map_


def read_map(path: str | Path) -> tuple[Map, CodeSpace]:
    """The map at `path` and its code space, not compared. Raises ValueError for the file as `load_map`."""
    file = codedfile.read(Path(path), KIND)
    card, tensors = file.card, file.tensors
    if card['version'] < BY_TILE:
        tiles = cut(by_tile(tile_of(file, 0, file.count)))
    else:
        found = runs(file.stored['keys'].read().numpy())
        if any(after[0] <= before[0] for before, after in pairwise(found)):
            raise codedfile.damaged(file.path, file.kind, OUT_OF_ORDER)
        tiles = {key: tile_of(file, rows.start, rows.stop) for key, rows in found}
    map_ = Map(
        card['frame'],
        card['voxel_m'],
        tiles,
        card['scenes'],
        card['scale_source'],
        keyframe_file.keyframes_of(tensors),
        graph_file.graph_of(tensors),
        objects_file.objects_of(tensors),
    )
    return map_, file.space


def tile_of(file: CodedFile, first: int, stop: int) -> Tile:
    """These Gaussians of a file, with the keys of its version. Raises ValueError for a damaged file."""
    rows = file.rows(first, stop)
    history = {name: rows.get(name, torch.zeros(stop - first, dtype=of)) for name, of in HISTORY.items()}
    return Tile(gaussian_columns.gaussians_of(rows, file.card['frame']), **history)


def by_tile(whole: Tile) -> Tile:
    """All Gaussians of a file before BY_TILE, with today's keys and in their order."""
    keys = torch.from_numpy(keys_of(unpacked(whole.keys.numpy(), KEY_BITS) - HALF))
    return replace(whole, keys=keys).select(keys.argsort())


def cells_of(card: dict, keys: Tensor) -> np.ndarray:
    """The cells (N, 3) of keys (N,) as the version of the file has them: before BY_TILE they were the indices
    along x, y and z one after the other."""
    numbers = keys.numpy()
    return voxel_cells(numbers) if card['version'] >= BY_TILE else unpacked(numbers, KEY_BITS) - HALF


def defect(card: dict, tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with a map's parts, in words; '' when nothing is."""
    scenes, voxel = card['scenes'], card['voxel_m']
    if not card['frame']:
        return 'its frame is empty'
    if not VOXELS[0] <= voxel <= VOXELS[1]:
        return f'its card has a voxel_m of {voxel:g}, wanted {VOXELS[0]:g} to {VOXELS[1]:g}'
    if not 0 <= scenes <= codedfile.LARGEST_COUNT:
        return f'its card counts {scenes} scenes'
    problem = keyframe_file.defect(tensors, scenes) if 'keyframe_whole' in tensors else ''
    if not problem and 'graph_scene_whole' in tensors:
        problem = graph_file.defect(tensors, scenes)
    if not problem and 'object_whole' in tensors:
        problem = objects_file.defect(tensors, scenes)
    return problem


def row_defect(card: dict, rows: Mapping[str, Tensor]) -> str:
    """What is wrong with some of a map's Gaussians, in words; '' when nothing is."""
    scenes = card['scenes']
    if not bool((rows['keys'].diff() > 0).all()):
        return OUT_OF_ORDER
    if not in_their_voxels(rows['means'], cells_of(card, rows['keys']), card['voxel_m']):
        return 'its Gaussians are not in their voxels'
    if not bool((rows['weights'] > 0).all()):
        return 'weights are out of their range'
    for name in ('counts', 'last_seen'):
        if not bool(((rows[name] >= 1) & (rows[name] <= scenes)).all()):
            return f'{name} are out of their range, 1 to {scenes} scenes'
    if 'misses' in rows and not bool((rows['misses'] < MISSES_TO_GO).all()):
        return f'misses are out of their range, 0 to {MISSES_TO_GO - 1}'
    if 'owners' in rows and not bool(((rows['owners'] >= 0) & (rows['owners'] <= scenes)).all()):
        return f'owners are out of their range, 0 to {scenes} scenes'
    return ''


def in_their_voxels(means: Tensor, cells: np.ndarray, voxel: float) -> bool:
    """Whether each of means (N, 3) lies in the voxel at its cell (N, 3): a mean may leave it by its
    rounding."""
    points = means.double().numpy()
    away = np.abs(points / voxel - (cells + 0.5))
    return bool((away <= 0.5 + SLACK * (1 + np.abs(points) / voxel)).all())


KIND = Kind(
    'map',
    'gsemsplat_map',
    3,
    'save_map',
    gaussian_columns.DTYPES | HISTORY | keyframe_file.DTYPES | graph_file.DTYPES | objects_file.DTYPES,
    gaussian_columns.SHAPES
    | dict.fromkeys(HISTORY, ())
    | dict.fromkeys((*keyframe_file.DTYPES, *graph_file.DTYPES, *objects_file.DTYPES)),
    {'frame': str, 'voxel_m': float, 'scenes': int, 'scale_source': str},
    defect,
    row_defect,
    {'misses': 2, 'owners': 3}
    | dict.fromkeys(keyframe_file.DTYPES, 2)
    | dict.fromkeys((*graph_file.DTYPES, *objects_file.DTYPES), 3),
)
