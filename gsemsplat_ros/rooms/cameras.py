"""Random camera poses in a room, alone and as pairs that see the same surfaces."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.rooms.layout import Room
from gsemsplat_ros.rooms.renderer import RenderedFrame, RoomRenderer

MIN_OVERLAP = 0.3  # share of the first view that the second sees
NEAREST = 0.25  # m: if more than 2 % of a view are nearer, the camera is inside an object
LARGEST = 0.6  # share of a view in a photographic room that one thing may fill
TRIES = 40  # camera poses tried for one pair before it is given up


def look(eye: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """world_from_camera (4, 4) of an OpenCV camera at `eye` (3,) looking at `target` (3,); world z is up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    pose = np.eye(4)
    pose[:3, :3] = np.stack((right, down, forward), 1)
    pose[:3, 3] = eye
    return pose


def overlap(first: np.ndarray, second: np.ndarray, camera: Camera, second_from_first: np.ndarray) -> float:
    """Share of the pixels of the first depth map whose surface the second sees (depth within 5 %)."""
    pixels = pixel_grid(camera.height, camera.width)[::4, ::4]
    points = camera.rays(pixels) * first[::4, ::4, None]
    local = points @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    uv, in_front = camera.project(local, near=0.05)
    at, inside = camera.index(uv)
    there = second[at]
    return float((in_front & inside & (np.abs(there - local[..., 2]) < 0.05 * there)).mean())


class Cameras:
    """Samples camera poses in one loaded room. In a photographic room they are as of a camera in a hand or on
    a robot: tilted, low, and close to things."""

    def __init__(self, renderer: RoomRenderer, room: Room, rng: np.random.Generator):
        self.renderer, self.room, self.rng = renderer, room, rng
        self.close = room.photographic is not None

    def depth(self, camera: Camera, pose: np.ndarray) -> np.ndarray | None:
        """The depth map [m]; None if the camera is inside an object, close to a wall or outside the room, and
        in a photographic room if it sees little but one thing."""
        if not (np.all(pose[:3, 3] > 0.15) and np.all(pose[:3, 3] < self.room.size - 0.15)):
            return None
        depth, instance = self.renderer.survey(camera, pose)
        nearest, middle, largest = (0.15, 0.4, LARGEST) if self.close else (NEAREST, 0.8, 1.0)
        good = np.quantile(depth, 0.02) > nearest and np.median(depth) > middle
        return depth if good and np.bincount(instance.ravel()).max() <= largest * instance.size else None

    def camera(self) -> Camera:
        """A random camera: 45 to 85 degrees wide, principal point near the centre (sigma 1 % of the side)."""
        rng, height, width = self.rng, self.renderer.height, self.renderer.width
        f = width / 2 / np.tan(np.radians(rng.uniform(45, 85)) / 2)
        cx = (width - 1) / 2 + rng.normal(0, 0.01) * width
        cy = (height - 1) / 2 + rng.normal(0, 0.01) * height
        return Camera(width, height, float(f), float(f), cx, cy)

    def first(self, camera: Camera) -> tuple[np.ndarray, np.ndarray] | None:
        """A random pose (4, 4) of the first view and its depth map; None if the pose is no good."""
        rng, size = self.rng, self.room.size
        low, tilt = (0.15, 6) if self.close else (0.25, 2)
        eye = np.array([*rng.uniform(0.25, size[:2] - 0.25), rng.uniform(low, 1.8)])
        middle = np.array([*rng.uniform(0.25, 0.75, 2) * size[:2], rng.uniform(0.2, 1.3)])
        least = 1.0
        if self.close and self.room.pieces and rng.random() < 0.5:
            eye, middle = self.close_up(middle)
            least = 0.3
        if np.linalg.norm(middle - eye) < least:
            return None
        pose = look(eye, middle, rng.normal(0, np.radians(tilt)))
        depth = self.depth(camera, pose)
        return None if depth is None else (pose, depth)

    def close_up(self, aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eye and sight 0.4 to 2.5 m from a random piece, from the side of the point `aside`; the sight need
        not meet its middle, so that the frame cuts it."""
        rng = self.rng
        piece = self.room.pieces[rng.integers(len(self.room.pieces))]
        size = np.array(self.renderer.furniture.models[piece.model].size)
        middle = np.add(piece.position, (0, 0, size[2] / 2))
        away = aside - middle + rng.normal(0, 0.5, 3) * (1, 1, 0)
        away[2] = rng.uniform(-0.2, 0.8) * np.linalg.norm(away[:2])
        distance = size.max() / 2 + np.exp(rng.uniform(np.log(0.4), np.log(2.0)))
        eye = middle + away / np.linalg.norm(away) * distance
        return eye, middle + rng.uniform(-0.5, 0.5, 3) * np.maximum(size, 0.3)

    def pair(self, stereo: bool) -> tuple[Camera, list[np.ndarray], list[RenderedFrame]] | None:
        """Camera, three poses and three frames (first, second, target); None if no poses fit."""
        rng = self.rng
        for _ in range(TRIES):
            camera = self.camera()
            seen = self.first(camera)
            if seen is None:
                continue
            first_pose, first = seen
            if stereo:
                second_pose = first_pose.copy()
                second_pose[:3, 3] += first_pose[:3, 0] * rng.uniform(0.05, 0.15)
            else:
                step = rng.normal(size=3) * (1, 1, 0.3)
                step *= rng.uniform(0.1, 1.5) / np.linalg.norm(step)
                sight = first_pose[:3, 3] + first_pose[:3, 2] * np.median(first) + rng.normal(0, 0.3, 3)
                second_pose = look(first_pose[:3, 3] + step, sight, rng.normal(0, np.radians(3)))
            second = self.depth(camera, second_pose)
            if (
                second is None
                or overlap(first, second, camera, np.linalg.inv(second_pose) @ first_pose) < MIN_OVERLAP
            ):
                continue
            between = rng.uniform(0, 1)
            target_eye = (
                (1 - between) * first_pose[:3, 3] + between * second_pose[:3, 3] + rng.normal(0, 0.05, 3)
            )
            ahead = [pose[:3, 3] + 2 * pose[:3, 2] for pose in (first_pose, second_pose)]
            target_pose = look(target_eye, (1 - between) * ahead[0] + between * ahead[1])
            poses = [first_pose, second_pose, target_pose]
            if self.depth(camera, target_pose) is not None:
                return camera, poses, [self.renderer.render(camera, pose) for pose in poses]
        return None
