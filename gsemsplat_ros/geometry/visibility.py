"""The surfaces visible in a view with known depth. OpenCV cameras, pixel centres at integers, metres."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.images.camera import Camera

TOLERANCE = 0.05  # m, plus this fraction of the depth: within it, the same surface


def surface_points(depth: np.ndarray, camera: Camera, first_from_camera: np.ndarray) -> np.ndarray:
    """Depth (h, w) [m] of `camera` to points (h, w, 3) in the first frame."""
    return camera.unproject(depth) @ first_from_camera[:3, :3].T + first_from_camera[:3, 3]


def seen_by(
    points: np.ndarray, depth: np.ndarray, camera: Camera, camera_from_first: np.ndarray
) -> np.ndarray:
    """Which points (H, W, 3) of the first frame are visible in a view with `depth` (h, w; 0: unknown)."""
    local = points @ camera_from_first[:3, :3].T + camera_from_first[:3, 3]
    uv, in_front = camera.project(local)
    pixels, inside = camera.index(uv)
    found, z = depth[pixels], local[..., 2]
    return in_front & inside & (found > 0) & (np.abs(found - z) < TOLERANCE * (1 + z))
