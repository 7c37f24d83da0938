"""Maps on disk: one safetensors file that can be queried without images, and a PLY beside it for viewers.

The header's JSON card holds frame, voxel and the decoders of its codes. Files appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.gaussians.ply import write_ply
from gsemsplat_ros.scene import coded_file as codedfile
from gsemsplat_ros.scene import graph_file, keyframe_file, objects_file
from gsemsplat_ros.scene.coded_file import CodeSpace, Kind
from gsemsplat_ros.scene.map import Map, cut
from gsemsplat_ros.scene.tile import HISTORY, MISSES_TO_GO, Tile
from gsemsplat_ros.scene.voxels import HALF, KEY_BITS, keys_of, unpacked, voxel_cells

VOXELS = 1e-3, 1e3  # edge of a voxel, in the unit of the map
SLACK = 1e-6  # of a mean beyond its voxel: eight times the rounding of float32
BY_TILE = 3  # the first version whose keys are those of voxels.py


def save_map(path: str | Path, map_: Map, space: CodeSpace) -> None:
    """Write `map_` to `path`, and its Gaussians without codes to the same name with .ply.

    Raises ValueError when the folder cannot be written to or the disk is full; earlier files then stay.
    """
    path = Path(path)
    if path.suffix == '.ply':
        raise ValueError(
            f'{path}: the .ply is written beside the map; name the map, such as {path.stem}.safetensors'
        )
    gaussians = map_.gaussians
    card = {
        'frame': map_.frame,
        'voxel_m': map_.voxel,
        'scenes': map_.scenes,
        'scale_source': map_.scale_source,
    }
    history = {name: getattr(map_.whole, name) for name in HISTORY}
    codedfile.write(
        path,
        KIND,
        card,
        {
            **codedfile.tensors_of(gaussians),
            **history,
            **keyframe_file.tensors_of(map_.keyframes),
            **graph_file.tensors_of(map_.graph),
            **objects_file.tensors_of(map_.objects),
        },
        space,
        lambda: write_ply(path.with_suffix('.ply'), replace(gaussians, codes=gaussians.codes[:, :0])),
    )


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
    card, tensors = codedfile.read(Path(path), KIND)
    count = len(tensors['keys'])
    history = {name: tensors.get(name, torch.zeros(count, dtype=of)) for name, of in HISTORY.items()}
    whole = Tile(codedfile.gaussians_of(tensors, card['frame']), **history)
    if card['version'] < BY_TILE:
        keys = torch.from_numpy(keys_of(cells_of(card, whole.keys)))
        whole = replace(whole, keys=keys).select(keys.argsort())
    map_ = Map(
        card['frame'],
        card['voxel_m'],
        cut(whole),
        card['scenes'],
        card['scale_source'],
        keyframe_file.keyframes_of(tensors),
        graph_file.graph_of(tensors),
        objects_file.objects_of(tensors),
    )
    return map_, CodeSpace.of_file(card, tensors)


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
    if not bool((tensors['keys'].diff() > 0).all()):
        return 'its voxels are not in order'
    if not in_their_voxels(tensors['means'], cells_of(card, tensors['keys']), voxel):
        return 'its Gaussians are not in their voxels'
    if not bool((tensors['weights'] > 0).all()):
        return 'weights are out of their range'
    for name in ('counts', 'last_seen'):
        if not bool(((tensors[name] >= 1) & (tensors[name] <= scenes)).all()):
            return f'{name} are out of their range, 1 to {scenes} scenes'
    if 'misses' in tensors and not bool((tensors['misses'] < MISSES_TO_GO).all()):
        return f'misses are out of their range, 0 to {MISSES_TO_GO - 1}'
    if 'owners' in tensors and not bool(((tensors['owners'] >= 0) & (tensors['owners'] <= scenes)).all()):
        return f'owners are out of their range, 0 to {scenes} scenes'
    problem = keyframe_file.defect(tensors, scenes) if 'keyframe_whole' in tensors else ''
    if not problem and 'graph_scene_whole' in tensors:
        problem = graph_file.defect(tensors, scenes)
    if not problem and 'object_whole' in tensors:
        problem = objects_file.defect(tensors, scenes)
    return problem


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
    codedfile.DTYPES | HISTORY | keyframe_file.DTYPES | graph_file.DTYPES | objects_file.DTYPES,
    codedfile.SHAPES
    | dict.fromkeys(HISTORY, ())
    | dict.fromkeys((*keyframe_file.DTYPES, *graph_file.DTYPES, *objects_file.DTYPES)),
    {'frame': str, 'voxel_m': float, 'scenes': int, 'scale_source': str},
    defect,
    {'misses': 2, 'owners': 3}
    | dict.fromkeys(keyframe_file.DTYPES, 2)
    | dict.fromkeys((*graph_file.DTYPES, *objects_file.DTYPES), 3),
)
