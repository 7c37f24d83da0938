"""A short camera path around a scene, drawn."""

from __future__ import annotations

import math

import numpy as np

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.viewer.result import NewView
from gsemsplat_ros.views.view import Camera

ANGLES = (-12, -6, 0, 6, 12)     # degrees around what the first camera looks at
LONG_SIDE = 400                  # pixels: as large as a filmstrip shows them
BACKGROUND = (0.125, 0.133, 0.149)     # the page's frames


def camera_path(distance: float, angles=ANGLES) -> list[np.ndarray]:
    """`camera_from_world` (4, 4) of cameras on an arc through the first one (at the origin, looking along +z).

    All look at the point at `distance` [m] before the first; a positive angle [deg] stands to its right.
    """
    pivot = np.array([0.0, 0.0, distance])
    poses = []
    for angle in np.radians(angles):
        c, s = math.cos(angle), math.sin(angle)
        world_from_camera = np.eye(4)
        world_from_camera[:3, :3] = [[c, 0, -s], [0, 1, 0], [s, 0, c]]      # about the vertical, +z turns to -x
        world_from_camera[:3, 3] = pivot - world_from_camera[:3, :3] @ pivot
        poses.append(np.linalg.inv(world_from_camera))
    return poses


def draw(gaussians: Gaussians, camera: Camera) -> tuple[np.ndarray, tuple[NewView, ...]]:
    """Depth (h, w) [m] (NaN: unknown) seen from the first `camera`, and pictures from the path.

    The Gaussians lie in the frame of that camera; pictures have LONG_SIDE pixels on the long side.
    """
    factor = LONG_SIDE / max(camera.width, camera.height)
    small = camera.resized(round(camera.width * factor), round(camera.height * factor))
    depth = render(gaussians, small, np.eye(4)).depth.cpu().numpy()
    seen = depth[np.isfinite(depth)]
    distance = float(np.median(seen)) if len(seen) else 1.0
    views = []
    for angle, camera_from_world in zip(ANGLES, camera_path(distance)):
        rgb = render(gaussians, small, camera_from_world, BACKGROUND).rgb.cpu().numpy()
        title = f'{abs(angle)}° to the {"right" if angle > 0 else "left"}' if angle else 'from the first camera'
        views.append(NewView(title, np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)))
    return depth, tuple(views)
