"""Maps on disk: one safetensors file that can be queried without images, and a PLY beside it for viewers.

The header's JSON card holds frame, voxel and the decoders of its codes. Files appear whole or not at all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gsemsplat_ros.gaussians.ply import write_ply
from gsemsplat_ros.scene import coded_file as codedfile
from gsemsplat_ros.scene.coded_file import CodeSpace, Kind
from gsemsplat_ros.scene.map import Map

KIND = Kind('map', 'gsemsplat_map', 1, 'save_map')
STATE = {'keys': torch.int64, 'weights': torch.float32, 'counts': torch.int32, 'last_seen': torch.int32}


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
    state = {name: getattr(map_, name).to(dtype).contiguous() for name, dtype in STATE.items()}
    codedfile.write(
        path,
        KIND,
        card,
        {**codedfile.tensors_of(gaussians), **state},
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
    card, tensors = codedfile.read(Path(path), KIND, defect)
    map_ = Map(
        gaussians=codedfile.gaussians_of(tensors, card['frame']),
        keys=tensors['keys'],
        weights=tensors['weights'],
        counts=tensors['counts'],
        last_seen=tensors['last_seen'],
        scenes=card['scenes'],
        voxel=card['voxel_m'],
        scale_source=card['scale_source'],
    )
    return map_, CodeSpace.of_card(card)


def defect(card: dict, tensors: dict[str, Tensor]) -> str:
    """What is wrong with a map's parts, in words; '' when nothing is."""
    wrong = codedfile.missing(card, {'frame': str, 'voxel_m': float, 'scenes': int, 'scale_source': str}) or (
        codedfile.misshapen(tensors, codedfile.DTYPES | STATE, codedfile.SHAPES | dict.fromkeys(STATE, ()))
    )
    if wrong:
        return wrong
    if not 0 < card['voxel_m'] < float('inf'):
        return 'its card lacks a positive voxel_m'
    if not bool((tensors['keys'].diff() > 0).all()):
        return 'its voxels are not in order'
    if not bool(
        ((tensors['opacities'] >= 0) & (tensors['opacities'] <= 1)).all() and (tensors['weights'] > 0).all()
    ):
        return 'opacities or weights are out of their range'
    return ''
