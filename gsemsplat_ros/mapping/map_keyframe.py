"""The keyframes that a map keeps: where a picture was taken, and by what it is known again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from gsemsplat_ros.geometry.features import DESCRIPTOR_UNIT
from gsemsplat_ros.geometry.retrieval import image_vector
from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.scene.scene import Scene

MOST = 2000  # keyframes of a map, 180 MB
FEATURES = 500  # of a keyframe, its strongest with a depth
FEWEST = 50  # with fewer nothing is known again
CELLS = 40  # of the picture in small, along a row
# a camera that moved by less than NEAR of the median depth, and turned by less than TURN, sees the same
NEAR, TURN = 0.1, np.deg2rad(15)


@dataclass(frozen=True, eq=False)
class MapKeyframe:
    """One picture of the map, 90 kB; all lengths in the map's unit.

    number: of its scene, 1 for the first. map_from_camera (4, 4) float64: its pose; scale: map units per unit
    of its scene; frame and stamp_ns: the input's. camera: of the picture in small; gray (h, w) uint8 and
    depth (h, w) float16, NaN where it was not measured: that picture. points (F, 3) float32: its features, in
    its camera's frame; descriptors (F, 128) uint8 in DESCRIPTOR_UNIT: theirs. vector (D,) float16: see
    `image_vector`.
    """

    number: int
    map_from_camera: np.ndarray
    scale: float
    frame: str
    stamp_ns: int
    camera: Camera
    gray: np.ndarray
    depth: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray
    vector: np.ndarray

    @cached_property
    def reach(self) -> float:
        """Median depth of its features."""
        return float(np.median(self.points[:, 2]))

    def depth_at(self, uv: np.ndarray, camera: Camera) -> np.ndarray:
        """Depths (...) of the picture in small at pixels (..., 2) of it as `camera` has it, NaN where it was
        not measured."""
        size = np.array([self.camera.width / camera.width, self.camera.height / camera.height])
        at, inside = self.camera.index((uv + 0.5) * size - 0.5)
        return np.where(inside, self.depth[at].astype(np.float64), np.nan)

    def moved(self, a_from_b: np.ndarray, scale: float, later: int = 0) -> MapKeyframe:
        """The same of a map in another frame: b the present one, a_from_b (4, 4) rigid, after its lengths
        were multiplied by `scale`; `later`: number of scenes before those of this map."""
        pose = self.map_from_camera.copy()
        pose[:3, 3] *= scale
        return replace(
            self,
            number=self.number + later,
            map_from_camera=a_from_b @ pose,
            scale=scale * self.scale,
            depth=(scale * self.depth.astype(np.float64)).astype(np.float16),
            points=(scale * self.points.astype(np.float64)).astype(np.float32),
        )


def in_small(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) as gray cells (h, CELLS) uint8."""
    height, width = image.shape[:2]
    size = CELLS, max(1, round(CELLS * height / width))
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)


def keyframe_of(scene: Scene, number: int, map_from_camera: np.ndarray, scale: float) -> MapKeyframe | None:
    """What a map keeps of a scene at this pose (4, 4); None: too little of it has features with a depth."""
    keyframe = scene.keyframe
    features = keyframe.features
    points, _ = scene.lifted(features.uv)
    rows = np.flatnonzero(np.isfinite(measured_depth(scene, features.uv, keyframe.input_camera)))[:FEATURES]
    if len(rows) < FEWEST:
        return None
    gray = in_small(keyframe.image)
    camera = keyframe.input_camera.resized(*gray.shape[::-1])
    return MapKeyframe(
        number,
        map_from_camera,
        scale,
        keyframe.frame,
        keyframe.stamp_ns,
        camera,
        gray,
        (scale * measured_depth(scene, pixel_grid(*gray.shape), camera)).astype(np.float16),
        (scale * points[rows]).astype(np.float32),
        np.rint(features.descriptors[rows] / DESCRIPTOR_UNIT).clip(max=255).astype(np.uint8),
        image_vector(features.descriptors).astype(np.float16),
    )


def measured_depth(scene: Scene, uv: np.ndarray, camera: Camera) -> np.ndarray:
    """Depths (...) that the scene measured at pixels (..., 2) of its keyframe's image as `camera` has it, in
    the scene's unit; NaN where it did not.
    """
    keyframe = scene.keyframe
    size = np.array(
        [keyframe.window.input_width / camera.width, keyframe.window.input_height / camera.height]
    )
    pixels = (uv + 0.5) * size - 0.5
    points, seen = scene.lifted(pixels)
    if scene.measured is not None:
        seen &= scene.measured[keyframe.camera.index(keyframe.to_rendering_pixel(pixels))[0]]
    return np.where(seen, points[..., 2], np.nan)


def apart(poses: np.ndarray, reaches: np.ndarray | float, pose: np.ndarray) -> np.ndarray:
    """How far (...) poses (..., 4, 4) that see about `reaches` (...) far are from others (..., 4, 4); below 1
    both see the same.
    """
    moved = np.linalg.norm(poses[..., :3, 3] - pose[..., :3, 3], axis=-1)
    cosine = (np.einsum('...ij,...ij->...', poses[..., :3, :3], pose[..., :3, :3]) - 1) / 2
    return np.maximum(moved / (NEAR * reaches), np.arccos(np.clip(cosine, -1, 1)) / TURN)


def apart_from(keyframes: Sequence[MapKeyframe], map_from_camera: np.ndarray) -> np.ndarray:
    """How far (K,) a pose (4, 4) is from those of keyframes, as `apart`."""
    poses = np.array([kept.map_from_camera for kept in keyframes]).reshape(-1, 4, 4)
    return apart(poses, np.array([kept.reach for kept in keyframes]), map_from_camera)


def with_keyframe(keyframes: tuple[MapKeyframe, ...], new: MapKeyframe) -> tuple[MapKeyframe, ...]:
    """`keyframes` with one more; beyond MOST the new one takes the place of that which is nearest to it."""
    if len(keyframes) >= MOST:
        nearest = int(apart_from(keyframes, new.map_from_camera).argmin())
        keyframes = (*keyframes[:nearest], *keyframes[nearest + 1 :])
    return (*keyframes, new)
