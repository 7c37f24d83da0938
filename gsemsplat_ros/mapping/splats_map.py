"""The map of Gaussians that a file of another format brought along with their codes and the voxels' edge."""

from __future__ import annotations

from dataclasses import replace

import torch

from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.tile import HISTORY, Tile
from gsemsplat_ros.scene.scene import FILE_SCALE, NETWORK_SCALE


def map_of(splats: Splats) -> Map:
    """A map of `splats`, in its axes, as if one scene had shown them: their history is not in such a file."""
    voxel = splats.voxel
    assert voxel is not None, 'a scene'
    gaussians = splats.joined()
    count = len(gaussians)
    history = {name: torch.ones(count, dtype=dtype) for name, dtype in HISTORY.items()}
    history |= {name: torch.zeros(count, dtype=HISTORY[name]) for name in ('keys', 'misses', 'owners')}
    empty = replace(
        Map.empty(gaussians.frame, voxel),
        scenes=1,
        scale_source=FILE_SCALE if splats.metric else NETWORK_SCALE,
    )
    return empty.joined(Tile(gaussians, **history))
