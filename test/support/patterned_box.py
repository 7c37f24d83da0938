"""A box with patterned walls, rendered with depth from any pose."""

import cv2
import numpy as np

from gsemsplat_ros.images.camera import Camera

CAMERA = Camera(320, 240, 250.0, 250.0, 160.0, 118.0)


# axis of the normal, coordinate on it, axes along the wall
WALLS = ((2, 4.0, (0, 1)), (1, 1.0, (0, 2)), (1, -1.2, (0, 2)), (0, -1.5, (1, 2)), (0, 1.8, (1, 2)))


def room_view(first_from_camera, camera=CAMERA):
    """Image (H, W, 3) uint8 and depth (H, W) of the box, seen from `first_from_camera` (4, 4)."""
    v, u = np.mgrid[: camera.height, : camera.width].astype(float)
    rays = np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)), -1)
    turned, eye = rays @ first_from_camera[:3, :3].T, first_from_camera[:3, 3]
    depth, shade = np.full(u.shape, np.inf), np.zeros(u.shape, np.float32)
    for number, (axis, at, along) in enumerate(WALLS):
        with np.errstate(divide='ignore'):
            z = (at - eye[axis]) / turned[..., axis]
        hit = (z > 0) & (z < depth)
        points = eye + turned * np.where(hit, z, 1)[..., None]
        pattern = cv2.GaussianBlur(
            np.random.default_rng(number).uniform(0, 255, (512, 512)).astype(np.float32), (0, 0), 1.5
        )
        pattern = cv2.normalize(pattern, None, 0, 255, cv2.NORM_MINMAX)
        x, y = (((points[..., i] + 8) * 40) % 511 for i in along)
        shade = np.where(
            hit, cv2.remap(pattern, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR), shade
        )
        depth = np.where(hit, z, depth)
    return np.repeat(shade.round().astype(np.uint8)[..., None], 3, 2), depth


def moved(translation, turn_y=0.0):
    pose = np.eye(4)
    c, s = np.cos(turn_y), np.sin(turn_y)
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[:3, 3] = translation
    return pose


def at(depth, uv):
    u, v = np.rint(uv).astype(int).T
    return depth[v.clip(0, depth.shape[0] - 1), u.clip(0, depth.shape[1] - 1)]
