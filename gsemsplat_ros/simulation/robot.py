"""The robot of the house: its measures, its frames (REP 105) and its stereo camera."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.evaluation.map_walk import BASELINE, FIELD_OF_VIEW
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.mapping.fusion import START
from gsemsplat_ros.rooms.house import CAMERA_HEIGHT

RADIUS = 0.18  # m, seen from above
MAP, ODOM, BASE = 'map', 'odom', 'base_link'
LEFT, RIGHT = 'left_optical', 'right_optical'


def stereo_camera(width: int, height: int) -> Camera:
    """Either camera of the rectified pair."""
    return Camera.centred(width, height, width / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2)))


def base_from(side: str) -> np.ndarray:
    """base_from_camera (4, 4) m of the LEFT or RIGHT optical frame: on a mast, half the baseline to its side,
    looking ahead."""
    pose = START.copy()
    pose[:3, 3] = 0.0, BASELINE / 2 * (1 if side == LEFT else -1), CAMERA_HEIGHT
    return pose


def parent_from_base(pose: np.ndarray) -> np.ndarray:
    """map_from_base or odom_from_base (4, 4) m of a pose (x, y, yaw)."""
    x, y, yaw = pose
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1]])
