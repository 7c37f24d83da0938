"""Points in front of a camera, with known depth and pose."""

import numpy as np

from gsemsplat_ros.images.camera import Camera, pixel_grid

CAMERA = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)


def rays(camera):
    grid = pixel_grid(camera.height, camera.width)
    return np.concatenate(
        ((grid - (camera.cx, camera.cy)) / (camera.fx, camera.fy), np.ones((*grid.shape[:2], 1))), -1
    )


def wavy_depth(camera):
    grid = pixel_grid(camera.height, camera.width)
    return 3 + 0.5 * np.sin(grid[..., 0] / 17) + 0.4 * np.cos(grid[..., 1] / 11)


def turned(angle, axis, translation):
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    pose = np.eye(4)
    pose[:3, :3] = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    pose[:3, 3] = translation
    return pose
