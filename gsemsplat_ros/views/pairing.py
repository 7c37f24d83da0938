"""Which two images make a pair: stereo images by their stamps, keyframes of one camera by what moved between
them; and whether a stereo pair shows anything new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from gsemsplat_ros.views.view import Pair, View

FLOW_SIDE = 320  # optical flow is measured on a gray image whose longer side has this many pixels
MAX_FEATURES = 200
MIN_FEATURES = 20  # fewer corners than this say nothing about motion
ROUND_TRIP_PX = 1.0  # a feature is tracked when forward and backward flow agree to this many pixels
CELLS = 80  # along the longer side of the image, in which changes are looked for
CHANGE = 10.0  # gray levels by which a cell must leave the range of its surroundings; noise is far below
STILL = 'the image stands still'
CHANGED_CELLS = 2  # a change is at least so many cells wide and high: vibration makes thin lines of them


class StereoPairer:
    """Pairs the items of two streams whose stamps differ by at most `slop_s`, each item at most once.

    The plain twin of message_filters.ApproximateTimeSynchronizer for two inputs: the new item takes the
    nearest one of the other stream. Keeps the `depth` newest items of each side.

    pairs: how many were made. dropped: items of each side that left without a partner. skew_ns: stamp of the
    right item minus that of the left one in the last pair [ns], None before the first.
    """

    def __init__(self, slop_s: float, depth: int = 10):
        self._slop_ns = round(slop_s * 1e9)
        self._depth = depth
        self._waiting: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
        self.pairs = 0
        self.dropped = [0, 0]
        self.skew_ns: int | None = None

    def add(self, side: int, stamp_ns: int, item: Any) -> tuple[Any, Any] | None:
        """Take in an item of side 0 (left) or 1 (right); return the (left, right) pair that it completes, or
        None.
        """
        mine, others = self._waiting[side], self._waiting[1 - side]
        self.dropped[side] += stamp_ns in mine  # two items with one stamp: the newer one counts
        mine[stamp_ns] = item
        while len(mine) > self._depth:
            del mine[min(mine)]
            self.dropped[side] += 1
        if stamp_ns not in mine or not others:
            return None
        partner = min(others, key=lambda other: abs(other - stamp_ns))
        if abs(partner - stamp_ns) > self._slop_ns:
            return None
        self.pairs += 1
        self.skew_ns = (partner - stamp_ns) if side == 0 else (stamp_ns - partner)
        pair = mine.pop(stamp_ns), others.pop(partner)
        return pair if side == 0 else pair[::-1]


@dataclass(frozen=True)
class Motion:
    """Between two images: median optical flow as a fraction of the width; tracked part of the features."""

    flow: float
    overlap: float


def _gray(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB to a gray picture, FLOW_SIDE pixels on its longer side."""
    height, width = image.shape[:2]
    factor = FLOW_SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def _features(gray: np.ndarray) -> np.ndarray:
    """(N, 1, 2) float32 corners, N may be 0."""
    corners = cv2.goodFeaturesToTrack(gray, MAX_FEATURES, qualityLevel=0.01, minDistance=7)
    return (
        np.zeros((0, 1, 2), np.float32)
        if corners is None
        else np.asarray(corners, np.float32).reshape(-1, 1, 2)
    )


