"""Relevant Gaussians grouped into objects. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_VOXELS_ACROSS = 100  # default voxel edge: the scene's robust diagonal over this, 6 cm in a room
_LOW, _HIGH = 0.05, 0.95  # quantiles that bound an object: a few flying Gaussians must not stretch it
# the 13 of the 26 neighbours that come later in key order: each pair of neighbours once
_FORWARD = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]

_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1])


@dataclass(frozen=True)
class Object:
    """An axis-aligned box in the frame of the Gaussians: center and size (x, y, z) [m]; score in [0, 1]."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    score: float

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


def inside_any(objects: Iterable[Object], points: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the points (N, 3) lie in the box of one of the objects."""
    inside = np.zeros(len(points), bool)
    for thing in objects:
        inside |= thing.contains(points)
    return inside


def find_objects(
    means: np.ndarray,
    scores: np.ndarray,
    opacities: np.ndarray,
    gate: float,
    *,
    voxel: float | None = None,
    min_points: int = 20,
    max_objects: int = 8,
) -> tuple[Object, ...]:
    """Groups the Gaussians whose score reaches `gate` into objects, best first, `max_objects` at most.

    means: (N, 3) [m]; scores: (N,) relevancy 0..1, NaN: unknown, left out; opacities: (N,) in (0, 1), the
    weights. voxel: edge [m] of the grid in which occupied voxels that touch, by a corner too, are one object.
    None: a hundredth of the diagonal of the box that holds the middle 90 % of `means` along each axis, so
    that scenes without metric scale give the same. Groups of fewer than `min_points` Gaussians are dropped.

    A box spans the weighted 5 % to 95 % quantiles along each axis; its score is the weighted 95 % quantile.
    """
    assert means.shape == (*scores.shape, 3) and opacities.shape == scores.shape, (means.shape, scores.shape)
    finite = np.isfinite(means).all(1)
    keep = finite & (scores >= gate)  # false for NaN
    if np.count_nonzero(keep) < min_points:
        return ()
    if voxel is None:
        low, high = np.quantile(means[finite], (_LOW, _HIGH), axis=0)
        voxel = max(float(np.linalg.norm(high - low)) / _VOXELS_ACROSS, 1e-6)
    means, scores, weights = means[keep].astype(np.float64), scores[keep], opacities[keep]
    labels = connected_voxels(means, voxel)
    order = np.argsort(labels, kind='stable')
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    groups = [group for group in np.split(order, starts[1:]) if len(group) >= min_points]
    found = [_object(means[group], scores[group], weights[group]) for group in groups]
    return tuple(sorted(found, key=lambda item: -item.score)[:max_objects])


def connected_voxels(points: np.ndarray, voxel: float) -> np.ndarray:
    """Points (N, 3) -> component (N,) int, 0 .. count - 1: voxels that share a face, edge or corner."""
    cells = np.stack([_without_gaps(column) for column in np.floor(points / voxel).T], 1)
    sides = cells.max(0) + 2
    strides = np.array([sides[1] * sides[2], sides[2], 1])
    keys, voxel_of_point = np.unique(cells @ strides, return_inverse=True)
    first, second = [], []
    for offset in _FORWARD:
        wanted = keys + np.dot(offset, strides)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        touching = np.flatnonzero(keys[place] == wanted)
        first.append(touching)
        second.append(place[touching])
    roots = _components(len(keys), np.concatenate(first), np.concatenate(second))
    return np.unique(roots, return_inverse=True)[1][voxel_of_point]


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


def _object(means: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> Object:
    low, high = (np.array([_quantile(column, weights, q) for column in means.T]) for q in (_LOW, _HIGH))
    # the middle of the box and not the mean: centre and size then describe one box, and a visible front
    # with many Gaussians does not pull the centre out of the object
    centre, size = (low + high) / 2, high - low
    return Object(tuple(centre.tolist()), tuple(size.tolist()), _quantile(scores, weights, _HIGH))


def _quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The smallest value that has the share `q` of the weight at or below it."""
    order = np.argsort(values)
    running = np.cumsum(weights[order], dtype=np.float64)
    index = np.searchsorted(running, q * running[-1])
    return float(values[order[min(index, len(order) - 1)]])
