"""Relevant Gaussians grouped into objects. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gsemsplat_ros.semantics.object_history import History

_VOXELS_ACROSS = 100  # default voxel edge: the scene's robust diagonal over this, 6 cm in a room
_ROOM = 0.05, 0.95  # quantiles that bound the scene
_LOW, _HIGH = 0.02, 0.98  # quantiles that bound an object: a few flying Gaussians must not stretch it
_AROUND = 0.75  # of the range of relevancy: Gaussians above it belong to an object that has lit ones
_SHARD = 0.1  # of the largest group's volume: less is no object
_GAP = 0.1  # of the smaller group's diagonal: a gap that does not part an object
_TOGETHER = 1 << 18  # distances computed at once
# the 13 of the 26 neighbours that come later in key order: each pair of neighbours once
_FORWARD = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]

_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1])


@dataclass(frozen=True)
class Object:
    """An axis-aligned box in the frame of the Gaussians: center and size (x, y, z) [m]; score in [0, 1].
    history: what a map remembers of it, None without one."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    score: float
    history: History | None = None

    @property
    def id(self) -> int:
        """The number by which a map knows it, 0 where none does."""
        return self.history.id if self.history else 0

    @property
    def corners(self) -> np.ndarray:
        """(8, 3): corner i lies on the high side of x, y, z where bits 2, 1, 0 of i are set."""
        signs = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]) - 0.5
        return np.asarray(self.center) + signs * np.asarray(self.size)

    @property
    def edges(self) -> np.ndarray:
        """(12, 2, 3): the ends of the edges, between corners that differ in one bit."""
        return self.corners[_EDGES]

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: which of the points (N, 3) lie in the box."""
        center, size = np.asarray(self.center, points.dtype), np.asarray(self.size, points.dtype)
        return (np.abs(points - center) <= size / 2).all(axis=1)

    def overlap(self, other: Object) -> float:
        """Volume of both over that of either, 0 to 1."""
        (low_a, high_a), (low_b, high_b) = ((box.corners.min(0), box.corners.max(0)) for box in (self, other))
        both = float(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0).prod())
        either = float(np.prod(self.size) + np.prod(other.size)) - both
        return both / either if either > 0 else 0.0


def inside_any(objects: Iterable[Object], points: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the points (N, 3) lie in the box of one of the objects."""
    inside = np.zeros(len(points), bool)
    for thing in objects:
        inside |= thing.contains(points)
    return inside


def find_objects(
    means: np.ndarray,
    relevancy: np.ndarray,
    lit: np.ndarray,
    opacities: np.ndarray,
    *,
    voxel: float | None = None,
    min_points: int = 20,
    max_objects: int = 8,
) -> tuple[Object, ...]:
    """Groups the Gaussians of a phrase into objects, best first, `max_objects` at most.

    means: (N, 3) [m]; relevancy: (N,) 0..1, NaN: unknown, left out; lit: (N,) bool, the Gaussians of the
    phrase; opacities: (N,) in (0, 1), the weights. voxel: edge [m] of the grid in which occupied voxels that
    touch, by a corner too, are one group. None: a hundredth of the diagonal of the box that holds the middle
    90 % of `means` along each axis, so that scenes without metric scale give the same.

    The lit Gaussians are only the visible part of a thing. So a group takes in all Gaussians above 0.75 of
    the range of relevancy, and counts if at least `min_points` of it are lit. Then groups of less than a
    tenth of the volume of the largest are dropped as shards, and groups closer to each other than a tenth of
    the smaller one's diagonal are one object: a gap in a door is bridged, two chairs stay two.

    A box spans the weighted 2 % to 98 % quantiles along each axis; its score is the weighted 98 % quantile.
    """
    assert means.shape == (*relevancy.shape, 3), (means.shape, relevancy.shape)
    assert lit.shape == opacities.shape == relevancy.shape, (lit.shape, opacities.shape, relevancy.shape)
    finite = np.isfinite(means).all(1)
    known = finite & np.isfinite(relevancy)
    lit = lit & known
    if np.count_nonzero(lit) < min_points:
        return ()
    if voxel is None:
        low, high = np.quantile(means[finite], _ROOM, axis=0)
        voxel = max(float(np.linalg.norm(high - low)) / _VOXELS_ACROSS, 1e-6)
    keep = np.flatnonzero(lit | known & (relevancy >= level_around(relevancy[known])))
    return grouped(
        means[keep],
        relevancy[keep],
        lit[keep],
        opacities[keep],
        voxel=voxel,
        min_points=min_points,
        max_objects=max_objects,
    )


def level_around(relevancy: np.ndarray) -> float:
    """The relevancy from which on the Gaussians around lit ones belong to their object; NaN is left out."""
    low, high = float(np.nanmin(relevancy)), float(np.nanmax(relevancy))
    return low + _AROUND * (high - low)


