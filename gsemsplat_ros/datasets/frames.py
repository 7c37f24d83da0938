"""Scenes of posed RGB-D frames: one interface for every layout on disk.

Cameras are OpenCV (x right, y down, z forward), pixel centres lie at integers, lengths are metres. A frame
and its camera are cut to the training size of the network, so every layout gives the same values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.image_file import read_image

SIZE = 512  # published height and width of a training view [px]


@dataclass(frozen=True)
class Cut:
    """The part of a picture used in training (docs/published.md 35): the largest window that is symmetric
    about the rounded principal point, scaled until both sides just cover (`height`, `width`), and its centre.

    box: left, top, right, bottom of the window in the picture [px]; resized: its width and height after
    scaling; offset: left and top of the cut in it.
    """

    height: int
    width: int
    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    source: Camera

    @classmethod
    def of(cls, camera: Camera, height: int, width: int) -> Cut:
        """Raises ValueError for a principal point outside the picture."""
        # in edge coordinates (pixel u covers [u, u + 1)) the axis of a window of whole pixels is an edge
        x, y = round(camera.cx + 0.5), round(camera.cy + 0.5)
        half_x, half_y = min(x, camera.width - x), min(y, camera.height - y)
        if half_x < 1 or half_y < 1:
            raise ValueError(
                f'principal point ({camera.cx:.1f}, {camera.cy:.1f}) of a picture of {camera.width}x'
                f'{camera.height} px: wanted one inside; check the intrinsics'
            )
        scale = max(width / (2 * half_x), height / (2 * half_y))
        resized = max(width, round(2 * half_x * scale)), max(height, round(2 * half_y * scale))
        return cls(
            height,
            width,
            (x - half_x, y - half_y, x + half_x, y + half_y),
            resized,
            ((resized[0] - width) // 2, (resized[1] - height) // 2),
            camera,
        )

    @property
    def camera(self) -> Camera:
        """The camera of the cut."""
        left, top, right, bottom = self.box
        return (
            self.source.cropped(left, top, right - left, bottom - top)
            .resized(*self.resized)
            .cropped(*self.offset, self.width, self.height)
        )

    def image(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to (height, width, 3); Lanczos when shrinking, as published."""
        shrinks = self.resized[0] < self.box[2] - self.box[0]
        filter_ = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        whole = np.array(Image.fromarray(image).crop(self.box).resize(self.resized, filter_))
        return np.ascontiguousarray(self._cut(whole))

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """A map (H, W) of depths or ids to (height, width): the value under each pixel's centre, unmixed."""
        left, top, right, bottom = self.box
        wide, high = self.resized
        rows = top + ((np.arange(high) + 0.5) * (bottom - top) / high).astype(int)
        columns = left + ((np.arange(wide) + 0.5) * (right - left) / wide).astype(int)
        return np.ascontiguousarray(self._cut(values[rows][:, columns]))

    def _cut(self, values: np.ndarray) -> np.ndarray:
        x, y = self.offset
        return values[y : y + self.height, x : x + self.width]


@dataclass(frozen=True)
class Geometry:
    """depth (H, W) float32 [m] along z, 0 where unknown; its camera; world_from_camera (4, 4) rigid [m]."""

    depth: np.ndarray
    camera: Camera
    world_from_camera: np.ndarray


@dataclass(frozen=True)
class Frame:
    """One picture of a scene: image (H, W, 3) uint8 RGB with its geometry.

    instance (H, W) uint16: ids of objects, 0 for nothing, None: unknown;
    names: the name of each id, None: unknown.
    """

    scene: str
    name: str
    image: np.ndarray
    geometry: Geometry
    instance: np.ndarray | None = None
    names: Sequence[str] | None = None


class Source(ABC):
    """Scenes on disk. kind: of the layout; height, width: of every frame [px]; scenes: names, in order.

    Files are read on demand, and an object may be used from several threads.
    """

    kind: str
    height: int
    width: int
    scenes: tuple[str, ...]

    @abstractmethod
    def frames(self, scene: str) -> tuple[str, ...]:
        """The names of a scene's frames, in order. Raises ValueError for missing or unreadable files."""

    @abstractmethod
    def geometry(self, scene: str, name: str) -> Geometry:
        """Depth, camera and pose of one frame, cut. Raises ValueError as `frames`."""

    @abstractmethod
    def frame(self, scene: str, name: str) -> Frame:
        """One frame, cut. Raises ValueError as `frames`."""

    def cut(self, scene: str, name: str) -> Cut:
        """The cut of a frame in its picture on disk, for masks of it. Raises ValueError without pictures."""
        raise ValueError(f'frames of {self.kind} have no pictures on disk that masks could belong to')

    def published_coverage(self, scene: str) -> np.ndarray | None:
        """(N, N) coverage of a scene's frames that was published with it; None: to be computed."""
        return None


def read_depth(path: Path, units: float) -> np.ndarray:
    """A 16-bit PNG of depths to (H, W) float32 [m]; `units` a metre, 0 stays 0. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f'no depth picture at {path}: render or register the depths of this scene first')
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.ndim != 2 or depth.dtype != np.uint16:
        raise ValueError(f'{path} is no depth picture: wanted a PNG of one channel of 16 bits')
    return depth.astype(np.float32) / np.float32(units)


def read_color(path: Path, camera: Camera) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB of a camera. Raises ValueError for one of another size."""
    image = read_image(path)
    if image.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f'{path} has {image.shape[1]}x{image.shape[0]} px, its depth {camera.width}x{camera.height}: '
            'wanted both of one size'
        )
    return image
