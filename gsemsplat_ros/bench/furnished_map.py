"""A synthetic map of furnished rooms, as large as one likes, with phrases for what stands in them.

Rooms of ROOM stand side by side. Floor, walls, ceiling and the sides of PER_ROOM boxes are sampled with
noise, and each voxel that is hit holds one Gaussian. Every kind of thing has a code; a Gaussian has that of
its thing with noise. The spread of codes between things and within a cell, and the number of Gaussians in a
cell (36), are those of maps that the shipped network makes of the houses of `gsemsplat eval map`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.mapping.map import Map, cut
from gsemsplat_ros.mapping.tile import Tile
from gsemsplat_ros.mapping.voxels import voxel_keys
from gsemsplat_ros.semantics.decoder import Decoders

VOXEL = 0.03  # m
ROOM = np.array([5.0, 4.0, 2.7])  # m
WALL = 0.2  # m between rooms
KINDS = 40  # of things
PER_ROOM = 8
SMALLEST, LARGEST = (0.4, 0.4, 0.3), (1.6, 1.0, 2.0)  # m, of things
SAMPLES, NOISE = 5.0, 0.03  # a voxel of surface, and m
BETWEEN, WITHIN = 1.2, 0.55  # standard deviations of a channel of the codes
COUNT = 3.0  # more than usual, of the context-aware branch
FLOOR, WALLS, CEILING = range(KINDS, KINDS + 3)


@dataclass(frozen=True, eq=False)
class FurnishedMap:
    """map: of the rooms; things (K, C): phrases that fit one kind of thing each, of those that are there;
    floor (1, C): one that fits all floors; canonical (4, C): that fit nothing."""

    map: Map
    things: np.ndarray
    floor: np.ndarray
    canonical: np.ndarray


def furnished_map(count: int, decoders: Decoders) -> FurnishedMap:
    """A map of `count` Gaussians with codes for `decoders` whose text space is a direct sum."""
    rng = np.random.default_rng(0)
    means, kinds = surfaces(count, rng)
    drawn = torch.Generator().manual_seed(0)
    of_kinds = BETWEEN * torch.randn(KINDS + 3, decoders.code_dim, generator=drawn)
    codes = torch.randn(count, decoders.code_dim, generator=drawn)
    for some, kind in zip(codes.split(1 << 16), torch.from_numpy(kinds).split(1 << 16)):
        some.mul_(WITHIN).add_(of_kinds[kind])
    ones = torch.ones(count)
    gaussians = Gaussians(
        torch.from_numpy(means),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.full((count, 3), VOXEL / 2),
        torch.from_numpy(rng.uniform(0.7, 1, count).astype(np.float32)),
        torch.full((count, 3), 0.5),
        codes,
        'map',
    )
    once, none = ones.int(), torch.zeros(count, dtype=torch.uint8)
    keys = torch.from_numpy(voxel_keys(means, VOXEL)[0])
    whole = Tile(gaussians, keys, ones, once, once, none, once)
    phrases = phrases_for(of_kinds, decoders).numpy()
    map_ = Map('map', VOXEL, cut(whole), 1, 'tf')
    there = np.unique(kinds[kinds < KINDS])
    return FurnishedMap(map_, phrases[there], phrases[FLOOR:WALLS], np.zeros((4, decoders.dim), np.float32))


@torch.inference_mode()
def phrases_for(codes: Tensor, decoders: Decoders) -> Tensor:
    """(K, C): phrases that fit one of the codes (K, code_dim) each: the direction in which its
    region-specific feature differs from the others, and weights by which its classes say COUNT, and
    others' -COUNT."""
    region, context = (features[:, 0] for features in decoders.decode(codes[:, None]))
    wanted = COUNT * (2 * torch.eye(len(codes)) - 1)
    weights = torch.linalg.lstsq(context.double(), wanted.double(), driver='gelsd').solution.T.float()
    return torch.cat((torch.nn.functional.normalize(region - region.mean(0), dim=1), weights), 1)


def surfaces(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Means (count, 3) float32 [m] in the order of their voxels, one in each, and the kinds (count,) of what
    they lie on."""
    side = int(np.ceil(np.sqrt(count / 1e5)))  # rooms along x and y, more than enough
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number in range(side * side):
        points, of_points = room(rng)
        points += np.array([*np.divmod(number, side), 0]) * (ROOM + WALL)
        of_room, first = np.unique(voxel_keys(points.astype(np.float32), VOXEL)[0], return_index=True)
        parts.append((of_room, points[first].astype(np.float32), of_points[first]))
        if sum(len(keys) for keys, _, _ in parts) >= 1.02 * count:  # neighbours share some voxels
            break
    keys, means, kinds = (np.concatenate(column) for column in zip(*parts))
    _, first = np.unique(keys, return_index=True)
    assert len(first) >= count, (len(first), count)
    first = first[np.sort(rng.choice(len(first), count, replace=False))]
    return means[first], kinds[first]


def room(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) [m] on the surfaces of one room, whose corner is the origin, and their kinds (N,)."""
    size = rng.uniform(SMALLEST, LARGEST, (PER_ROOM, 3))
    low = np.concatenate(
        (rng.uniform(0, 1, (PER_ROOM, 2)) * (ROOM - size)[:, :2], np.zeros((PER_ROOM, 1))), 1
    )
    kinds = rng.integers(KINDS, size=PER_ROOM)
    boxes = [(np.zeros(3), ROOM, -1), *zip(low, low + size, kinds)]
    points, of_kinds = [], []
    for start, end, kind in boxes:
        for axis in range(3):
            for high in (False, True):
                if kind >= 0 and axis == 2 and not high:
                    continue  # a thing's underside
                extent = end - start
                area = extent.prod() / extent[axis]
                number = int(SAMPLES * area / VOXEL**2)
                some = rng.uniform(start, end, (number, 3))
                some[:, axis] = end[axis] if high else start[axis]
                points.append(some + rng.normal(0, NOISE, some.shape))
                what = kind if kind >= 0 else WALLS if axis < 2 else CEILING if high else FLOOR
                of_kinds.append(np.full(number, what))
    return np.concatenate(points), np.concatenate(of_kinds)
