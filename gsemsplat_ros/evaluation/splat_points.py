"""Points drawn as opaque squares of their size on the surface: the simplest way to lift pixels by depth."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.images.camera import Camera

LARGEST = 3  # px: half side of the largest square, so that very near points do not cover the image
SLACK = 0.05  # px: avoids wider squares for a surface seen from where it was measured
NEAR = 0.01  # m


def spacing(points: np.ndarray) -> np.ndarray:
    """Distance (V, h, w) [m] of each point of the maps (V, h, w, 3) [m] to its nearest neighbour there."""
    across = np.linalg.norm(np.diff(points, axis=2), axis=-1)
    down = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    nearest = np.full(points.shape[:3], np.inf)
    for here, steps in (
        (np.s_[:, :, 1:], across),
        (np.s_[:, :, :-1], across),
        (np.s_[:, 1:], down),
        (np.s_[:, :-1], down),
    ):
        nearest[here] = np.minimum(nearest[here], steps)
    return nearest


def nearest_points(
    points: np.ndarray, size: np.ndarray, camera: Camera, camera_from_points: np.ndarray
) -> np.ndarray:
    """Row (H, W) int of the point visible at each pixel, -1 for none.

    points (N, 3) [m]; size (N,) [m]: side of the surface that each point represents. A point covers enough
    pixels to close a surface that faces the camera: at least its own, at most 7 x 7. The nearest point wins.
    """
    local = points @ camera_from_points[:3, :3].T + camera_from_points[:3, 3]
    rows = np.flatnonzero(np.isfinite(local).all(1))
    uv, in_front = camera.project(local[rows], NEAR)
    near = in_front & (np.abs(uv) < 4 * np.array([camera.width, camera.height])).all(1)
    rows, z = rows[near], local[rows[near], 2]
    u, v = np.rint(uv[near]).astype(int).T
    wide = camera.pixels(size[rows], z)
    half = np.clip(np.ceil((wide - 1) / 2 - SLACK), 0, LARGEST).astype(int)
    pixels, depths, owners = [], [], []
    for dv in range(-LARGEST, LARGEST + 1):
        for du in range(-LARGEST, LARGEST + 1):
            inside = (
                (half >= max(abs(du), abs(dv)))
                & (u + du >= 0)
                & (u + du < camera.width)
                & (v + dv >= 0)
                & (v + dv < camera.height)
            )
            pixels.append((v[inside] + dv) * camera.width + u[inside] + du)
            depths.append(z[inside])
            owners.append(rows[inside])
    pixels, depths, owners = (np.concatenate(parts) for parts in (pixels, depths, owners))
    seen = np.full(camera.height * camera.width, -1)
    farthest_first = np.argsort(-depths, kind='stable')
    seen[pixels[farthest_first]] = owners[farthest_first]  # the last value for a pixel stays
    return seen.reshape(camera.height, camera.width)
