"""Samples of synthetic rooms, as a stream or packed into files (datasets/packed_rooms.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gsemsplat_ros.datasets.packed_rooms import VOCABULARY, encode
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.files import write_whole
from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.rooms.furnish import Room, sample_room
from gsemsplat_ros.rooms.furniture import base_noun, load_furniture
from gsemsplat_ros.rooms.renderer import RenderedFrame, RoomRenderer

PAIRS = 8  # per room
HELDOUT_SEED = 1_000_000  # offset: rooms of held-out furniture have seeds of their own
GRAY_SHARE = 0.35  # share of the rooms seen by a gray camera
MIN_OVERLAP = 0.3  # share of the first view that the second sees
NEAREST = 0.25  # m: if more than 2 % of a view are nearer, the camera is inside an object
SHELL = ('floor', 'wall', 'ceiling', 'rug', 'picture', 'door', 'window')  # names that are not furniture
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


def overlap(
    first: RenderedFrame, second: RenderedFrame, camera: Camera, second_from_first: np.ndarray
) -> float:
    """Share of the first view's pixels whose surface point is visible in the second (depth within 5 %)."""
    pixels = pixel_grid(camera.height, camera.width)[::4, ::4]
    points = camera.rays(pixels) * first.depth[::4, ::4, None]
    local = points @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    uv, in_front = camera.project(local, near=0.05)
    at, inside = camera.index(uv)
    there = second.depth[at]
    return float((in_front & inside & (np.abs(there - local[..., 2]) < 0.05 * there)).mean())


class Cameras:
    """Samples camera poses in one loaded room."""

    def __init__(self, renderer: RoomRenderer, room: Room, rng: np.random.Generator):
        self.renderer, self.room, self.rng = renderer, room, rng

    def frame(self, camera: Camera, pose: np.ndarray) -> RenderedFrame | None:
        """The image; None if the camera is inside an object, close to a wall or outside the room."""
        if not (np.all(pose[:3, 3] > 0.15) and np.all(pose[:3, 3] < self.room.size - 0.15)):
            return None
        frame = self.renderer.render(camera, pose)
        return frame if (np.quantile(frame.depth, 0.02) > NEAREST and np.median(frame.depth) > 0.8) else None

    def camera(self) -> Camera:
        """A random camera: 45 to 85 degrees wide, principal point near the centre (sigma 1 % of the side)."""
        rng, height, width = self.rng, self.renderer.height, self.renderer.width
        f = width / 2 / np.tan(np.radians(rng.uniform(45, 85)) / 2)
        cx = (width - 1) / 2 + rng.normal(0, 0.01) * width
        cy = (height - 1) / 2 + rng.normal(0, 0.01) * height
        return Camera(width, height, float(f), float(f), cx, cy)

    def pair(self, stereo: bool) -> tuple[Camera, list[np.ndarray], list[RenderedFrame]] | None:
        """Camera, three poses and three frames (first, second, target); None if no poses fit."""
        rng, size = self.rng, self.room.size
        for _ in range(TRIES):
            camera = self.camera()
            eye = np.array([*rng.uniform(0.25, size[:2] - 0.25), rng.uniform(0.25, 1.8)])
            middle = np.array([*rng.uniform(0.25, 0.75, 2) * size[:2], rng.uniform(0.2, 1.3)])
            if np.linalg.norm(middle - eye) < 1.0:
                continue
            first_pose = look(eye, middle, rng.normal(0, np.radians(2)))
            first = self.frame(camera, first_pose)
            if first is None:
                continue
            if stereo:
                second_pose = first_pose.copy()
                second_pose[:3, 3] += first_pose[:3, 0] * rng.uniform(0.05, 0.15)
            else:
                step = rng.normal(size=3) * (1, 1, 0.3)
                step *= rng.uniform(0.1, 1.5) / np.linalg.norm(step)
                sight = eye + first_pose[:3, 2] * np.median(first.depth) + rng.normal(0, 0.3, 3)
                second_pose = look(eye + step, sight, rng.normal(0, np.radians(3)))
            second = self.frame(camera, second_pose)
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
            target = self.frame(camera, target_pose)
            if target is not None:
                return camera, [first_pose, second_pose, target_pose], [first, second, target]
        return None


