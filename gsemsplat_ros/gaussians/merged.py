"""Neighbours of like colour merged into fewer, larger Gaussians that close the surfaces: a level of detail.

Groups come of bisection: the group with the largest variance along one axis is cut at its mean there, until
there are as many as wanted. The axes are three of position and three of colour, so that an even wall becomes
few and a plant many. Each group becomes the Gaussian with the first two moments of its mixture, weighted by
opacity and area, as Kerbl et al., "A Hierarchical 3D Gaussian Representation" (2024), eq. 3.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.rotations import rotation_to_quat

# Even coverage of a square has a standard deviation of 0.29 of its side; neighbours leave no gap between them
# from 0.4. Wider ones blur more than they close.
WIDER = 1.4
NEAR = 0.5  # of the median distance: within, positions count alike; beyond, by the logarithm of the distance
POSITION = 3.0  # a difference of position as large as NEAR, against one of colour from black to white
MOST_ALPHA, LEAST_ALPHA = 0.99, 1e-4
SMALLEST = 1e-9  # [m], for Gaussians without a size
LARGEST = 0.99  # quantile of the weights: a Gaussian before the eye must not take all groups


@dataclass(frozen=True, eq=False)
class Merged:
    """L merged Gaussians, without codes, of N given ones. group (N,) int64: which one each became a part of;
    weights (N,) float64, positive: how much of it."""

    gaussians: Gaussians
    group: np.ndarray
    weights: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """What the given ones have (N, K), for each merged one: (L, K), of the type of `values`."""
        return _mean(values, self.group, self.weights, len(self.gaussians)).astype(values.dtype)


def merged(gaussians: Gaussians, most: int, eye: np.ndarray) -> Merged:
    """At most `most` Gaussians in place of these, which are on the CPU and finite.

    eye (3,) in their frame: from where they are to look right; what is far from it may be coarser.
    """
    scales = np.sort(gaussians.scales.numpy().astype(np.float64), 1).clip(min=SMALLEST)
    areas = scales[:, 1] * scales[:, 2]
    away = gaussians.means.numpy().astype(np.float64) - np.asarray(eye, np.float64)
    distance = np.linalg.norm(away, axis=1).clip(min=1e-9)
    unit = NEAR * float(np.median(distance)) if len(distance) else 1.0
    bent = away * (POSITION * np.log1p(distance / unit) / distance)[:, None]
    colors = gaussians.colors.numpy().astype(np.float64).clip(0, 1)
    alphas = gaussians.opacities.numpy().astype(np.float64).clip(LEAST_ALPHA, MOST_ALPHA)
    seen = alphas * areas / distance**2
    seen = seen.clip(max=np.quantile(seen, LARGEST)) if len(seen) else seen
    order = np.arange(len(gaussians))
    group = np.empty(len(gaussians), np.int64)
    count = _bisect(np.concatenate([bent, colors, seen[:, None]], 1), order, group, most)
    return _matched(gaussians, group, count, alphas, areas)


def _matched(
    gaussians: Gaussians, group: np.ndarray, count: int, alphas: np.ndarray, areas: np.ndarray
) -> Merged:
    """One Gaussian for each group. alphas and areas (N,): of the given ones, areas without the factor pi."""
    weights = alphas * areas
    means = gaussians.means.numpy().astype(np.float64)
    mean = _mean(means, group, weights, count)
    off = means - mean[group]
    spread = gaussians.covariances().numpy() + off[:, :, None] * off[:, None]
    variances, axes = np.linalg.eigh(_mean(spread.reshape(-1, 9), group, weights, count).reshape(-1, 3, 3))
    axes *= np.linalg.det(axes)[:, None, None]  # a rotation, no reflection
    wider = np.where(np.bincount(group, minlength=count) > 1, WIDER, 1.0)
    scales = np.sqrt(variances.clip(min=SMALLEST**2)) * wider[:, None]
    # layers that lie on each other let through the product of what each does: their optical depths add up
    depth = np.bincount(group, -np.log1p(-alphas) * areas, count) / (scales[:, 1] * scales[:, 2])
    values = dict(
        means=mean,
        quats=rotation_to_quat(axes),
        scales=scales,
        opacities=(-np.expm1(-depth)).clip(max=MOST_ALPHA),
        colors=_mean(gaussians.colors.numpy(), group, weights, count),
        codes=np.zeros((count, 0)),
    )
    tensors = {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}
    return Merged(Gaussians(**tensors, frame=gaussians.frame), group, weights)


def _mean(values: np.ndarray, group: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """(count, K) float64: the weighted mean of `values` (N, K) in each group; no group is empty."""
    total = np.bincount(group, weights, count)
    columns = [np.bincount(group, weights * column, count) / total for column in values.T]
    return np.stack(columns, 1) if columns else np.zeros((count, 0))


@njit(nogil=True, cache=True)
def _bisect(rows, order, group, most):
    """Number the groups of `rows` (N, 6 + 1) float64, features and weight, in `group` (N,); returns how many
    there are, at most `most`. `rows` and `order` (N,), the row that each was, are sorted by group."""
    count = min(len(rows), 1)
    starts, stops = np.zeros(most, np.int64), np.zeros(most, np.int64)
    axes, cuts = np.zeros(most, np.int64), np.zeros(most)
    stops[0] = len(rows)
    axes[0], cuts[0], spread = _widest(rows, 0, len(rows))
    widest = [(-spread, 0)]
    while count < most and len(widest) and widest[0][0] < 0:
        this = heapq.heappop(widest)[1]
        low, high = starts[this], stops[this]
        while low < high:
            if rows[low, axes[this]] <= cuts[this]:
                low += 1
            else:
                high -= 1
                for k in range(rows.shape[1]):
                    rows[low, k], rows[high, k] = rows[high, k], rows[low, k]
                order[low], order[high] = order[high], order[low]
        if low == starts[this] or low == stops[this]:  # equal but for rounding
            continue
        starts[count], stops[count], stops[this] = low, stops[this], low
        for part in (this, count):
            axes[part], cuts[part], spread = _widest(rows, starts[part], stops[part])
            heapq.heappush(widest, (-spread, part))
        count += 1
    for part in range(count):
        for row in range(starts[part], stops[part]):
            group[order[row]] = part
    return count


@njit(nogil=True, cache=True)
def _widest(rows, start, stop):
    """Of the rows `start` to `stop`: the feature with the largest weighted sum of squares about the mean,
    that mean and that sum."""
    last = rows.shape[1] - 1
    total, mean, square = 0.0, np.zeros(last), np.zeros(last)
    for row in range(start, stop):
        total += rows[row, last]
        for k in range(last):
            mean[k] += rows[row, last] * rows[row, k]
    mean /= max(total, 1e-300)
    for row in range(start, stop):
        for k in range(last):
            off = rows[row, k] - mean[k]
            square[k] += rows[row, last] * off * off
    axis = np.argmax(square)
    return axis, mean[axis], square[axis]
