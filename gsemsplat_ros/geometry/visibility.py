"""Which surfaces a view with known depth sees. OpenCV cameras, pixel centres at integers, metres."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.images.camera import Camera

TOLERANCE = 0.05  # m, and the same fraction of the depth: the same surface


def unproject(depth: np.ndarray, camera: Camera, first_from_camera: np.ndarray) -> np.ndarray:
    """Depth (h, w) [m] of `camera` to points (h, w, 3) in the first frame."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u, float)), -1)
    return (rays * depth[..., None]) @ first_from_camera[:3, :3].T + first_from_camera[:3, 3]


def seen_by(
    points: np.ndarray, depth: np.ndarray, camera: Camera, camera_from_first: np.ndarray
) -> np.ndarray:
    """Which points (H, W, 3) of the first frame a view with `depth` (h, w; 0: unknown) sees."""
    local = points @ camera_from_first[:3, :3].T + camera_from_first[:3, 3]
    z = local[..., 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        u = np.rint(camera.fx * local[..., 0] / z + camera.cx)
        v = np.rint(camera.fy * local[..., 1] / z + camera.cy)
    inside = (z > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    found = depth[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)]
    return inside & (found > 0) & (np.abs(found - z) < TOLERANCE * (1 + z))