class Sensor:
    """The effects of a random camera: residual lens distortion after calibration, vignetting, exposure, tone
    curve, blur, noise, and sometimes gray images."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.gain, self.gamma = rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.25)
        self.balance = rng.normal(1, 0.05, 3)
        self.blur, self.noise = max(0.0, rng.normal(0.2, 0.4)), rng.uniform(0, 0.025)
        self.gray = rng.random() < GRAY_SHARE
        # share of the radius at the corners: about a pixel
        self.residual = np.clip(rng.normal(0, 0.003), -0.006, 0.006)
        self.falloff = rng.uniform(0, 0.35)  # share of the light lost at the corners

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Apply the effects to an image (H, W, 3) uint8 RGB; the result has the same shape and type."""
        height, width = rgb.shape[:2]
        v, u = (
            np.mgrid[:height, :width].astype(np.float32)
            - np.array([height - 1, width - 1])[:, None, None] / 2
        )
        r2 = (u**2 + v**2) / ((height**2 + width**2) / 4)
        stretch = 1 + self.residual * r2
        x = cv2.remap(
            rgb,
            (u * stretch + (width - 1) / 2).astype(np.float32),
            (v * stretch + (height - 1) / 2).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        gain = self.gain * (1 - self.falloff * r2**2)[..., None]
        x = np.clip(x / 255 * gain * self.balance, 0, 1) ** self.gamma
        if self.blur > 0.2:
            x = cv2.GaussianBlur(x, (0, 0), self.blur)
        if self.gray:
            x = np.repeat((x @ (0.299, 0.587, 0.114))[..., None], 3, 2)
            x += self.rng.normal(0, self.noise, x.shape[:2])[..., None]
        else:
            x += self.rng.normal(0, self.noise, x.shape)
        return np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)


class RoomStream:
    """Rooms as lists of samples, each determined by split and number; iterates over all rooms' samples.

    Raises ValueError for a split other than 'train' and 'heldout', and without furniture or EGL.
    """

    def __init__(self, height: int, width: int, split: str = 'train', rooms: range = range(10**9)):
        if split not in ('train', 'heldout'):
            raise ValueError(f"split {split!r}: wanted 'train' or 'heldout'")
        self.split, self.rooms = split, rooms
        self.furniture = load_furniture()
        self.renderer = RoomRenderer(self.furniture, height, width)

    def vocabulary(self) -> dict[str, str]:
        """All names in the rooms of this split, each with its base noun ('office chair': 'chair')."""
        names = {m.name for m in self.furniture.models if m.heldout == (self.split == 'heldout')}
        return {name: base_noun(name) for name in sorted(names | set(SHELL))}

    def room(self, number: int) -> list[Sample]:
        """The samples of one room; fewer than PAIRS if no camera poses fit."""
        rng = np.random.default_rng(number + (HELDOUT_SEED if self.split == 'heldout' else 0))
        room = sample_room(self.furniture, rng, heldout=self.split == 'heldout')
        self.renderer.load(room)
        cameras, sensor, samples = Cameras(self.renderer, room, rng), Sensor(rng), []
        for i in range(PAIRS):
            stereo = i % 2 == 0
            drawn = cameras.pair(stereo)
            if drawn is None:
                continue
            camera, poses, frames = drawn
            samples.append(
                Sample(
                    images=np.stack([sensor(frame.rgb) for frame in frames]),
                    depth=np.stack([frame.depth for frame in frames]),
                    instance=np.stack([frame.instance for frame in frames]),
                    first_from_camera=np.linalg.inv(poses[0]) @ np.stack(poses),
                    camera=camera,
                    names=room.names,
                    stereo=stereo,
                )
            )
        return samples

    def __iter__(self) -> Iterator[Sample]:
        for number in self.rooms:
            yield from self.room(number)


def pack(folder: Path, height: int, width: int, numbers: range, split: str = 'train') -> None:
    """Render the rooms with these `numbers` into `folder`, one file each; existing files are kept."""
    paths = {number: folder / f'{split}_{number:06d}.npz' for number in numbers}
    missing = {number: path for number, path in paths.items() if not path.exists()}
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stream = RoomStream(height, width, split)
    with write_whole(folder / VOCABULARY) as part:
        part.write_text(json.dumps(stream.vocabulary(), indent=0))
    for number, path in tqdm(missing.items(), unit='room', disable=None):
        samples = stream.room(number)
        if samples:
            with write_whole(path) as part, part.open('wb') as file:
                np.savez(file, **encode(samples))  # type: ignore[arg-type]  # the stub's other keyword is a bool
