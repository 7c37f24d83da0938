"""Which two images make a pair: stereo images by their stamps, keyframes of one camera by what moved between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from gsemsplat_ros.views.view import Pair, View

FLOW_SIDE = 320         # optical flow is measured on a gray image whose longer side has this many pixels
MAX_FEATURES = 200
MIN_FEATURES = 20       # fewer corners than this say nothing about motion
ROUND_TRIP_PX = 1.0     # a feature is tracked when forward and backward flow agree to this many pixels


class StereoPairer:
    """Pairs the items of two streams whose stamps differ by at most `slop_s`, each item at most once.

    The plain twin of message_filters.ApproximateTimeSynchronizer for two inputs: the new item takes the nearest one of
    the other stream. Keeps the `depth` newest items of each side.

    pairs: how many were made. dropped: items of each side that left without a partner. skew_ns: stamp of the right item
    minus that of the left one in the last pair [ns], None before the first.
    """

    def __init__(self, slop_s: float, depth: int = 10):
        self._slop_ns = round(slop_s * 1e9)
        self._depth = depth
        self._waiting: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
        self.pairs = 0
        self.dropped = [0, 0]
        self.skew_ns: int | None = None

    def add(self, side: int, stamp_ns: int, item: Any) -> tuple[Any, Any] | None:
        """Take in an item of side 0 (left) or 1 (right); return the (left, right) pair that it completes, or None."""
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
    return np.zeros((0, 1, 2), np.float32) if corners is None else np.asarray(corners, np.float32).reshape(-1, 1, 2)


def _track(features: np.ndarray, before: np.ndarray, after: np.ndarray) -> Motion:
    window = dict(winSize=(21, 21), maxLevel=4)
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, features, None, **window)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **window)
    height, width = after.shape
    x, y = there[:, 0, 0], there[:, 0, 1]
    good = (seen.ravel() == 1) & (seen_back.ravel() == 1) & (0 <= x) & (x < width) & (0 <= y) & (y < height)
    good &= np.linalg.norm((back - features)[:, 0], axis=1) < ROUND_TRIP_PX
    if not good.any():
        return Motion(flow=float('inf'), overlap=0.0)
    flow = np.linalg.norm((there - features)[good, 0], axis=1)
    return Motion(flow=float(np.median(flow)) / width, overlap=float(good.mean()))


class KeyframeSelector:
    """Chooses the frames of one moving camera that make a pair with the keyframe before.

    A frame makes a pair when the image moved by at least `min_motion` and at most `max_motion` (fractions of the width)
    and at least `min_overlap` of the keyframe's features are still seen; it is then the next keyframe. A camera that
    stands still makes none. The pair is dropped and the frame becomes the keyframe when too much moved or when the
    keyframe is older than `max_age_s`: then the two images may show two states of the world.

    pairs: how many were made; dropped: how many were not, although the camera moved. reason: in words, why the last
    frame made a pair or none. motion: last measured, or None.
    """

    def __init__(self, min_motion: float = 0.03, max_motion: float = 0.35, min_overlap: float = 0.4,
                 max_age_s: float = 10.0):
        self._limits = min_motion, max_motion, min_overlap
        self._max_age_ns = round(max_age_s * 1e9)
        self._keyframe: View | None = None
        self.pairs = self.dropped = 0
        self.motion: Motion | None = None
        self.reason = 'no image yet'

    def offer(self, view: View) -> Pair | None:
        """A Pair (first: `view`, second: the keyframe before: the scene stands in the newest frame), or None."""
        before = self._keyframe
        self.motion = None
        if before is None:
            return self._restart(view, 'first image: waiting for motion')
        if before.image.shape != view.image.shape or before.frame != view.frame:
            return self._restart(view, 'the camera changed: starting again')
        age_ns = view.stamp_ns - before.stamp_ns
        if age_ns < 0:
            return self._restart(view, 'time went backwards: starting again')
        if len(self._features) < MIN_FEATURES:
            return self._restart(view, f'{len(self._features)} corners in the keyframe: too few to measure motion')
        self.motion = _track(self._features, self._gray, _gray(view.image))
        min_motion, max_motion, min_overlap = self._limits
        if self.motion.flow > max_motion or self.motion.overlap < min_overlap:
            self.dropped += 1
            return self._restart(view, 'too little of the keyframe is still seen: a new one')
        if age_ns > self._max_age_ns:
            self.dropped += self.motion.flow >= min_motion
            return self._restart(view, 'the keyframe is too old: a new one')
        if self.motion.flow < min_motion:
            self.reason = 'the image stands still'
            return None
        self._restart(view, 'pair')
        self.pairs += 1
        return Pair(first=view, second=before)

    def _restart(self, view: View, reason: str) -> None:
        self._keyframe, self.reason = view, reason
        self._gray = _gray(view.image)
        self._features = _features(self._gray)
