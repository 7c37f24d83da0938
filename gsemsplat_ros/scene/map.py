"""One map from many scenes: at most one Gaussian a voxel, merged by certainty, within a budget.

A map never changes: `merged` makes a new one, so a running query keeps reading its own.

The Gaussians of one voxel become their mixture as one Gaussian: weighted means of position, colour, opacity
and code, and the mixture's variances along the axes of the strongest of them. So the merged one covers what
they covered, and the map has no new holes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.scene.map_keyframe import MapKeyframe
from gsemsplat_ros.scene.pose_graph import PoseGraph
from gsemsplat_ros.scene.scene import is_metric

MIN_OPACITY = 0.05  # fainter Gaussians are haze and are left out
MIN_DISTANCE = 0.3  # m: certainty does not grow below this distance
MISSES_TO_GO = 2  # keyframes in a row that look through a Gaussian, and it is gone (forgetting.py)
KEY_BITS = 21  # of a voxel's index along one axis: 2^20 voxels to either side of the origin
HALF = 1 << KEY_BITS - 1
UP_OF_MAP = (0.0, 0.0, 1.0)  # REP 103


@dataclass(frozen=True, eq=False)
class Map:
    """N Gaussians in the map's frame, ordered by voxel, and the history of each; torch tensors on the CPU.

    gaussians: in `frame`, [m] where the map is `metric`. keys (N,) int64, ascending: their voxels
    (`voxel_keys`). weights (N,) float32 [1/m^2]: certainty, the sum of opacity / distance^2 over all merged
    Gaussians, since errors of depth grow with the distance to the camera. counts (N,) int32: number of scenes
    with the voxel; last_seen (N,) int32: number of the last of them, 1 for the first. misses (N,) uint8:
    keyframes that looked through it since it was last seen (forgetting.py). scenes: number fused. voxel: edge
    [m]. scale_source: of the first scene ('' for an empty map). keyframes: by which it is known again;
    graph: of the places of its
    scenes. `merged` leaves both as they are.
    """

    gaussians: Gaussians
    keys: Tensor
    weights: Tensor
    counts: Tensor
    last_seen: Tensor
    misses: Tensor
    scenes: int
    voxel: float
    scale_source: str = ''
    keyframes: tuple[MapKeyframe, ...] = ()
    graph: PoseGraph = field(default_factory=PoseGraph.empty)

    def __post_init__(self) -> None:
        for name in ('keys', 'weights', 'counts', 'last_seen', 'misses'):
            assert getattr(self, name).shape == (len(self.gaussians),), (name, getattr(self, name).shape)
        assert self.voxel > 0, self.voxel

    def __len__(self) -> int:
        return len(self.gaussians)

    @property
    def frame(self) -> str:
        return self.gaussians.frame

    @property
    def metric(self) -> bool:
        """Whether lengths are metres, by the first scene; otherwise they are in the network's own unit."""
        return is_metric(self.scale_source)

    @classmethod
    def empty(cls, frame: str, voxel: float) -> Map:
        """A map without Gaussians; `voxel`: edge [m]. The first scene brings the width of the codes."""
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
        counts = torch.zeros(0, dtype=torch.int32)
        keys, misses = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.uint8)
        return cls(gaussians, keys, none, counts, counts, misses, 0, voxel)

    def merged(
        self,
        gaussians: Gaussians,
        camera_position: np.ndarray,
        budget: int,
        scale_source: str = '',
        misses: np.ndarray | None = None,
    ) -> Map:
        """The map with one more scene in it.

        gaussians: in the map's frame and unit; camera_position (3,): from which they were seen; budget:
        Gaussians to keep at most, those with the highest certainty over the number of scenes since they were
        last seen; misses (N,) uint8: those of this map's Gaussians after the scene, None: as before. The
        scene's Gaussians that are haze, not finite or beyond the grid are left out. The map's with
        MISSES_TO_GO go; what the scene has in their voxels begins anew.
        """
        assert gaussians.frame == self.frame, (gaussians.frame, self.frame)
        old, new, number = arrays_of(self.gaussians), arrays_of(gaussians), self.scenes + 1
        new_keys, inside = voxel_keys(new.means, self.voxel)
        keep = np.flatnonzero(
            inside
            & (new.opacities >= MIN_OPACITY)
            & np.logical_and.reduce([np.isfinite(values.sum(tuple(range(1, values.ndim)))) for values in new])
        )
        keep = keep[np.argsort(new_keys[keep], kind='stable')]  # by voxel, then as they came
        new, new_keys = Arrays(*(np.take(values, keep, 0) for values in new)), new_keys[keep]
        new_weights = certainties(new.means, new.opacities, camera_position)

        # the scene's voxels: their keys, and which rows of `new` each of them holds
        first = np.flatnonzero(np.diff(new_keys, prepend=-1))
        seen, sizes = new_keys[first], np.diff(first, append=len(new_keys))
        added = np.bincount(np.repeat(np.arange(len(seen)), sizes), new_weights, len(seen))

        # the new map's voxels: the old one's, with the unknown ones inserted by key
        old_misses = self.misses.numpy() if misses is None else misses
        there = np.flatnonzero(old_misses < MISSES_TO_GO)
        old_keys, old_weights = self.keys.numpy()[there], self.weights.numpy()
        place = np.searchsorted(old_keys, seen)
        known = np.searchsorted(old_keys, seen, 'right') > place
        keys = np.insert(old_keys, place[~known], seen[~known])
        row_of_seen = np.searchsorted(keys, seen)
        row_of_old = np.delete(np.arange(len(keys)), row_of_seen[~known])
        old_row: np.ndarray = np.full(len(keys), -1)  # of each new row the old one, -1 where the voxel is new
        old_row[row_of_old] = there
        old_row_of_seen = old_row[row_of_seen]

        weights, counts, last_seen, new_misses = (
            np.zeros(len(keys), before.dtype)
            for before in (old_weights, self.counts.numpy(), self.last_seen.numpy(), old_misses)
        )
        weights[row_of_old], counts[row_of_old] = old_weights[there], self.counts.numpy()[there]
        last_seen[row_of_old], new_misses[row_of_old] = self.last_seen.numpy()[there], old_misses[there]
        weights[row_of_seen] = added + weights[row_of_seen]
        counts[row_of_seen] += 1
        last_seen[row_of_seen], new_misses[row_of_seen] = number, 0

        if len(keys) > budget:
            value = weights / (1 + number - last_seen)
            stay = np.sort(np.argpartition(-value, budget)[:budget])
            row_that_stays = np.full(len(keys), -1)
            row_that_stays[stay] = np.arange(budget)
            row_of_seen = row_that_stays[row_of_seen]  # -1 where it does not
            keys, weights, counts = keys[stay], weights[stay], counts[stay]
            last_seen, new_misses, old_row = last_seen[stay], new_misses[stay], old_row[stay]

        if len(self):  # rows of new voxels are filled below
            out = Arrays(*(np.take(values, np.maximum(old_row, 0), 0) for values in old))
        else:
            out = Arrays(*(np.empty((len(keys), *values.shape[1:]), np.float32) for values in new))
        _merge(first, sizes, old_row_of_seen, row_of_seen, old, old_weights, new, new_weights, out)
        return Map(
            gaussians_of(out, self.frame),
            torch.from_numpy(keys),
            torch.from_numpy(weights),
            torch.from_numpy(counts),
            torch.from_numpy(last_seen),
            torch.from_numpy(new_misses),
            number,
            self.voxel,
            self.scale_source or scale_source,
            self.keyframes,
            self.graph,
        )


