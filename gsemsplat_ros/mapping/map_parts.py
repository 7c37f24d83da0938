"""Parts of a map by its tiles, without a copy of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.rows import thinned
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.tile import Tile
from gsemsplat_ros.mapping.voxels import SIDE, tile_cells


def near(map_: Map, boxes: np.ndarray) -> list[Gaussians]:
    """Those of the tiles that reach into one of the boxes (B, 2, 3) [m], from corner to corner, of a map with
    Gaussians; never none."""
    first = tile_cells(np.array([*map_.tiles], np.int64)).astype(np.float64)
    # a voxel more: means may leave theirs by rounding
    low, high = (first - 1) * map_.voxel, (first + SIDE + 1) * map_.voxel
    reached = np.zeros(len(first), bool)
    for start, end in boxes:
        reached |= ((low <= end) & (high >= start)).all(1)
    reached[:1] |= not reached.any()
    return [tile.gaussians for tile, there in zip(map_.tiles.values(), reached) if there]


def sample(map_: Map, most: int) -> Gaussians:
    """At most `most` of the Gaussians, evenly, or with 0 all of them; without codes."""
    rows, start = thinned(len(map_), most or len(map_)), 0
    parts = [without_codes(Tile.empty(map_.frame).gaussians)]
    for tile in map_.tiles.values():
        first, last = np.searchsorted(rows, (start, start + len(tile)))
        parts.append(without_codes(tile.gaussians).select(torch.from_numpy(rows[first:last] - start)))
        start += len(tile)
    return Gaussians.joined(parts)


def without_codes(gaussians: Gaussians) -> Gaussians:
    """The same memory without the codes."""
    return replace(gaussians, codes=gaussians.codes[:, :0])
