"""Views, cameras and the window of an image that the network sees.

Pixel centres lie at integer coordinates: pixel (u, v) covers [u - 0.5, u + 0.5). Cameras look along +z with x
to the right and y down (OpenCV; the `*_optical_frame` of REP 103).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gsemsplat_ros.images.camera import Camera

PATCH = 16  # the network works on whole patches of this many pixels


@dataclass(frozen=True)
class View:
    """One image: `image` (H, W, 3) uint8 RGB, its camera (None: unknown), optical frame and time [ns].

    map_from_camera (4, 4): where the camera stood then in a frame that does not move [m]; None: unknown.
    """

    image: np.ndarray
    camera: Camera | None = None
    frame: str = 'camera'
    stamp_ns: int = 0
    map_from_camera: np.ndarray | None = None

    def __post_init__(self):
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
    """Two views of one scene. `baseline_m` [m]: a rectified stereo pair whose second camera stands at +x;
    else None.
    """

    first: View
    second: View
    baseline_m: float | None = None

    def __post_init__(self):
        if self.baseline_m is not None:
            if not self.baseline_m > 0:
                raise ValueError(
                    f'stereo baseline of {self.baseline_m} m: wanted a positive length; '
                    'are left and right exchanged?'
                )
            if self.first.camera is None or self.first.image.shape != self.second.image.shape:
                raise ValueError('a stereo pair needs a camera and two images of the same size')

    @property
    def skew_ns(self) -> int:
        """Stamp of the second view minus that of the first [ns]."""
        return self.second.stamp_ns - self.first.stamp_ns

    @property
    def first_from_second(self) -> np.ndarray | None:
        """(4, 4) where the second camera stood in the frame of the first [m]; None unless both know their
        place.
        """
        if self.first.map_from_camera is None or self.second.map_from_camera is None:
            return None
        return np.linalg.inv(self.first.map_from_camera) @ self.second.map_from_camera


@dataclass(frozen=True)
class Window:
    """Where the network's picture lies in the input image.

    `input = (network + 0.5) * scale + (x0, y0) - 0.5`, all in pixels with centres at integers.
    """

    input_width: int
    input_height: int
    width: int
    height: int
    scale_x: float
    scale_y: float
    x0: float
    y0: float

    def to_input(self, uv: np.ndarray) -> np.ndarray:
        """Network pixels (..., 2) to input pixels (..., 2)."""
        return (np.asarray(uv, np.float64) + 0.5) * (self.scale_x, self.scale_y) + (
            self.x0 - 0.5,
            self.y0 - 0.5,
        )

    def to_network(self, uv: np.ndarray) -> np.ndarray:
        """Input pixels (..., 2) to network pixels (..., 2)."""
        return (np.asarray(uv, np.float64) + 0.5 - (self.x0, self.y0)) / (self.scale_x, self.scale_y) - 0.5

    def expand(self, image_map: np.ndarray, fill: float = np.nan) -> np.ndarray:
        """A map (h, w) over the window, of any resolution, to (input_height, input_width) float32 with `fill`
        outside.

        Bilinear; NaN stays where the nearest map value is NaN.
        """
        h, w = image_map.shape
        invalid = ~np.isfinite(image_map)
        values = np.where(invalid, 0.0, image_map).astype(np.float32)
        weights = (~invalid).astype(np.float32)
        sx, sy = self.scale_x * self.width / w, self.scale_y * self.height / h
        # input = (map + 0.5) * s + x0 - 0.5: the forward affine map that warpAffine inverts
        forward = np.array([[sx, 0.0, 0.5 * sx + self.x0 - 0.5], [0.0, sy, 0.5 * sy + self.y0 - 0.5]])
        size = (self.input_width, self.input_height)
        values = cv2.warpAffine(
            values, forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        weights = cv2.warpAffine(
            weights, forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        out = np.full((self.input_height, self.input_width), np.float32(fill))
        left, top = max(0, round(self.x0)), max(0, round(self.y0))
        inside = np.s_[
            top : round(self.y0 + self.height * self.scale_y),
            left : round(self.x0 + self.width * self.scale_x),
        ]
        seen = weights[inside] >= 0.5
        out[inside] = np.where(seen, values[inside] / np.maximum(weights[inside], 1e-6), np.float32(np.nan))
        return out


def network_size(width: int, height: int, long_side: int = 512, square: bool = False) -> tuple[int, int]:
    """Width and height for the network: multiples of 16, `long_side` pixels on the long side.

    `square` is the published 512 x 512 centre crop (docs/published.md 1); otherwise the field of view is kept
    up to the rounding to whole patches (2).
    """
    if square:
        return long_side, long_side
    short = max(PATCH, int(long_side * min(width, height) / max(width, height) / PATCH + 0.5) * PATCH)
    return (long_side, short) if width >= height else (short, long_side)


def fit(view: View, width: int, height: int) -> tuple[View, Window]:
    """Resize `view` to cover `width` x `height` and crop the centre; the camera follows.

    Filters as published: Lanczos when shrinking, bicubic when enlarging.
    """
    input_height, input_width = view.image.shape[:2]
    scale = min(input_width / width, input_height / height)
    crop_width, crop_height = width * scale, height * scale
    x0, y0 = (input_width - crop_width) / 2, (input_height - crop_height) / 2
    window = Window(input_width, input_height, width, height, scale, scale, x0, y0)
    image = view.image
    if (input_width, input_height) != (width, height):
        resample = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC
        image = np.array(
            Image.fromarray(image).resize(
                (width, height), resample, box=(x0, y0, x0 + crop_width, y0 + crop_height)
            )
        )
    camera = view.camera
    if camera:
        camera = Camera(
            width,
            height,
            camera.fx / scale,
            camera.fy / scale,
            *window.to_network(np.array([camera.cx, camera.cy])).tolist(),
        )
    return replace(view, image=np.ascontiguousarray(image), camera=camera), window


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB with EXIF orientation applied. Raises ValueError for anything that is not an
    image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert('RGB'))
    except FileNotFoundError:
        raise ValueError(f'no image at {path}') from None
    except IsADirectoryError:
        raise ValueError(f'{path} is a folder: wanted an image file') from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} cannot be read as an image ({error}): wanted a PNG or JPEG file') from None
