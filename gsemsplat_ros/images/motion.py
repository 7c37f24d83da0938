"""Image motion between two views, by corners tracked with optical flow (Lucas & Kanade 1981)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.images.view import View

FLOW_SIDE = 320  # optical flow is measured on a gray image whose longer side has this many pixels
MAX_CORNERS = 200
MIN_CORNERS = 20  # with fewer corners motion is not measured
ROUND_TRIP_PX = 1.0  # a corner is tracked when forward and backward flow agree to this many pixels


@dataclass(frozen=True)
class Motion:
    """Between two images: median optical flow as a fraction of the width; tracked part of the corners."""

    flow: float
    overlap: float


@dataclass(frozen=True)
class TrackedView:
    """A view from which motion is measured: gray (h, w) uint8, FLOW_SIDE px on its longer side, and corners
    (N, 1, 2) float32 [px] in it; N may be 0.
    """

    view: View
    gray: np.ndarray
    corners: np.ndarray

    @classmethod
    def of(cls, view: View) -> TrackedView:
        """Finds the corners of `view`."""
        gray = small_gray(view.image)
        corners = cv2.goodFeaturesToTrack(gray, MAX_CORNERS, qualityLevel=0.01, minDistance=7)
        if corners is None:
            corners = np.zeros(0)
        return cls(view, gray, np.asarray(corners, np.float32).reshape(-1, 1, 2))

    def same_camera(self, view: View) -> bool:
        """Whether `view` has the same size and frame."""
        return self.view.image.shape == view.image.shape and self.view.frame == view.frame

    def motion_to(self, gray: np.ndarray) -> Motion | None:
        """Motion to another image, `gray` (h, w) from `small_gray`; None: fewer than MIN_CORNERS corners."""
        if len(self.corners) < MIN_CORNERS:
            return None
        there, seen = _follow(self.gray, gray, self.corners)
        back, seen_back = _follow(gray, self.gray, there)
        height, width = gray.shape
        x, y = there[:, 0, 0], there[:, 0, 1]
        good = seen & seen_back & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        good &= np.linalg.norm((back - self.corners)[:, 0], axis=1) < ROUND_TRIP_PX
        if not good.any():
            return Motion(flow=float('inf'), overlap=0.0)
        flow = np.linalg.norm((there - self.corners)[good, 0], axis=1)
        return Motion(flow=float(np.median(flow)) / width, overlap=float(good.mean()))


def small_gray(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to gray (h, w) uint8, FLOW_SIDE pixels on its longer side."""
    height, width = image.shape[:2]
    factor = FLOW_SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def _follow(before: np.ndarray, after: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where corners (N, 1, 2) of one gray image lie in another, and which (N,) bool were found there."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(21, 21), maxLevel=4)
    return there, found.ravel() == 1
