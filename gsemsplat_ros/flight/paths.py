"""Camera paths for pictures and videos of a scene.

A path is a list of poses in the frame of the camera that it starts from: the keyframe's camera for a scene,
the browser's for a page. That camera looks along +z, x to the right and y down, at a pivot `distance` in
front; for a path elsewhere multiply: `world_from_camera = world_from_start @ path.start_from_camera`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gsemsplat_ros.images.camera import Camera

FPS = 16.0  # of the published demo, and of all paths here
FRAMES = 48  # of our own paths: three seconds
SWING = 12.0  # degrees to either side: further away the scene of two views has holes
TILT = 6.0  # of the orbit, degrees around the line of sight
APPROACH = 0.3  # of the dolly, share of the way to the pivot
# the published demo (docs/published.md 25): pure yaw in steps of two degrees about the first camera, of
# 512 x 512 px; its principal point (256, 256) counts from the corner of the first pixel, ours from its centre
PUBLISHED_YAW = np.arange(-16.0, 19.0, 2.0)
PUBLISHED_RADIUS = 1e-4
PUBLISHED_CAMERA = Camera(512, 512, 582.69, 582.69, 255.5, 255.5)


@dataclass(frozen=True)
class CameraPath:
    """start_from_camera (N, 4, 4) float64, rigid, translation in the unit of the distance; fps: poses a
    second; camera: the path's own, None: that of the caller. All but the published path lead from the last
    pose on to the first.
    """

    name: str
    start_from_camera: np.ndarray
    fps: float = FPS
    camera: Camera | None = None

    def __len__(self) -> int:
        return len(self.start_from_camera)

    @property
    def seconds(self) -> float:
        """How long a video of the path plays [s]."""
        return len(self) / self.fps


def looking(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pose (4, 4) of an upright camera at `position` (3,) towards `target` (3,), not vertical."""
    z = np.asarray(target, np.float64) - position
    z /= np.linalg.norm(z)
    x = np.cross((0.0, 1.0, 0.0), z)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = position
    return pose


def around(distance: float, degrees: ArrayLike) -> np.ndarray:
    """Poses (N, 4, 4) on the horizontal circle around the pivot; positive angles lie right of the start."""
    pivot, angles = np.array([0.0, 0.0, distance]), np.radians(degrees)
    positions = distance * np.stack([np.sin(angles), np.zeros_like(angles), 1 - np.cos(angles)], axis=1)
    return np.array([looking(position, pivot) for position in positions])


def arc(distance: float) -> CameraPath:
    """From the start to the right, to the left and back, on a circle about the pivot."""
    swing = SWING * np.sin(2 * np.pi * _turn())
    return CameraPath('arc', around(distance, swing))


def orbit(distance: float) -> CameraPath:
    """Round the start on a circle that faces the pivot, as far from it as the start."""
    angle, tilt, pivot = 2 * np.pi * _turn(), np.radians(TILT), np.array([0.0, 0.0, distance])
    back = np.stack(
        [np.sin(tilt) * np.cos(angle), np.sin(tilt) * np.sin(angle), np.full_like(angle, -np.cos(tilt))], 1
    )
    return CameraPath('orbit', np.array([looking(pivot + distance * b, pivot) for b in back]))


def dolly(distance: float) -> CameraPath:
    """Straight towards the pivot and back."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 2, 3] = APPROACH * distance * (1 - np.cos(2 * np.pi * _turn())) / 2
    return CameraPath('dolly', poses)


def published(distance: float) -> CameraPath:
    """The path of the published demo with its camera: from 16 degrees to the left to 18 to the right, turning
    on the spot; independent of the distance.
    """
    yaw = np.radians(PUBLISHED_YAW)
    ahead = np.stack([np.sin(yaw), np.zeros_like(yaw), np.cos(yaw)], axis=1)
    poses = np.array([looking(PUBLISHED_RADIUS * z, (1 + PUBLISHED_RADIUS) * z) for z in ahead])
    return CameraPath('published', poses, camera=PUBLISHED_CAMERA)


PRESETS = {'arc': arc, 'orbit': orbit, 'dolly': dolly, 'published': published}


def camera_path(preset: str, distance: float) -> CameraPath:
    """The path called `preset`, around a pivot `distance` [m or units of the scene] in front of the start.

    Raises ValueError for another name and for a distance that is not above zero.
    """
    if preset not in PRESETS:
        raise ValueError(f"no camera path '{preset}': wanted one of {', '.join(PRESETS)}")
    if not 0 < distance < np.inf:
        raise ValueError(f'a camera path about something {distance:g} away: wanted a distance above zero')
    return PRESETS[preset](distance)


def _turn() -> np.ndarray:
    """Times in [0, 1), so that the first pose follows the last one."""
    return np.arange(FRAMES) / FRAMES