def _track(features: np.ndarray, before: np.ndarray, after: np.ndarray) -> Motion:
    window = dict(winSize=(21, 21), maxLevel=4)
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, features, None, **window)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **window)
    height, width = after.shape
    x, y = there[:, 0, 0], there[:, 0, 1]
    good = (seen.ravel() == 1) & (seen_back.ravel() == 1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    good &= np.linalg.norm((back - features)[:, 0], axis=1) < ROUND_TRIP_PX
    if not good.any():
        return Motion(flow=float('inf'), overlap=0.0)
    flow = np.linalg.norm((there - features)[good, 0], axis=1)
    return Motion(flow=float(np.median(flow)) / width, overlap=float(good.mean()))


class KeyframeSelector:
    """Chooses the frames of one moving camera that make a pair with the keyframe before.

    A frame makes a pair when the image moved by at least `min_motion` and at most `max_motion` (fractions of
    the width) and at least `min_overlap` of the keyframe's features are still seen; it is then the next
    keyframe. A camera that stands still makes none. The pair is dropped and the frame becomes the keyframe
    when too much moved or when the keyframe is older than `max_age_s`: then the two images may show two
    states of the world.

    pairs: how many were made; dropped: how many were not, although the camera moved. reason: in words, why
    the last frame made a pair or none. motion: last measured, or None.
    """

    def __init__(
        self,
        min_motion: float = 0.03,
        max_motion: float = 0.35,
        min_overlap: float = 0.4,
        max_age_s: float = 10.0,
    ):
        self._limits = min_motion, max_motion, min_overlap
        self._max_age_ns = round(max_age_s * 1e9)
        self._keyframe: View | None = None
        self.pairs = self.dropped = 0
        self.motion: Motion | None = None
        self.reason = 'no image yet'

    def offer(self, view: View) -> Pair | None:
        """A Pair (first: `view`, second: the keyframe before: the scene stands in the newest frame), or
        None.
        """
        before = self._keyframe
        if before is None:
            return self._restart(view, 'first image: waiting for motion')
        if before.image.shape != view.image.shape or before.frame != view.frame:
            return self._restart(view, 'the camera changed: starting again')
        age_ns = view.stamp_ns - before.stamp_ns
        if age_ns < 0:
            return self._restart(view, 'time went backwards: starting again')
        if len(self._features) < MIN_FEATURES:
            return self._restart(
                view, f'{len(self._features)} corners in the keyframe: too few to measure motion'
            )
        motion = _track(self._features, self._gray, _gray(view.image))
        min_motion, max_motion, min_overlap = self._limits
        if motion.flow > max_motion or motion.overlap < min_overlap:
            self.dropped += 1
            return self._restart(view, 'too little of the keyframe is still seen: a new one', motion)
        if age_ns > self._max_age_ns:
            self.dropped += motion.flow >= min_motion
            return self._restart(view, 'the keyframe is too old: a new one', motion)
        if motion.flow < min_motion:
            self.motion, self.reason = motion, STILL
            return None
        self._restart(view, 'pair', motion)
        self.pairs += 1
        return Pair(first=view, second=before)

    def _restart(self, view: View, reason: str, motion: Motion | None = None) -> None:
        self._keyframe, self.motion, self.reason = view, motion, reason
        self._gray = _gray(view.image)
        self._features = _features(self._gray)


class StillGate:
    """Whether a stereo camera sees anything new since the last scene: it moved, or something before it did.

    A view is new when the image moved by at least `min_motion` (median, fraction of the width) against the
    one of the last scene, or when some part of it changed; light and exposure may. `min_motion` 0: every view
    is.

    skipped: how many views were not new. motion: last measured, or None; changed: part of the cells that did.
    """

    def __init__(self, min_motion: float = 0.03):
        self._min_motion = min_motion
        self._view: View | None = None
        self.skipped, self.changed = 0, 0.0
        self.motion: Motion | None = None
        self.reason = 'no image yet'

    def is_new(self, view: View) -> bool:
        """Whether a scene of `view` would show anything that the last one does not."""
        before, motion, changed = self._view, None, 0.0
        if before is None or self._min_motion <= 0:
            reason = 'first image'
        elif before.image.shape != view.image.shape or before.frame != view.frame:
            reason = 'the camera changed'
        else:
            gray = _gray(view.image)
            if len(self._features) >= MIN_FEATURES:
                motion = _track(self._features, self._gray, gray)
            changed = self._changed(gray)
            reason = (
                'the camera moved'
                if motion and motion.flow >= self._min_motion
                else 'something moved before the camera'
                if changed
                else STILL
            )
        self.motion, self.changed, self.reason = (
            motion,
            changed,
            reason,
        )  # in one go: others read them meanwhile
        self.skipped += reason is STILL
        return reason is not STILL

    def keep(self, view: View) -> None:
        """A scene was made of `view`."""
        if self._min_motion <= 0:
            return
        self._view, self._gray = view, _gray(view.image)
        self._features, self._cells = _features(self._gray), _cells(self._gray)

    def forget(self) -> None:
        """The next view is new, whatever it shows."""
        self._view = None

    def _changed(self, gray: np.ndarray) -> float:
        """Part of the cells that show something else, whatever the exposure."""
        new = _cells(gray)
        gain, offset = _exposure(self._cells, new)
        old = self._cells * gain + offset
        out = (_outside(new, old) | _outside(old, new)).astype(np.uint8)  # what came, and what went
        return float(
            cv2.morphologyEx(out, cv2.MORPH_OPEN, np.ones((CHANGED_CELLS, CHANGED_CELLS), np.uint8)).mean()
        )


def _outside(cells: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which cells leave the range of the others there and next to it: so a shift by one cell changes
    nothing.
    """
    square = np.ones((3, 3), np.uint8)
    return (cells < cv2.erode(others, square) - CHANGE) | (cells > cv2.dilate(others, square) + CHANGE)


def _cells(gray: np.ndarray) -> np.ndarray:
    """Means (h, w) float32 of CELLS cells along the longer side."""
    height, width = gray.shape
    factor = CELLS / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _exposure(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Gain and offset with which most cells of `old` become those of `new`: fitted twice, without what
    differs most.
    """
    x, y, gain, offset = old.ravel(), new.ravel(), 1.0, 0.0
    for part in 1.0, 0.7:
        error = np.abs(gain * x + offset - y)
        chosen = error <= np.quantile(error, part)
        a, b = x[chosen], y[chosen]
        spread = float(a.var())
        gain = float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 1 else 1.0
        offset = float(b.mean() - gain * a.mean())
    return gain, offset
