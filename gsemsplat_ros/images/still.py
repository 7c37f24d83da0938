"""Whether a stereo pair shows anything new."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.images.keyframes import STILL
from gsemsplat_ros.images.motion import Motion, TrackedView, small_gray
from gsemsplat_ros.images.view import View

CELLS = 80  # along the longer side of the image; changes are detected cell by cell
CHANGE = 10.0  # gray levels by which a cell must leave the range of its surroundings; noise is far below
CHANGED_CELLS = 2  # least width and height of a change: vibration changes thin lines of cells


class StillGate:
    """Whether a stereo camera shows anything new since the last scene: it, or something before it, moved.

    A view is new when the image moved by at least `min_motion` (median, fraction of the width)
    since the last scene, or when part of it changed; changes of light and exposure do not count.
    With `min_motion` 0 every view is new.

    skipped: number of views that were not new. reason: the last decision in words. motion: last measured, or
    None. changed: fraction of the cells that changed.
    """

    def __init__(self, min_motion: float = 0.03):
        self._min_motion = min_motion
        self._last: _Seen | None = None
        self.skipped, self.changed = 0, 0.0
        self.motion: Motion | None = None
        self.reason = 'no image yet'

    def is_new(self, view: View) -> bool:
        """Whether a scene of `view` would show anything that the last one does not."""
        self.motion, self.changed, self.reason = self._compare(view)
        if self.reason == STILL:
            self.skipped += 1
        return self.reason != STILL

    def keep(self, view: View) -> None:
        """Record that a scene was made of `view`."""
        if self._min_motion > 0:
            tracked = TrackedView.of(view)
            self._last = _Seen(tracked, _cells(tracked.gray))

    def forget(self) -> None:
        """Forget the last scene: the next view is new, whatever it shows."""
        self._last = None

    def _compare(self, view: View) -> tuple[Motion | None, float, str]:
        """The motion since the last scene, the part of the cells that changed, and what follows from them."""
        last = self._last
        if last is None or self._min_motion <= 0:
            return None, 0.0, 'first image'
        if not last.tracked.same_camera(view):
            return None, 0.0, 'the camera changed'
        gray = small_gray(view.image)
        motion, changed = last.tracked.motion_to(gray), _changed(last.cells, _cells(gray))
        if motion is not None and motion.flow >= self._min_motion:
            return motion, changed, 'the camera moved'
        return motion, changed, 'something moved before the camera' if changed else STILL


@dataclass(frozen=True)
class _Seen:
    """The view of the last scene, and the means (h, w) of its cells."""

    tracked: TrackedView
    cells: np.ndarray


def _changed(old: np.ndarray, new: np.ndarray) -> float:
    """Fraction of the cells (h, w) that changed, apart from exposure."""
    gain, offset = _exposure(old, new)
    old = old * gain + offset
    out = (_outside(new, old) | _outside(old, new)).astype(np.uint8)  # appeared, or disappeared
    return float(
        cv2.morphologyEx(out, cv2.MORPH_OPEN, np.ones((CHANGED_CELLS, CHANGED_CELLS), np.uint8)).mean()
    )


def _outside(cells: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which cells leave the range of the others in their 3x3 surroundings: a shift by one cell does not."""
    square = np.ones((3, 3), np.uint8)
    return (cells < cv2.erode(others, square) - CHANGE) | (cells > cv2.dilate(others, square) + CHANGE)


def _cells(gray: np.ndarray) -> np.ndarray:
    """Means (h, w) float32 of CELLS cells along the longer side."""
    height, width = gray.shape
    factor = CELLS / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _exposure(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Gain and offset from the cells of `old` to those of `new`, refitted without the worst 30 %."""
    x, y, gain, offset = old.ravel(), new.ravel(), 1.0, 0.0
    for part in 1.0, 0.7:
        error = np.abs(gain * x + offset - y)
        chosen = error <= np.quantile(error, part)
        a, b = x[chosen], y[chosen]
        spread = float(a.var())
        gain = float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 1 else 1.0
        offset = float(b.mean() - gain * a.mean())
    return gain, offset
