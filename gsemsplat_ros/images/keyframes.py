"""Which two images make a pair: stereo images by their stamps, keyframes of one camera by what moved between
them; and whether a stereo pair shows anything new."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.images.view import Pair, View

FLOW_SIDE = 320  # optical flow is measured on a gray image whose longer side has this many pixels
MAX_FEATURES = 200
MIN_FEATURES = 20  # fewer corners than this say nothing about motion
ROUND_TRIP_PX = 1.0  # a feature is tracked when forward and backward flow agree to this many pixels
STILL = 'the image stands still'


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
