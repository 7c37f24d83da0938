"""Gaussians as rows of float32, one after the other, as clouds hold them."""

from __future__ import annotations

import numpy as np
from numba import njit

from gsemsplat_ros.gaussians.gaussians import Gaussians

# One row: x y z [m]; colour packed as 0x00RRGGBB (as RViz and PCL read it); opacity (0, 1); scales =
# standard deviations along the Gaussian's own axes [m]; rot_0..3 = quaternion w, x, y, z (the order of splat
# PLY files; ROS quaternions are x, y, z, w). Unlike in PLY, scales and opacities are linear.
FIELDS = ('x', 'y', 'z', 'rgb', 'opacity', *(f'scale_{i}' for i in range(3)), *(f'rot_{i}' for i in range(4)))


def thinned(count: int, most: int) -> np.ndarray:
    """(at most `most`,) int64: which of `count` are kept, evenly spread."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)


def columns_of(gaussians: Gaussians, index: np.ndarray, codes: bool) -> list[np.ndarray]:
    """What `fill_rows` takes of the Gaussians `index` (N,), float32 on the host; without `codes`, (N, 0)."""

    def values(name: str) -> np.ndarray:
        array = getattr(gaussians, name).detach().cpu().numpy()
        return np.ascontiguousarray(array if len(index) == len(array) else array[index], np.float32)

    columns = [values(name) for name in ('means', 'colors', 'opacities', 'scales', 'quats')]
    return [*columns, values('codes') if codes else np.zeros((len(index), 0), np.float32)]


@njit(nogil=True, cache=True)
def fill_rows(points, bits, means, colors, opacities, scales, quats, codes):
    """Write the N Gaussians to the first rows of `points` (N, 12 + D) float32, of which `bits` is a uint32
    view; those that are not finite are skipped. Returns how many were written."""
    count, nothing, one = 0, np.float32(0), np.float32(1)
    for n in range(len(means)):
        row, odd = points[count], nothing  # odd: NaN as soon as one of the numbers is not finite
        for i in range(3):
            row[i] = means[n, i]
            row[5 + i] = scales[n, i]
            odd += nothing * means[n, i] + nothing * scales[n, i] + nothing * colors[n, i]
        for i in range(4):
            row[8 + i] = quats[n, i]
            odd += nothing * quats[n, i]
        for i in range(codes.shape[1]):
            row[12 + i] = codes[n, i]
            odd += nothing * codes[n, i]
        row[4] = opacities[n]
        odd += nothing * opacities[n]
        if odd == 0:
            rgb = np.uint32(0)
            for i in range(3):
                value = np.rint(min(max(colors[n, i], nothing), one) * np.float32(255))
                rgb = (rgb << np.uint32(8)) | np.uint32(value)
            bits[count, 3] = rgb
            count += 1
    return count
