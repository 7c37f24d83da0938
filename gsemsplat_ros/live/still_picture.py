"""The picture of a visitor who stands still, drawn here in full detail for a browser that cannot.

It lies behind the boxes, in place of the splats, until the camera moves or something else is to be shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.live.pause import Pause
from gsemsplat_ros.live.repeated_job import RepeatedJob
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.live.visitor_camera import BACKGROUND, VisitorCamera, VisitorView
from gsemsplat_ros.live.visitor_overlay import VisitorOverlay

STILL_S = 0.5  # without a movement
LONG_SIDE = 1600  # pixels
SURFACE = 1.02  # times as far: boxes on a surface are seen
DEPTH_STEP = 4  # pixels of the picture in one of its depth
DECODED_S = 0.25  # a browser has decoded the picture within


@dataclass(frozen=True, eq=False)
class StillImage:
    """rgb (H, W, 3) uint8; depth (h, w) float32 along the axis, infinite where nothing is."""

    rgb: np.ndarray
    depth: np.ndarray


def still_image(shown: ShownScene, colors: np.ndarray, view: VisitorView) -> StillImage:
    """The shown Gaussians in `colors` (M, 3) in [0, 1], as a visitor sees them."""
    gaussians = replace(shown.drawn, colors=torch.from_numpy(np.asarray(colors, np.float32)))
    drawn = render(
        gaussians,
        view.camera(LONG_SIDE),
        np.linalg.inv(view.world_from_camera),
        [channel / 255 for channel in BACKGROUND],
    )
    rgb = np.rint(drawn.rgb.clamp(0, 1).mul(255).numpy()).astype(np.uint8)
    depth = drawn.depth.numpy()[::DEPTH_STEP, ::DEPTH_STEP] * np.float32(SURFACE)
    return StillImage(rgb, np.where(np.isfinite(depth), depth, np.float32(np.inf)))


class StillPicture:
    """Draws and shows it. `camera` and `overlay`: the visitor's. submit: calls a function in the pool that
    draws one picture at a time for all visitors. guarded: calls a function and tells the visitor what fails.
    at_rest: called when the visitor begins to stand still."""

    def __init__(
        self,
        camera: VisitorCamera,
        overlay: VisitorOverlay,
        submit: Callable[[Callable[[], None]], None],
        guarded: Callable[[Callable[[], None]], None],
        at_rest: Callable[[], None],
    ):
        self._camera, self._overlay, self._at_rest = camera, overlay, at_rest
        self._lock = threading.Lock()
        self._view: VisitorView | None = None  # the newest
        self._rests = self._is_shown = False
        self._what: Hashable = None  # is to be drawn, None: nothing
        self._draw: Callable[[VisitorView], StillImage] | None = None
        self._pause = Pause(STILL_S, self._rest)
        self._job = RepeatedJob(partial(guarded, self._work), submit)

    def moved(self) -> None:
        """The browser has sent its camera."""
        view = self._camera.view
        with self._lock:
            if view == self._view:
                return
            self._view, self._rests = view, False
            self._hide()
        self._pause.restart()

    def want(self, what: Hashable, draw: Callable[[VisitorView], StillImage]) -> None:
        """Draw `what`, by `draw`, whenever the visitor stands still; None: nothing."""
        with self._lock:
            if what != self._what:
                self._hide()
            self._what, self._draw = what, draw
            if what is None or not self._rests or self._is_shown:
                return
        self._job.request()

    def close(self) -> None:
        """Draw no more."""
        self._pause.close()
        self._job.close()

    def _rest(self) -> None:
        with self._lock:
            self._rests = True
        self._at_rest()

    def _work(self) -> None:
        with self._lock:
            view, what, draw = self._view, self._what, self._draw
            if not self._rests or self._is_shown or what is None or draw is None or view is None:
                return
        image = draw(view)
        with self._lock:
            if not self._rests or (self._view, self._what) != (view, what):
                return
            self._overlay.show_picture(image.rgb)
            self._is_shown = True
        time.sleep(DECODED_S)  # viser's page paints the picture black until it has decoded it
        with self._lock:
            if self._is_shown:
                self._overlay.hide_splats(image.rgb, image.depth)

    def _hide(self) -> None:
        if self._is_shown:
            self._overlay.hide_picture()
            self._is_shown = False
