"""Gaussians with the history of each, as the tiles of a map hold them, and their merging by voxel.

The Gaussians of one voxel become their mixture as one Gaussian: weighted means of position, colour, opacity
and code, and the mixture's variances along the axes of the strongest of them. So the merged one covers what
they covered, and the map has no new holes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import TENSORS, Gaussians

MISSES_TO_GO = 2  # keyframes in a row that miss a Gaussian, and it is gone (forgetting.py)
HISTORY = {
    'keys': torch.int64,
    'weights': torch.float32,
    'counts': torch.int32,
    'last_seen': torch.int32,
    'misses': torch.uint8,
    'owners': torch.int32,
}


@dataclass(frozen=True, eq=False)
class Tile:
    """N Gaussians of a map, ordered by voxel, and the history of each; torch tensors on the CPU that never
    change. Those of one tile, or of the whole map.

    keys (N,) int64, ascending: their voxels (`voxel_keys`). weights (N,) float32 [1/m^2]: certainty, the sum
    of opacity / distance^2 over all merged Gaussians, since errors of depth grow with the distance to the
    camera. counts (N,) int32: number of scenes with the voxel; last_seen (N,) int32: number of the last of
    them, 1 for the first. misses (N,) uint8: keyframes that missed it since it was last seen
    (forgetting.py). owners (N,) int32: number of the scene with whose pose it moves, that of the strongest
    where several were merged; 0: it never moves.
    """

    gaussians: Gaussians
    keys: Tensor
    weights: Tensor
    counts: Tensor
    last_seen: Tensor
    misses: Tensor
    owners: Tensor

    def __post_init__(self) -> None:
        for name, dtype in HISTORY.items():
            tensor = getattr(self, name)
            assert tensor.shape == (len(self.gaussians),), (name, tensor.shape)
            assert tensor.dtype == dtype, (name, tensor.dtype)

    def __len__(self) -> int:
        return len(self.gaussians)

    @classmethod
    def empty(cls, frame: str) -> Tile:
        """Without Gaussians, and with codes of no width."""
        none = torch.zeros(0)
        gaussians = Gaussians(
            means=none.reshape(0, 3),
            quats=none.reshape(0, 4),
            scales=none.reshape(0, 3),
            opacities=none,
            colors=none.reshape(0, 3),
            codes=none.reshape(0, 0),
            frame=frame,
        )
        return cls(gaussians, **{name: torch.zeros(0, dtype=dtype) for name, dtype in HISTORY.items()})

    @classmethod
    def joined(cls, tiles: Sequence[Tile]) -> Tile:
        """At least one, one after the other."""
        gaussians = Gaussians.joined([tile.gaussians for tile in tiles])
        return cls(
            gaussians, **{name: torch.cat([getattr(tile, name) for tile in tiles]) for name in HISTORY}
        )

    def select(self, index: Tensor | slice) -> Tile:
        """Those that `index` picks: ascending integers (M,), a mask (N,) or a slice."""
        return Tile(self.gaussians.select(index), **{name: getattr(self, name)[index] for name in HISTORY})

    @cached_property
    def arrays(self) -> Arrays:
        """The same memory for compiled code."""
        return Arrays.of(self.gaussians, **{name: getattr(self, name).numpy() for name in HISTORY})


class Arrays(NamedTuple):
    """The tensors of a Tile as contiguous NumPy arrays, for compiled code."""

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray
    codes: np.ndarray
    keys: np.ndarray
    weights: np.ndarray
    counts: np.ndarray
    last_seen: np.ndarray
    misses: np.ndarray
    owners: np.ndarray

    @classmethod
    def of(cls, gaussians: Gaussians, **history: np.ndarray) -> Arrays:
        """Those of Gaussians, which may be on any device, with `history` by name."""
        values = {name: getattr(gaussians, name).detach().cpu().numpy() for name in TENSORS}
        return cls(
            **{name: np.ascontiguousarray(array, np.float32) for name, array in values.items()}, **history
        )

    def tile(self, frame: str) -> Tile:
        """The same memory as a tile."""
        tensors = {name: torch.from_numpy(getattr(self, name)) for name in self._fields}
        gaussians = Gaussians(**{name: tensors.pop(name) for name in TENSORS}, frame=frame)
        return Tile(gaussians, **tensors)


def merged(old: Tile, new: Arrays, order: np.ndarray) -> Tile:
    """The tile without what has MISSES_TO_GO, and with the rows `order` (K,) of `new`, which are ascending by
    key, merged into it.

    In a voxel of several the last sight and the fewest misses hold; of the counts the largest of `new` is
    added to that of the tile.
    """
    before = old.arrays
    stays = np.flatnonzero(before.misses < MISSES_TO_GO)
    count = _union(before.keys, stays, new.keys, order)
    out = Arrays(
        *(
            np.empty((count, *(like if len(old) == 0 else values).shape[1:]), values.dtype)
            for values, like in zip(before, new)
        )
    )
    _merge(before, stays, new, order, out)
    return out.tile(old.gaussians.frame)


@njit(nogil=True, cache=True)
def _union(old_keys, stays, new_keys, order):
    """The number of voxels of the ascending old_keys[stays] (M,) and new_keys[order] (K,)."""
    count, i, k = 0, 0, 0
    while i < len(stays) or k < len(order):
        if k == len(order) or (i < len(stays) and old_keys[stays[i]] < new_keys[order[k]]):
            i += 1
        else:
            key = new_keys[order[k]]
            if i < len(stays) and old_keys[stays[i]] == key:
                i += 1
            while k < len(order) and new_keys[order[k]] == key:
                k += 1
        count += 1
    return count


@njit(inline='always')
def _rotation(quat, out):
    """A quaternion (4,), w x y z, to the matrix `out` (3, 3)."""
    w, x, y, z = quat[0], quat[1], quat[2], quat[3]
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)


@njit(inline='always')
def _copy(part, j, out, row):
    """Row `j` of `part`, bit for bit, to a row of `out`."""
    for c in range(3):
        out.means[row, c], out.scales[row, c] = part.means[j, c], part.scales[j, c]
        out.colors[row, c] = part.colors[j, c]
    for c in range(4):
        out.quats[row, c] = part.quats[j, c]
    for c in range(part.codes.shape[1]):
        out.codes[row, c] = part.codes[j, c]
    out.opacities[row], out.keys[row], out.weights[row] = part.opacities[j], part.keys[j], part.weights[j]
    out.counts[row], out.last_seen[row] = part.counts[j], part.last_seen[j]
    out.misses[row], out.owners[row] = part.misses[j], part.owners[j]


@njit(inline='always')
def _add(part, j, mean, color, codes):
    """Add row `j` of `part`, times its weight, to sums of float64."""
    weight = part.weights[j]
    for c in range(3):
        mean[c] += weight * part.means[j, c]
        color[c] += weight * part.colors[j, c]
    for c in range(len(codes)):
        codes[c] += weight * part.codes[j, c]


@njit(inline='always')
def _add_spread(part, j, mean, axes, turn, variance):
    """Add the variances of row `j` of `part` about `mean` along the columns of `axes`, times its weight, to
    `variance` (3,); `turn` (3, 3): memory."""
    _rotation(part.quats[j], turn)
    for a in range(3):
        along = 0.0
        for c in range(3):
            along += axes[c, a] * (part.means[j, c] - mean[c])
        spread = along * along
        for b in range(3):
            lean = axes[0, a] * turn[0, b] + axes[1, a] * turn[1, b] + axes[2, a] * turn[2, b]
            spread += (lean * part.scales[j, b]) ** 2
        variance[a] += part.weights[j] * spread


@njit(nogil=True, cache=True, error_model='numpy')
def _merge(old, stays, new, order, out):
    """Fill the rows of `out`, as `merged` says. Of equal weights, the tile's Gaussian is the strongest, then
    the first of `order`.
    """
    channels = new.codes.shape[1]
    codes, mean, color, variance = np.empty(channels, np.float32), np.empty(3), np.empty(3), np.empty(3)
    axes, turn = np.empty((3, 3)), np.empty((3, 3))
    i, k = 0, 0
    for row in range(len(out.keys)):
        if k == len(order) or (i < len(stays) and old.keys[stays[i]] < new.keys[order[k]]):
            _copy(old, stays[i], out, row)
            i += 1
            continue
        start, key = k, new.keys[order[k]]
        while k < len(order) and new.keys[order[k]] == key:
            k += 1
        has_old = i < len(stays) and old.keys[stays[i]] == key
        if not has_old and k == start + 1:
            _copy(new, order[start], out, row)
            continue
        total, opacity, strongest = 0.0, 0.0, order[start]
        counts, last_seen, misses = np.int32(0), np.int32(0), np.uint8(255)
        codes[:], mean[:], color[:], variance[:] = 0, 0, 0, 0
        if has_old:
            mine = stays[i]
            _add(old, mine, mean, color, codes)
            total, opacity = float(old.weights[mine]), float(old.weights[mine] * old.opacities[mine])
            last_seen, misses = old.last_seen[mine], old.misses[mine]
        for n in range(start, k):
            j = order[n]
            _add(new, j, mean, color, codes)
            total += new.weights[j]
            opacity += new.weights[j] * new.opacities[j]
            if new.weights[j] > new.weights[strongest]:
                strongest = j
            counts, last_seen = max(counts, new.counts[j]), max(last_seen, new.last_seen[j])
            misses = min(misses, new.misses[j])
        for c in range(3):
            mean[c] /= total
            out.means[row, c], out.colors[row, c] = mean[c], color[c] / total
        for c in range(channels):
            out.codes[row, c] = codes[c] / total
        if has_old and old.weights[mine] >= new.weights[strongest]:
            out.quats[row], out.owners[row] = old.quats[mine], old.owners[mine]
        else:
            out.quats[row], out.owners[row] = new.quats[strongest], new.owners[strongest]
        _rotation(out.quats[row], axes)
        if has_old:
            counts += old.counts[mine]
            _add_spread(old, mine, mean, axes, turn, variance)
            i += 1
        for n in range(start, k):
            _add_spread(new, order[n], mean, axes, turn, variance)
        for a in range(3):
            out.scales[row, a] = math.sqrt(variance[a] / total)
        out.keys[row], out.weights[row], out.opacities[row] = key, total, opacity / total
        out.counts[row], out.last_seen[row], out.misses[row] = counts, last_seen, misses
