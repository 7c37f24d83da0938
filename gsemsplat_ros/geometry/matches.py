"""What the images of a pair tell alone, without the network: matched pixels, and depths of stereo pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from gsemsplat_ros.geometry.features import Alike, gray, matched_pixels
from gsemsplat_ros.geometry.rectified import contradiction
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.images.window import Window

MIN_COLUMNS = 16  # that can be matched, of an image: with none left, OpenCV's matcher writes out of bounds


@dataclass(frozen=True)
class PairMatches:
    """Pixels of both views that show the same points, and the motion and depths that follow from them, all in
    one unit: metres for a rectified stereo pair, else the distance between the cameras, until `scaled`.

    first_from_second_rel (4, 4): rigid, translation in that unit; uv_first, uv_second (N, 2) [px]; z_first,
    z_second (N,): depth of the matched points in each view, in that unit.
    """

    first_from_second_rel: np.ndarray
    uv_first: np.ndarray
    uv_second: np.ndarray
    z_first: np.ndarray
    z_second: np.ndarray

    def scaled(self, factor: float) -> PairMatches:
        """The same in another unit: lengths times `factor`."""
        pose = self.first_from_second_rel.copy()
        pose[:3, 3] *= factor
        return replace(
            self, first_from_second_rel=pose, z_first=self.z_first * factor, z_second=self.z_second * factor
        )

    def on_grid(self, first: Window, second: Window, width: int, height: int) -> PairMatches:
        """The same with pixels of maps of `width` x `height` over the windows of the two views."""
        uv = [
            (window.to_network(x) + 0.5) * (width / window.width, height / window.height) - 0.5
            for window, x in ((first, self.uv_first), (second, self.uv_second))
        ]
        return replace(self, uv_first=uv[0], uv_second=uv[1])


def match_pair(pair: Pair) -> PairMatches | Alike:
    """The depths of a rectified pair; of any other pair, pixels that look alike.

    Raises ValueError for images that are no rectified pair though they are said to be one.
    """
    return (
        matched_pixels(pair.first.image, pair.second.image) if pair.baseline_m is None else match_stereo(pair)
    )


def disparity(left: np.ndarray, right: np.ndarray, smallest: int = 0) -> np.ndarray:
    """(H, W) float32 [px] of a rectified gray pair, > `smallest`; NaN where the match fails its checks
    (semi-global matching, Hirschmueller 2008), and everywhere if the range leaves no columns to match.
    """
    width = left.shape[1]
    count = max(16, width // 4 // 16 * 16)
    if width + min(smallest, 0) - max(smallest + count, 0) < MIN_COLUMNS:
        return np.full(left.shape, np.nan, np.float32)
    # OpenCV leaves out the columns whose range of matches does not lie in the right image as a whole
    missing = max(smallest + count, 0)
    wide = [cv2.copyMakeBorder(x, 0, 0, missing, 0, cv2.BORDER_REFLECT) for x in (left, right)]
    matcher = cv2.StereoSGBM_create(  # type: ignore[attr-defined]  # not in cv2's stubs
        minDisparity=smallest,
        numDisparities=count,
        blockSize=5,
        P1=200,
        P2=800,
        disp12MaxDiff=1,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    found = matcher.compute(*wide)[:, missing:].astype(np.float32) / 16
    return np.where((found >= smallest + 1) & (found <= np.arange(width)), found, np.nan)


def match_stereo(pair: Pair) -> PairMatches:
    """Depths [m] of a rectified pair from its disparities. Raises ValueError for images that are none."""
    assert pair.first.camera is not None and pair.baseline_m is not None, pair  # Pair has checked it
    (left, factor), (right, _) = gray(pair.first.image), gray(pair.second.image)
    height, width = left.shape
    camera = pair.first.camera.resized(width, height)
    # where the principal points differ, the disparity of infinity is not zero
    offset = 0.0 if pair.second.camera is None else pair.second.camera.resized(width, height).cx - camera.cx
    found = disparity(left, right, round(-offset))
    problem = contradiction(left, right, found, -offset, lambda: disparity(right, left, round(offset)))
    if problem:
        raise ValueError(problem)
    v, u = np.nonzero(np.isfinite(found))
    shift = found[v, u]
    pose = np.eye(4)
    pose[0, 3] = pair.baseline_m
    z = camera.depth_of(shift + offset, pair.baseline_m)

    def to_input(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (np.stack((x, y), -1) + 0.5) / factor - 0.5

    return PairMatches(pose, to_input(u, v), to_input(u - shift, v), z, z)