def unchanged_rows(map_: Map, before: Map) -> np.ndarray:
    """For each Gaussian of `map_` (N,) its row in `before`, -1 where it is new or has changed."""
    if not len(before):
        return np.full(len(map_), -1)
    rows = np.searchsorted(before.keys.numpy(), map_.keys.numpy()).clip(max=len(before) - 1)
    same = np.logical_and.reduce(
        [
            getattr(map_, name).numpy() == getattr(before, name).numpy()[rows]
            for name in ('keys', 'weights', 'last_seen')
        ]
    )
    return np.where(same, rows, -1)


def voxel_keys(means: np.ndarray, voxel: float) -> tuple[np.ndarray, np.ndarray]:
    """Means (N, 3) to the keys (N,) int64 of their voxels, and which (N,) bool lie in the grid."""
    with np.errstate(invalid='ignore'):
        cells = np.floor(means.astype(np.float64) / voxel)
        inside = np.all(np.abs(cells + 0.5) < HALF, axis=1)  # false for NaN
    x, y, z = (np.where(inside[:, None], cells, 0).astype(np.int64) + HALF).T
    return (x << 2 * KEY_BITS) | (y << KEY_BITS) | z, inside


def voxel_cells(keys: np.ndarray) -> np.ndarray:
    """Keys (N,) of voxels to their cells (N, 3) int64: a voxel begins at its cell times its edge."""
    one = (1 << KEY_BITS) - 1
    return np.stack((keys >> 2 * KEY_BITS, keys >> KEY_BITS & one, keys & one), 1) - HALF


