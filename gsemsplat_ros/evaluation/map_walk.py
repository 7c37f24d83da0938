"""A robot's walk through a house, with its truth: two rounds of a ring; between them things go or move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.rooms.house import House
from gsemsplat_ros.rooms.renderer import RoomRenderer
from gsemsplat_ros.rooms.sensor import Sensor

BASELINE = 0.12  # m, of the stereo camera
FIELD_OF_VIEW = 80.0  # degrees across
STEP_NS = 500_000_000  # between two keyframes
ASIDE, TURN = 0.1, 0.1  # m and rad, by which the second round differs from the first
PROBE_ASIDE, PROBE_TURN = 0.2, 0.3  # largest m and rad, by which a probe differs from the route
SIGMA_M, SIGMA_DEG = 0.01, 0.3  # of given poses, along and about each axis
MEMORY = 20.0  # keyframes, after which the error of a given pose has changed (to 1/e)
EVERY = 8  # pixels along either side: surfaces are sampled so


@dataclass(frozen=True)
class Keyframe:
    """One place of the walk. number: from 0 over both rounds; round: 1 or 2; world_from_camera (4, 4) m: of
    the left camera; left, right (H, W, 3) uint8; depth (H, W) m and instance (H, W) of the left."""

    number: int
    round: int
    world_from_camera: np.ndarray
    left: np.ndarray
    right: np.ndarray
    depth: np.ndarray
    instance: np.ndarray


class Walker:
    """The robot in one house: one camera with its lens and noise, as of a held-out room."""

    def __init__(self, house: House, renderer: RoomRenderer, seed: int):
        self.house, self.renderer = house, renderer
        self.rng = np.random.default_rng((seed, 1))
        self.sensor = Sensor(self.rng, photographic=False)
        width, height = renderer.width, renderer.height
        self.camera = Camera.centred(width, height, width / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2)))

    def way(self, keyframes: int) -> list[tuple[int, np.ndarray]]:
        """Round (1 or 2) and pose (4, 4) of `keyframes`; each round goes from the middle of the first room
        all around and back to it."""
        half = keyframes // 2
        return [
            (i, self.house.pose(phase, (i - 1) * ASIDE, (i - 1) * TURN))
            for i, count in ((1, half), (2, keyframes - half))
            for phase in np.linspace(0, 1, count)
        ]

    def rounds(self, keyframes: int) -> Iterator[Keyframe]:
        """The keyframes of `way`, drawn."""
        loaded = 0
        for number, (i, pose) in enumerate(self.way(keyframes)):
            if i != loaded:
                self.renderer.load(self.house.rounds[i - 1])
                loaded = i
            yield self._keyframe(number, i, pose)

    def probes(self, count: int) -> Iterator[tuple[Keyframe, ...]]:
        """Three keyframes each, a step apart, as the house is in the second round, beside the route."""
        self.renderer.load(self.house.rounds[1])
        for number in range(count):
            phase = (number + self.rng.uniform()) / count
            aside, turn = (
                self.rng.uniform(-PROBE_ASIDE, PROBE_ASIDE),
                self.rng.uniform(-PROBE_TURN, PROBE_TURN),
            )
            poses = [self.house.pose(phase + step, aside, turn) for step in (0.0, 0.015, 0.03)]
            yield tuple(self._keyframe(10**6 + 3 * number + k, 2, pose) for k, pose in enumerate(poses))

    def _keyframe(self, number: int, round_: int, pose: np.ndarray) -> Keyframe:
        right = pose.copy()
        right[:3, 3] += BASELINE * pose[:3, 0]
        seen = self.renderer.render(self.camera, pose)
        there = self.renderer.render(self.camera, right)
        images = self.sensor(seen.rgb), self.sensor(there.rgb)
        return Keyframe(number, round_, pose, *images, seen.depth, seen.instance)


def view(
    keyframe: Keyframe, camera: Camera, right: bool = False, map_from_camera: np.ndarray | None = None
) -> View:
    """One image of a keyframe as a view; map_from_camera: the pose that it is given."""
    image = keyframe.right if right else keyframe.left
    frame = 'right' if right else 'left'
    return View(image, camera, frame, keyframe.number * STEP_NS, map_from_camera)


def stereo_pair(keyframe: Keyframe, camera: Camera, given: np.ndarray | None = None) -> Pair:
    """The rectified pair of a keyframe, with its `given` pose if there is one."""
    return Pair(view(keyframe, camera, False, given), view(keyframe, camera, right=True), BASELINE)


def sequential_pair(
    keyframe: Keyframe, before: Keyframe, camera: Camera, given: tuple[np.ndarray, np.ndarray] | None = None
) -> Pair:
    """The pair of a keyframe and the one before, with their `given` poses if there are any."""
    now, then = given if given is not None else (None, None)
    return Pair(view(keyframe, camera, False, now), view(before, camera, False, then))


def noisy(poses: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Poses (4, 4) as of a SLAM: errors that change slowly (an autoregressive process of order 1) begin at
    zero and tend to SIGMA_M and SIGMA_DEG."""
    keep = np.exp(-1 / MEMORY)
    error, out = np.zeros(6), []
    for pose in poses:
        turn = cv2.Rodrigues(np.radians(SIGMA_DEG) * error[:3])[0]
        moved = pose.copy()
        moved[:3, :3] = pose[:3, :3] @ turn
        moved[:3, 3] += SIGMA_M * error[3:]
        out.append(moved)
        error = keep * error + np.sqrt(1 - keep**2) * rng.normal(size=6)
    return out


def surface(keyframe: Keyframe, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) m of what a keyframe sees, in the world, and their instances (N,); one of EVERY pixels
    along either side."""
    uv = pixel_grid(camera.height, camera.width)[::EVERY, ::EVERY].reshape(-1, 2)
    depth = keyframe.depth[::EVERY, ::EVERY].reshape(-1, 1)
    instance = keyframe.instance[::EVERY, ::EVERY].ravel()
    pose = keyframe.world_from_camera
    points = (camera.rays(uv) * depth) @ pose[:3, :3].T + pose[:3, 3]
    return points[instance > 0], instance[instance > 0]