def grouped(
    means: np.ndarray,
    relevancy: np.ndarray,
    lit: np.ndarray,
    opacities: np.ndarray,
    *,
    voxel: float,
    min_points: int,
    max_objects: int,
) -> tuple[Object, ...]:
    """`find_objects` of those that belong to the phrase."""
    if np.count_nonzero(lit) < min_points:
        return ()
    means, weights = means.astype(np.float64), opacities
    labels = connected_voxels(means, voxel)
    groups = [rows for rows in _rows(labels) if np.count_nonzero(lit[rows]) >= min_points]
    if not groups:
        return ()
    boxes = np.array([_bounds(means[rows], weights[rows]) for rows in groups])
    volumes = np.maximum(boxes[:, 1] - boxes[:, 0], voxel).prod(1)  # of a flat one: a voxel thick
    large = np.flatnonzero(volumes >= _SHARD * volumes.max())
    pairs = _close_pairs([means[groups[i]] for i in large], boxes[large], voxel)
    joined = _rows(_components(len(large), *pairs))
    found = []
    for members in joined:
        rows = np.concatenate([groups[i] for i in large[members]])
        bounds = boxes[large[members[0]]] if len(members) == 1 else _bounds(means[rows], weights[rows])
        found.append(_object(bounds, float(_quantiles(relevancy[rows], weights[rows], (_HIGH,))[0])))
    return tuple(sorted(found, key=lambda item: -item.score)[:max_objects])


def _rows(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each label, by label."""
    order = np.argsort(labels, kind='stable')
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _close_pairs(groups: list[np.ndarray], boxes: np.ndarray, voxel: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, first (P,) and second (P,), of the groups of points (N, 3) that nearly touch (_GAP).

    boxes (G, 2, 3): theirs. Distances are those between points, one a voxel; only points that are close
    enough to the other's box are compared.
    """
    reaches = _GAP * np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1)
    pairs = []
    for i, j in combinations(range(len(groups)), 2):
        reach = min(reaches[i], reaches[j])
        a, b = (
            points[((points >= low - reach) & (points <= high + reach)).all(1)]
            for points, (low, high) in ((groups[i], boxes[j]), (groups[j], boxes[i]))
        )
        if len(a) and len(b) and _within(_one_a_voxel(a, voxel), _one_a_voxel(b, voxel), reach):
            pairs.append((i, j))
    first, second = np.array(pairs, int).reshape(-1, 2).T
    return first, second


def _within(a: np.ndarray, b: np.ndarray, reach: float) -> bool:
    """Whether one of the points (N, 3) is no further than `reach` from one of the points (M, 3)."""
    block = max(1, _TOGETHER // len(b))  # of a, to bound the memory
    for some in np.split(a, range(block, len(a), block)):
        squares = (some**2).sum(1)[:, None] + (b**2).sum(1) - 2 * some @ b.T
        if squares.min() <= reach**2:
            return True
    return False


def _one_a_voxel(points: np.ndarray, voxel: float) -> np.ndarray:
    """One of the points (N, 3) of each voxel."""
    return points[np.unique(_voxels(points, voxel)[0], return_index=True)[1]]


def connected_voxels(points: np.ndarray, voxel: float) -> np.ndarray:
    """Points (N, 3) -> component (N,) int, 0 .. count - 1: voxels that share a face, edge or corner."""
    keys, strides = _voxels(points, voxel)
    keys, voxel_of_point = np.unique(keys, return_inverse=True)
    first, second = [], []
    for offset in _FORWARD:
        wanted = keys + np.dot(offset, strides)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        touching = np.flatnonzero(keys[place] == wanted)
        first.append(touching)
        second.append(place[touching])
    roots = _components(len(keys), np.concatenate(first), np.concatenate(second))
    return np.unique(roots, return_inverse=True)[1][voxel_of_point]


def _voxels(points: np.ndarray, voxel: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) -> keys (N,) int64 of their voxels, and the change of key (3,) a step along each axis."""
    cells = np.stack([_without_gaps(column) for column in np.floor(points / voxel).T], 1)
    sides = cells.max(0) + 2
    strides = np.array([sides[1] * sides[2], sides[2], 1])
    return cells @ strides, strides


def _without_gaps(cells: np.ndarray) -> np.ndarray:
    """Voxel coordinates (N,) along one axis -> int64 from one up, with gaps cut to one empty voxel.

    Neighbours stay neighbours, and the key of a voxel fits 63 bits however far out a stray Gaussian lies.
    """
    values, index = np.unique(cells, return_inverse=True)
    return np.cumsum(np.minimum(np.diff(values, prepend=values[0] - 1), 2)).astype(np.int64)[index]


def _components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Nodes 0 .. count - 1 and edges (first[i], second[i]) -> the smallest node of each node's component.

    Union-find in whole arrays: every edge hangs the larger of its two roots under the smaller, then all
    paths are halved until they are flat, so that a few rounds settle any shape.
    """
    parent = np.arange(count)
    while True:
        a, b = parent[first], parent[second]
        differ = a != b
        if not differ.any():
            return parent
        np.minimum.at(parent, np.maximum(a, b)[differ], np.minimum(a, b)[differ])
        while (parent != (up := parent[parent])).any():
            parent = up


def _bounds(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(2, 3): the low and high quantiles of the means (N, 3) along each axis."""
    return np.stack([_quantiles(column, weights, (_LOW, _HIGH)) for column in means.T], 1)


def _object(bounds: np.ndarray, score: float) -> Object:
    low, high = bounds
    # the middle of the box and not the mean: centre and size then describe one box, and a visible front
    # with many Gaussians does not pull the centre out of the object
    return Object(tuple(((low + high) / 2).tolist()), tuple((high - low).tolist()), score)


def _quantiles(values: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """The smallest values that have the `shares` of the weight at or below them."""
    order = np.argsort(values)
    running = np.cumsum(weights[order], dtype=np.float64)
    index = np.searchsorted(running, np.multiply(shares, running[-1]))
    return values[order[np.minimum(index, len(order) - 1)]]
