"""Predicted depths corrected to the measured ones, by a smooth factor in each view.

The network predicts shapes well, sizes and distances less; triangulation measures those, but only at some
pixels. The factor between the two is spread over each surface and stops at its edges, by the fast global
smoother of Min et al. (2014): along rows and columns in turn, one tridiagonal system each.
"""

from __future__ import annotations

import numba
import numpy as np

SMOOTHNESS = 100.0  # how far, squared [px], a measurement reaches over a smooth surface
ROUNDS = 3  # of rows and columns
DEPTH_EDGE = 0.05  # step of ln depth from pixel to pixel that stops the spreading,
IMAGE_EDGE = 0.02  # and step of the image's brightness (0..1) that does
PRIOR = 0.001  # weight of the median factor beside one measurement a pixel
MAX_LOG = 1.0  # measurements farther from the median [ln of the factor] are mistakes,
MAX_STRAY = 0.2  # and so are those farther from the others of the same surface
MIN_DEPTH = 1e-3  # in network units: points in or behind the camera count as just before it
MIN_AGREEING = 0.5  # share of the measurements within MAX_LOG: below it, the two show different scenes


@numba.njit(cache=True, nogil=True)  # nogil: two views in parallel
def _smooth_rows(x: np.ndarray, link: np.ndarray, strength: float) -> None:
    """In place: each row of x (C, H, W) solves (1 + strength L) y = x, L the Laplacian with weights link (H,
    W) between a pixel and the next (Thomas's algorithm).
    """
    channels, height, width = x.shape
    c = np.empty(width)
    for i in range(height):
        before = 0.0
        for j in range(width):
            after = strength * link[i, j] if j < width - 1 else 0.0
            pivot = 1.0 + before + after + (before * c[j - 1] if j else 0.0)
            c[j] = -after / pivot
            for k in range(channels):
                x[k, i, j] = (x[k, i, j] + (before * x[k, i, j - 1] if j else 0.0)) / pivot
            before = after
        for j in range(width - 2, -1, -1):
            for k in range(channels):
                x[k, i, j] -= c[j] * x[k, i, j + 1]


def spread(values: np.ndarray, weights: np.ndarray, depth: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """(H, W) weighted mean of `values` around each pixel, over its surface; 0 without values in reach.

    values, weights (H, W); depth (H, W) > 0 and brightness (H, W) in [0, 1]: their steps stop the spreading.
    """
    logs = np.log(depth)

    def links(axis: int) -> np.ndarray:
        end = np.s_[:, -1:] if axis else np.s_[-1:]
        steps = [np.abs(np.diff(x, axis=axis, append=x[end])) for x in (logs, brightness)]
        return np.exp(-steps[0] / DEPTH_EDGE - steps[1] / IMAGE_EDGE)

    across, along = links(1), np.ascontiguousarray(links(0).T)
    x = np.stack((values * weights, weights)).astype(np.float64)
    for t in range(ROUNDS):  # weaker each time, so that the last direction leaves no stripes
        strength = 1.5 * SMOOTHNESS * 4.0 ** (ROUNDS - 1 - t) / (4.0**ROUNDS - 1)
        _smooth_rows(x, across, strength)
        x = np.ascontiguousarray(x.transpose(0, 2, 1))
        _smooth_rows(x, along, strength)
        x = np.ascontiguousarray(x.transpose(0, 2, 1))
    return x[0] / (x[1] + PRIOR)


def log_ratios(depth: np.ndarray, uv: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln of measured over predicted depth (H, W), and the number (H, W) of measurements on each pixel.

    depth (H, W); uv (N, 2) pixels of it; z (N,) measured depths, in any unit.
    """
    height, width = depth.shape
    u, v = np.rint(uv).astype(int).T
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > 0)
    u, v, z = u[inside], v[inside], z[inside]
    known = depth[v, u] > MIN_DEPTH
    u, v, z = u[known], v[known], z[known]
    flat = v * width + u
    count = np.bincount(flat, minlength=height * width).reshape(height, width)
    total = np.bincount(flat, np.log(z / depth[v, u]), minlength=height * width).reshape(height, width)
    return total / np.maximum(count, 1), count


def bend(depth: np.ndarray, image: np.ndarray, uv: np.ndarray, z: np.ndarray) -> np.ndarray | None:
    """(H, W) factor that corrects `depth` to the measurements.

    depth (H, W) of the network; image (H, W, 3) uint8 of the same pixels; uv (N, 2), z (N,) as in log_ratios,
    z in the unit of `depth` up to a common factor of about 1. None: measurements and network disagree.
    """
    logs, count = log_ratios(depth, uv, z)
    measured = count > 0
    if not measured.any():
        return None
    middle = np.median(logs[measured])
    near = measured & (np.abs(logs - middle) < MAX_LOG)
    if near.sum() < MIN_AGREEING * measured.sum():
        return None
    brightness = image.mean(-1) / 255
    depth = np.maximum(depth, MIN_DEPTH)
    field = spread(np.where(near, logs - middle, 0.0), near.astype(np.float64), depth, brightness)
    near &= np.abs(logs - middle - field) < MAX_STRAY
    field = spread(np.where(near, logs - middle, 0.0), near.astype(np.float64), depth, brightness)
    return np.exp(middle + field)
