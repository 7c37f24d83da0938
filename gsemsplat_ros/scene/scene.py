"""The scene of one pair, with everything that a query reads. It never changes; a new pair makes a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from gsemsplat_ros.device import download
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import Rendering
from gsemsplat_ros.geometry.features import Features, described
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.network.config import CODE_DIM
from gsemsplat_ros.semantics.decoder import HiddenCodes

MIN_ALPHA = 0.5  # a rendered depth is used where at least this much was drawn
SAME_SURFACE = 0.1  # a Gaussian within this fraction of the rendered depth is visible
NETWORK_SCALE = 'network'  # the scale source of scenes and maps whose lengths are the network's guess
FILE_SCALE = 'file'  # that of those whose file says that they are metres, and not why


def is_metric(scale_source: str) -> bool:
    """Whether lengths are metres, by the source of scale: 'stereo baseline', 'tf', or 'network' (a guess)."""
    return scale_source != NETWORK_SCALE


def drawn_for_queries(gaussians: Gaussians, counts: Tensor | None) -> Gaussians:
    """The Gaussians with the codes that the rendering of a keyframe needs: without the context-aware ones
    where the picture itself is asked, by its `counts` (HiddenCodes)."""
    return gaussians if counts is None else replace(gaussians, codes=gaussians.codes[:, :CODE_DIM])


@dataclass(frozen=True)
class Keyframe:
    """The view in which queries are answered; its camera is the scene's frame.

    camera: of the rendering; rendering: the scene drawn there; hidden_codes: its codes, prepared for queries;
    image (H, W, 3) uint8 RGB: the input; window: of the rendering in it; frame and stamp_ns: the input's.
    """

    camera: Camera
    rendering: Rendering
    hidden_codes: HiddenCodes
    image: np.ndarray
    window: Window
    frame: str
    stamp_ns: int

    @property
    def input_camera(self) -> Camera:
        """The camera of the input image."""
        return self.camera.resized(self.window.width, self.window.height).around_window(self.window)

    def to_input_pixel(self, uv: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the rendering to pixels of the input image."""
        return self.window.to_input((np.asarray(uv) + 0.5) * self._window_pixels - 0.5)

    def to_rendering_pixel(self, uv: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the input image to pixels of the rendering."""
        return (self.window.to_network(uv) + 0.5) / self._window_pixels - 0.5

    @cached_property
    def features(self) -> Features:
        """Those of the image; found once."""
        return described(self.image)

    @property
    def _window_pixels(self) -> np.ndarray:
        """(2,) width and height of a pixel of the rendering in those of the window."""
        return np.array([self.window.width / self.camera.width, self.window.height / self.camera.height])


class HostScene(NamedTuple):
    """means (N, 3) and opacities (N,) of the Gaussians; alpha, depth (h, w), rgb (h, w, 3) of the drawing."""

    means: np.ndarray
    opacities: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray
    rgb: np.ndarray


@dataclass(frozen=True)
class Scene:
    """gaussians: in the first view's frame, in metres when the scene is `metric`.

    first_from_second (4, 4): pose of the second camera, translation in the unit of the Gaussians; None: not
    found. scale: metres per network unit; scale_source: 'stereo baseline', 'tf' or 'network'; inliers of
    points: measurements that agree with scale or pose. timings: stage -> seconds. focal_source: what tells
    the focal length, 'calibration', 'exif' (the image file), 'images' or 'network'; focal_spread: standard
    deviation of its logarithm, 0 for a calibration. measured (h, w) bool: pixels of the keyframe's rendering
    whose depth was measured in the images, not guessed; None: unknown, of a file.
    """

    gaussians: Gaussians
    keyframe: Keyframe
    first_from_second: np.ndarray | None
    scale: float
    scale_source: str
    inliers: int
    points: int
    timings: dict[str, float]
    focal_source: str = 'calibration'
    focal_spread: float = 0.0
    measured: np.ndarray | None = None

    @property
    def metric(self) -> bool:
        """Whether lengths are metres; otherwise they are in the network's own unit."""
        return is_metric(self.scale_source)

    @cached_property
    def on_host(self) -> HostScene:
        """What answers and maps need on the host; brought there once."""
        drawn = self.keyframe.rendering
        return HostScene(
            *download([self.gaussians.means, self.gaussians.opacities, drawn.alpha, drawn.depth, drawn.rgb])
        )

    def lifted(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (..., 3) in the keyframe's camera, in the scene's unit, at pixels (..., 2) of its image, and
        which (...) bool have a rendered depth."""
        camera, drawn = self.keyframe.camera, self.on_host
        uv = self.keyframe.to_rendering_pixel(pixels)
        at, inside = camera.index(uv)
        depth = drawn.depth[at].astype(np.float64)
        seen = inside & np.isfinite(depth) & (drawn.alpha[at] >= MIN_ALPHA)
        return camera.rays(uv) * depth[..., None], seen

    @cached_property
    def pixels(self) -> np.ndarray:
        """(N,) int64: the pixel of the rendering (row by row) under each Gaussian; -1: hidden or outside."""
        camera, (means, _, _, depth, _) = self.keyframe.camera, self.on_host
        uv, in_front = camera.project(means)
        (rows, columns), inside = camera.index(uv)
        surface = depth[rows, columns]
        seen = in_front & inside & (np.abs(means[:, 2] - surface) <= SAME_SURFACE * surface)
        return np.where(seen, rows * camera.width + columns, -1)
