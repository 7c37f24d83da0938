"""Gaussians in 28 bytes each, as gsemsplat_msgs/PackedSplats carries them (docs/splats.md)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.rows import columns_of

# root: of the covariance, l00 l10 l11 l20 l21 l22 [m]
SPLAT = np.dtype([('position', '<f4', 3), ('root', '<f2', 6), ('rgba', np.uint8, 4)])
LARGEST_HALF = np.float32(65504.0)


def pack(gaussians: Gaussians, index: np.ndarray) -> np.ndarray:
    """(at most N,) SPLAT of the Gaussians `index` (N,), without those of which a number is not finite."""
    means, colors, opacities, scales, quats, _ = columns_of(gaussians, index, codes=False)
    splats, roots = np.empty(len(index), SPLAT), np.empty((len(index), 6), np.float32)
    count = fill_splats(
        splats['position'], roots, splats['rgba'], means, colors, opacities, scales, quats, LARGEST_HALF
    )
    splats['root'][:count] = roots[:count]
    return splats[:count]


def covariances_of(splats: np.ndarray) -> np.ndarray:
    """(N, 3, 3) float32 [m^2] of (N,) SPLAT."""
    rows, columns = np.tril_indices(3)
    lower = np.zeros((len(splats), 3, 3), np.float32)
    lower[:, rows, columns] = splats['root']
    return lower @ lower.transpose(0, 2, 1)


@njit(nogil=True, cache=True)
def fill_splats(positions, roots, rgba, means, colors, opacities, scales, quats, largest):
    """Write the N Gaussians to the first rows of `positions` (N, 3), `roots` (N, 6), at most `largest`, and
    `rgba` (N, 4) uint8; those that are not finite are skipped. Returns how many were written.

    The axes of a Gaussian, times its scales, are the columns of A; the covariance is A A'. The root comes of
    Gram-Schmidt on the rows of A, without squaring: a flat Gaussian stays flat.
    """
    count, axes, row = 0, np.empty((3, 3)), np.empty(3)
    for n in range(len(means)):
        odd = 0.0 * opacities[n]  # NaN as soon as one of the numbers is not finite
        for i in range(3):
            odd += 0.0 * means[n, i] + 0.0 * scales[n, i] + 0.0 * colors[n, i]
        w, x, y, z = float(quats[n, 0]), float(quats[n, 1]), float(quats[n, 2]), float(quats[n, 3])
        length = w * w + x * x + y * y + z * z
        if odd != 0 or not 0 < length < np.inf:
            continue
        twice = 2 / length
        axes[0, 0], axes[0, 1], axes[0, 2] = (
            1 - twice * (y * y + z * z),
            twice * (x * y - w * z),
            twice * (x * z + w * y),
        )
        axes[1, 0], axes[1, 1], axes[1, 2] = (
            twice * (x * y + w * z),
            1 - twice * (x * x + z * z),
            twice * (y * z - w * x),
        )
        axes[2, 0], axes[2, 1], axes[2, 2] = (
            twice * (x * z - w * y),
            twice * (y * z + w * x),
            1 - twice * (x * x + y * y),
        )
        for i in range(3):
            for k in range(3):
                axes[i, k] *= scales[n, k]
        place = 0
        for i in range(3):  # row i in terms of the directions of those before, which `axes` holds by then
            row[:] = axes[i]
            for j in range(i):
                along = row[0] * axes[j, 0] + row[1] * axes[j, 1] + row[2] * axes[j, 2]
                roots[count, place] = max(min(along, largest), -largest)
                place += 1
                for k in range(3):
                    row[k] -= along * axes[j, k]
            rest = math.sqrt(row[0] * row[0] + row[1] * row[1] + row[2] * row[2])
            roots[count, place] = min(rest, largest)
            place += 1
            for k in range(3):
                axes[i, k] = row[k] / rest if rest > 0 else 0.0
        for i in range(3):
            positions[count, i] = means[n, i]
            rgba[count, i] = np.uint8(np.rint(min(max(colors[n, i], 0.0), 1.0) * 255))
        rgba[count, 3] = np.uint8(np.rint(min(max(opacities[n], 0.0), 1.0) * 255))
        count += 1
    return count
