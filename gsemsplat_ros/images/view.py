"""Views, pairs of views, and the resize of an image to the network's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from gsemsplat_ros.images.calibration import doubt_baseline
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.window import Window

PATCH = 16  # the network works on whole patches of this many pixels


@dataclass(frozen=True)
class View:
    """One image: `image` (H, W, 3) uint8 RGB, its camera (None: unknown), optical frame and time [ns].

    map_from_camera (4, 4): pose of the camera at that time in a fixed frame [m]; None: unknown. exif_focal:
    focal length [px] by the image file, which is less than a calibration; None: not told. Raises ValueError
    for another shape or type, and for a camera of another size.
    """

    image: np.ndarray
    camera: Camera | None = None
    frame: str = 'camera'
    stamp_ns: int = 0
    map_from_camera: np.ndarray | None = None
    exif_focal: float | None = None

    def __post_init__(self) -> None:
        image = self.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f'image of shape {image.shape} and type {image.dtype}: wanted (height, width, 3) uint8 RGB'
            )
        if self.camera and (self.camera.height, self.camera.width) != image.shape[:2]:
            raise ValueError(
                f'camera of {self.camera.width}x{self.camera.height} px for an image of '
                f'{image.shape[1]}x{image.shape[0]} px: give the calibration of this image size'
            )


@dataclass(frozen=True)
class Pair:
    """Two views of one scene. `baseline_m` [m]: of a rectified stereo pair, second camera at +x; else None.

    Raises ValueError for a baseline that no stereo camera has, that has no camera, or two image sizes.
    """

    first: View
    second: View
    baseline_m: float | None = None

    def __post_init__(self) -> None:
        if self.baseline_m is not None:
            if doubt := doubt_baseline(self.baseline_m):
                raise ValueError(doubt)
            if self.first.camera is None or self.first.image.shape != self.second.image.shape:
                raise ValueError('a stereo pair needs a camera and two images of the same size')

    @property
    def skew_ns(self) -> int:
        """Stamp of the second view minus that of the first [ns]."""
        return self.second.stamp_ns - self.first.stamp_ns

    @property
    def first_from_second(self) -> np.ndarray | None:
        """(4, 4) pose of the second camera in the frame of the first [m]; None if a pose is unknown."""
        if self.first.map_from_camera is None or self.second.map_from_camera is None:
            return None
        return np.linalg.inv(self.first.map_from_camera) @ self.second.map_from_camera


def network_size(width: int, height: int, long_side: int = 512, square: bool = False) -> tuple[int, int]:
    """Width and height for the network: multiples of 16, `long_side` pixels on the long side.

    `square` is the published 512 x 512 centre crop (docs/published.md 1); otherwise the field of view is kept
    up to the rounding to whole patches (docs/published.md 2).
    """
    if square:
        return long_side, long_side
    short = max(PATCH, int(long_side * min(width, height) / max(width, height) / PATCH + 0.5) * PATCH)
    return (long_side, short) if width >= height else (short, long_side)


class Fitted(NamedTuple):
    """A view cropped and resized for the network, with its camera, and its window in the input image."""

    view: View
    window: Window


def fit(view: View, width: int, height: int) -> Fitted:
    """Resize `view` to cover `width` x `height` and crop the centre; the camera follows.

    Filters as published: Lanczos when shrinking, bicubic when enlarging.
    """
    input_height, input_width = view.image.shape[:2]
    scale = min(input_width / width, input_height / height)
    crop_width, crop_height = width * scale, height * scale
    # rounding may make a border of nothing negative
    x0, y0 = max(0.0, (input_width - crop_width) / 2), max(0.0, (input_height - crop_height) / 2)
    window = Window(input_width, input_height, width, height, scale, scale, x0, y0)
    image = view.image
    if (input_width, input_height) != (width, height):
        resample = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC
        image = np.array(
            Image.fromarray(image).resize(
                (width, height), resample, box=(x0, y0, x0 + crop_width, y0 + crop_height)
            )
        )
    camera = view.camera.in_window(window) if view.camera else None
    return Fitted(replace(view, image=np.ascontiguousarray(image), camera=camera), window)