def certainties(means: np.ndarray, opacities: np.ndarray, camera_position: np.ndarray) -> np.ndarray:
    """Weights (N,) [1/m^2] of Gaussians seen from `camera_position` (3,): opacity / distance^2."""
    distance = np.linalg.norm(means - np.asarray(camera_position, np.float32), axis=1)
    return opacities / np.maximum(distance, np.float32(MIN_DISTANCE)) ** 2


class Arrays(NamedTuple):
    """The tensors of Gaussians as contiguous NumPy arrays, for compiled code."""

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray
    codes: np.ndarray


def arrays_of(gaussians: Gaussians) -> Arrays:
    """The tensors of Gaussians, on the CPU."""
    return Arrays(
        *(
            np.ascontiguousarray(getattr(gaussians, name).detach().cpu().numpy(), np.float32)
            for name in Arrays._fields
        )
    )


def gaussians_of(arrays: Arrays, frame: str) -> Gaussians:
    """The inverse of `arrays_of`; shares the memory."""
    return Gaussians(
        **{name: torch.from_numpy(getattr(arrays, name)) for name in Arrays._fields}, frame=frame
    )


@njit(inline='always')
def _rotation(quats, i, out):
    """Row `i` of quats (N, 4), w x y z, to the matrix `out` (3, 3)."""
    w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)


@njit(nogil=True, cache=True, error_model='numpy')
def _merge(first, sizes, mine, target, old, old_weights, new, new_weights, out):
    """Write the Gaussian of each voxel of a scene into its row of `out`.

    Voxel i holds the rows first[i] .. first[i] + sizes[i] - 1 of `new` and, unless it is -1, the row mine[i]
    of `old`; it goes to the row target[i] of `out`, or nowhere when that is -1. Of equal weights, the map's
    Gaussian is the strongest, then the first of the scene.
    """
    channels = new.codes.shape[1]
    codes, mean, color, variance = np.empty(channels), np.empty(3), np.empty(3), np.empty(3)
    axes, turn = np.empty((3, 3)), np.empty((3, 3))
    for i in range(len(first)):
        row, start = target[i], first[i]
        if row < 0:
            continue
        has_old = mine[i] >= 0
        total, best, opacity = 0.0, -1.0, 0.0
        codes[:], mean[:], color[:], variance[:] = 0, 0, 0, 0
        for k in range(-1 if has_old else 0, sizes[i]):  # k = -1: the map's
            part, j = (old, mine[i]) if k < 0 else (new, start + k)
            weight = old_weights[j] if k < 0 else new_weights[j]
            total += weight
            opacity += weight * part.opacities[j]
            for c in range(3):
                mean[c] += weight * part.means[j, c]
                color[c] += weight * part.colors[j, c]
            for c in range(channels):
                codes[c] += weight * part.codes[j, c]
            if weight > best:
                best, strongest, strongest_is_old = weight, j, k < 0
        source = old if strongest_is_old else new
        out.quats[row] = source.quats[strongest]
        if not has_old and sizes[i] == 1:  # alone: bit for bit
            out.means[row], out.scales[row], out.colors[row] = (
                new.means[start],
                new.scales[start],
                new.colors[start],
            )
            out.opacities[row], out.codes[row] = new.opacities[start], new.codes[start]
            continue
        out.opacities[row] = opacity / total
        for c in range(3):
            mean[c] /= total
            out.means[row, c], out.colors[row, c] = mean[c], color[c] / total
        for c in range(channels):
            out.codes[row, c] = codes[c] / total
        _rotation(source.quats, strongest, axes)
        for k in range(-1 if has_old else 0, sizes[i]):
            part, j = (old, mine[i]) if k < 0 else (new, start + k)
            weight = old_weights[j] if k < 0 else new_weights[j]
            _rotation(part.quats, j, turn)
            for a in range(3):
                along = 0.0
                for c in range(3):
                    along += axes[c, a] * (part.means[j, c] - mean[c])
                spread = along * along
                for b in range(3):
                    lean = axes[0, a] * turn[0, b] + axes[1, a] * turn[1, b] + axes[2, a] * turn[2, b]
                    spread += (lean * part.scales[j, b]) ** 2
                variance[a] += weight * spread
        for a in range(3):
            out.scales[row, a] = math.sqrt(variance[a] / total)
