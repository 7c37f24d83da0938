"""One map out of many scenes: at most one Gaussian a voxel, merged by certainty, within a budget; and its
words.

A map never changes: `merged` makes a new one, so a query goes on reading the one that it began with.

What several Gaussians of one voxel become is the mixture they are, seen as one: weighted means of position,
colour, opacity and code, and the mixture's variances along the axes of the strongest of them. So the one that
stays covers what the many covered, and the map has no holes where it had none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import TENSORS, Gaussians
from gsemsplat_ros.semantics.codec import Codec, PreparedHead
from gsemsplat_ros.semantics.relevancy import Mixture, relevancy

MIN_OPACITY = 0.05  # fainter Gaussians are haze: they do not enter a map
MIN_DISTANCE = 0.3  # m: nearer Gaussians are not more certain than those here
KEY_BITS = 21  # of a voxel's index along one axis: 2^20 voxels to either side of the origin
HALF = 1 << KEY_BITS - 1
# edge of the cells over which relevancy is smoothed: with 3 cm, the published box 2 m away
SMOOTHING_VOXELS = 5
CHUNK = 1 << 15  # Gaussians whose codes are decoded together: 16 MB, which the process keeps (keep_memory)


@dataclass(frozen=True, eq=False)
class Map:
    """N Gaussians in the map's frame, ordered by voxel, and what is known of each; torch tensors on the CPU.

    gaussians: in `frame`, [m] where scale_source is not 'network'. keys (N,) int64, ascending: their voxels
    (`voxel_keys`). weights (N,) float32 [1/m^2]: certainty, the sum of opacity / distance^2 over all that was
    merged, since errors of depth grow with the distance to the camera. counts (N,) int32: how many scenes saw
    the voxel; last_seen (N,) int32: the number of the last of them, 1 for the first. scenes: how many were
    fused. voxel: edge [m]. scale_source: of the first scene ('' for an empty map).
    """

    gaussians: Gaussians
    keys: Tensor
    weights: Tensor
    counts: Tensor
    last_seen: Tensor
    scenes: int
    voxel: float
    scale_source: str = ''

    def __post_init__(self):
        for name in ('keys', 'weights', 'counts', 'last_seen'):
            assert getattr(self, name).shape == (len(self.gaussians),), (name, getattr(self, name).shape)
        assert self.voxel > 0, self.voxel

    def __len__(self) -> int:
        return len(self.gaussians)

    @property
    def frame(self) -> str:
        return self.gaussians.frame

    @classmethod
    def empty(cls, frame: str, voxel: float, channels: int = 32) -> Map:
        """A map without Gaussians; `voxel`: edge [m]; `channels`: of the codes."""
        widths = {
            'means': (3,),
            'quats': (4,),
            'scales': (3,),
            'opacities': (),
            'colors': (3,),
            'codes': (channels,),
        }
        gaussians = Gaussians(*(torch.zeros(0, *widths[name]) for name in TENSORS), frame)
        counts = torch.zeros(0, dtype=torch.int32)
        return cls(gaussians, torch.zeros(0, dtype=torch.int64), torch.zeros(0), counts, counts, 0, voxel)

    def merged(
        self, gaussians: Gaussians, camera_position: np.ndarray, budget: int, scale_source: str = ''
    ) -> Map:
        """The map with one more scene in it.

        gaussians: in the map's frame and unit; camera_position (3,): where they were seen from; budget:
        Gaussians to keep at most. The certainty of each, divided by the number of scenes since it was last
        seen, says who stays: the oldest and least certain go first. Haze, and what is not finite or beyond
        the grid, is left out.
        """
        assert gaussians.frame == self.frame, (gaussians.frame, self.frame)
        old, new, number = _arrays(self.gaussians), _arrays(gaussians), self.scenes + 1
        new_keys, inside = voxel_keys(new.means, self.voxel)
        keep = np.flatnonzero(
            inside
            & (new.opacities >= MIN_OPACITY)
            & np.logical_and.reduce([np.isfinite(values.sum(tuple(range(1, values.ndim)))) for values in new])
        )
        keep = keep[np.argsort(new_keys[keep], kind='stable')]  # by voxel, then as they came
        new, new_keys = Arrays(*(np.take(values, keep, 0) for values in new)), new_keys[keep]
        new_weights = certainties(new.means, new.opacities, camera_position)

        # the scene's voxels: `seen` are their keys, `mine` the map's rows in them, -1 where it has none
        first = np.flatnonzero(np.diff(new_keys, prepend=-1))
        seen, sizes = new_keys[first], np.diff(first, append=len(new_keys))
        keys, old_weights = self.keys.numpy(), self.weights.numpy()
        place = np.searchsorted(keys, seen)
        known = np.append(keys, -1)[place] == seen
        mine = np.where(known, place, -1)

        # rows of the new map: all of the old one's, with the unknown voxels put in by key
        target = place + np.cumsum(~known) - ~known
        count = len(self) + int((~known).sum())
        from_old = np.ones(count, bool)
        from_old[target[~known]] = False

        def placed(before: np.ndarray, values: np.ndarray) -> np.ndarray:
            out = np.empty(count, before.dtype)
            out[from_old] = before
            out[target] = values
            return out

        added = np.bincount(np.repeat(np.arange(len(seen)), sizes), new_weights, len(seen))
        counts = self.counts.numpy()
        state = (
            placed(keys, seen),
            placed(old_weights, added + np.where(known, np.append(old_weights, 0)[mine], 0)),
            placed(counts, 1 + np.where(known, np.append(counts, 0)[mine], 0)),
            placed(self.last_seen.numpy(), np.full(len(seen), number)),
        )
        source = placed(np.arange(len(self)), np.maximum(mine, 0))  # the fresh rows are written below
        if count > budget:
            value = state[1] / (1 + number - state[3])
            stay = np.zeros(count, bool)
            stay[np.argpartition(-value, budget)[:budget]] = True
            stay = np.flatnonzero(stay)
            state, source = tuple(values[stay] for values in state), source[stay]
            row_of = np.full(count, -1)
            row_of[stay] = np.arange(budget)
            target = row_of[target]
        out = Arrays(
            *(
                np.take(values, source, 0) if len(self) else np.empty((len(source), *values.shape[1:]), 'f4')
                for values in old
            )
        )
        _merge(first, sizes, mine, target, old, old_weights, new, new_weights, out)
        return Map(
            Gaussians(*map(torch.from_numpy, out), self.frame),
            *map(torch.from_numpy, state),
            number,
            self.voxel,
            self.scale_source or scale_source,
        )


@dataclass(frozen=True, eq=False)
class MapWords:
    """The codes of a map made ready for words, as `Prepared` is for a picture; read only, so threads may
    share it.

    A picture's codes are sums weighted by alpha, and alpha is near 1 where there is something to see. So a
    Gaussian's code is read as it is, not multiplied by its opacity: it is what a picture would show of a
    surface of such Gaussians. (Measured on rooms: relevancy follows the rendered one with a correlation of
    0.99; multiplied by opacity, errors grow by a fifth.) Opacity weighs in where Gaussians are averaged: in
    merging, smoothing and boxes.

    hidden (2, N, D) float16 and scales (2, N): of the heads, see PreparedHead; rival (2, N): the largest
    similarity with a canonical phrase; last: weight and bias of each head's last layer; cells (N,): number of
    the smoothing cell; all on the device of the codec but the cells, which stay on the CPU as the map does.
    """

    map: Map
    hidden: tuple[Tensor, Tensor]
    scales: Tensor
    rival: Tensor
    last: tuple[tuple[Tensor, Tensor], ...]
    cells: Tensor
    mixture: Mixture | None

    @classmethod
    @torch.inference_mode()
    def prepare(
        cls, map_: Map, codec: Codec, negatives: np.ndarray, before: MapWords | None = None
    ) -> MapWords:
        """Decode the map's codes; those that did not change since `before` are taken from there.

        negatives (M, C): unit embeddings of the canonical phrases. Raises ValueError for decoders that look
        at a pixel's neighbours: a Gaussian has none.
        """
        if any(getattr(layer, 'kernel_size', (1, 1)) != (1, 1) for layer in codec.modules()):
            raise ValueError(
                'the decoders of this checkpoint look at neighbouring pixels, so a map cannot be asked'
            )
        device = next(codec.parameters()).device
        source = np.full(len(map_), -1)
        if before is not None:
            source = unchanged_rows(map_, before.map)
        made, old = (
            torch.from_numpy(rows).to(device) for rows in (np.flatnonzero(source < 0), source.clip(min=0))
        )
        codes = (
            map_.gaussians.codes.index_select(0, made.cpu())
            if len(made) < len(map_)
            else map_.gaussians.codes
        )
        fresh: list[Tensor] = []  # hidden of both heads, scales and rival of both; filled chunk by chunk
        for start in range(0, max(len(codes), 1), CHUNK):
            part = codec.prepare(codes[start : start + CHUNK, None].to(device), negatives)
            values = [value for head in part.heads for value in (head.hidden.half(), head.scale)] + [
                *part.rival[:, :, 0]
            ]
            fresh = fresh or [value.new_empty(len(codes), *value.shape[1:]) for value in values]
            for whole, value in zip(fresh, values):
                whole[start : start + CHUNK] = value
        hidden, scales, rival = fresh[0:4:2], fresh[1:4:2], fresh[4:]

        def joined(values: Tensor, previous: Tensor | None) -> Tensor:
            return (
                values
                if len(made) == len(map_)
                else previous.index_select(0, old).index_copy_(0, made, values)
            )

        heads = range(2)
        _, cells = np.unique(
            voxel_keys(map_.gaussians.means.numpy(), SMOOTHING_VOXELS * map_.voxel)[0], return_inverse=True
        )
        return cls(
            map_,
            tuple(joined(hidden[h], before and before.hidden[h]) for h in heads),
            torch.stack([joined(scales[h], before and before.scales[h]) for h in heads]),
            torch.stack([joined(rival[h], before and before.rival[h]) for h in heads]),
            tuple((part.heads[h].weight, part.heads[h].bias) for h in heads),
            torch.from_numpy(cells),
            codec.mixture,
        )

    @torch.inference_mode()
    def relevancy(self, phrases: np.ndarray) -> Tensor:
        """Unit embeddings (K, C) -> relevancy (2, K, N) in (0, 1) of every Gaussian, before smoothing;
        (1, K, N) of a mixture."""
        chunks = [slice(start, start + CHUNK) for start in range(0, len(self.map), CHUNK)]
        similarities = [
            [
                PreparedHead(hidden[chunk].float(), scale[chunk], *last).similarities(phrases)
                for chunk in chunks
            ]
            for hidden, scale, last in zip(self.hidden, self.scales, self.last)
        ]
        return relevancy(
            torch.stack([torch.cat(parts, 1) for parts in similarities]), self.rival[:, None], self.mixture
        )

    def smooth(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half the values (..., N) plus half their mean, weighted by opacity, over the Gaussian's cell; and
        how many Gaussians (N,) lie in that cell."""
        cells, weights = self.cells.numpy(), self.map.gaussians.opacities.numpy()
        total = np.bincount(cells, weights)
        means = [np.bincount(cells, weights * row) / total for row in values.reshape(-1, len(cells))]
        means = np.stack([mean[cells] for mean in means]).reshape(values.shape)
        return ((values + means) / 2).astype(np.float32), np.bincount(cells)[cells]


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
    """Means (N, 3) to the keys (N,) int64 of their voxels, one key a voxel, and which (N,) bool lie in the
    grid.
    """
    with np.errstate(invalid='ignore'):
        cells = np.floor(means.astype(np.float64) / voxel)
        inside = (np.abs(cells + 0.5) < HALF).all(1)  # false for NaN
    x, y, z = (np.where(inside[:, None], cells, 0).astype(np.int64) + HALF).T
    return (x << 2 * KEY_BITS) | (y << KEY_BITS) | z, inside


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


def _arrays(gaussians: Gaussians) -> Arrays:
    return Arrays(
        *(
            np.ascontiguousarray(getattr(gaussians, name).detach().cpu().numpy(), np.float32)
            for name in Arrays._fields
        )
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
