"""Camera geometry from point maps: focal length, relative pose, and the metric scale of a stereo pair.

A point map holds for each pixel its 3-D point in the frame of view 1 (OpenCV axes). Pixel centres lie at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.views.view import Camera, Pair

REPROJECTION_PX = 5.0      # PnP inlier threshold at 512 px width, as published (architecture notes 10)
MIN_INLIERS = 50           # fewer correspondences or disparities than this say nothing
RATIO_TOLERANCE = 0.25     # a disparity agrees with the scale when its depth lies within this fraction


@dataclass(frozen=True)
class RelativePose:
    """`first_from_second` (4, 4) rigid, unit of the point map; `inliers` of `points` correspondences agree."""

    first_from_second: np.ndarray
    inliers: int
    points: int


@dataclass(frozen=True)
class Scale:
    """Metres per unit of the point map; `inliers` of `points` measurements agree."""

    factor: float
    inliers: int
    points: int


@dataclass(frozen=True)
class Placed:
    """Where the second camera stands and how large the scene is.

    first_from_second (4, 4): translation in the network's unit; None: not found. scale: metres per such unit; source:
    'stereo baseline' or 'network'; `inliers` of `points` measurements agree with scale or pose.
    """

    first_from_second: np.ndarray | None
    scale: float
    source: str
    inliers: int
    points: int

    def in_metres(self) -> np.ndarray | None:
        """first_from_second with its translation in metres."""
        if self.first_from_second is None:
            return None
        pose = self.first_from_second.copy()
        pose[:3, 3] *= self.scale
        return pose


def pixel_grid(height: int, width: int) -> np.ndarray:
    """(H, W, 2) pixel centres (u, v)."""
    return np.stack(np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)), -1)


def focal_from_points(points: np.ndarray, conf: np.ndarray, iterations: int = 10) -> float:
    """Focal length [px] of the camera that sees its own point map (H, W, 3), principal point at the centre.

    Minimises the sum of pixel distances between f (x/z, y/z) and the pixels (Weiszfeld), over the more confident half.
    Raises ValueError when no point lies in front of the camera.
    """
    height, width = conf.shape
    keep = (points[..., 2] > 1e-6) & np.isfinite(points).all(-1)
    if not keep.any():
        raise ValueError('no point lies in front of the camera: the focal length of this image is unknown; '
                         'give its calibration (camera_info; --calibration) or show another scene')
    keep &= conf >= np.median(conf[keep])
    p = (pixel_grid(height, width) - ((width - 1) / 2, (height - 1) / 2))[keep]
    q = points[keep][:, :2] / points[keep][:, 2:]
    dots, squares = (q * p).sum(1), (q * q).sum(1)
    f = dots.mean() / squares.mean()
    for _ in range(iterations):
        weights = 1 / np.maximum(np.linalg.norm(p - f * q, axis=1), 1e-8)
        f = (weights * dots).sum() / (weights * squares).sum()
    if not f > 0:
        raise ValueError(f'the point map gives a focal length of {f:.1f} px: give the calibration (camera_info; --calibration)')
    return float(f)


def relative_pose(points: np.ndarray, conf: np.ndarray, camera: Camera) -> RelativePose | None:
    """Pose of view 2 from its points (H, W, 3) in the frame of view 1 and its own `camera` of the same size.

    RANSAC over the more confident half of a grid of pixels, SQPnP (Terzakis & Lourakis 2020). None: no consensus.
    """
    height, width = conf.shape
    assert (camera.height, camera.width) == (height, width), (camera, conf.shape)
    step = max(1, round(width / 64))
    grid = np.s_[step // 2::step, step // 2::step]
    pixels, points, conf = pixel_grid(height, width)[grid].reshape(-1, 2), points[grid].reshape(-1, 3), conf[grid].ravel()
    keep = (conf >= np.median(conf)) & np.isfinite(points).all(1)
    if keep.sum() < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)      # the same pair gives the same pose
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points[keep], pixels[keep], camera.K, None, iterationsCount=100,
        reprojectionError=REPROJECTION_PX * width / 512, flags=cv2.SOLVEPNP_SQPNP)
    if not found or inliers is None or len(inliers) < MIN_INLIERS:
        return None
    second_from_first = np.eye(4)
    second_from_first[:3, :3] = cv2.Rodrigues(rotation)[0]
    second_from_first[:3, 3] = translation[:, 0]
    return RelativePose(np.linalg.inv(second_from_first), len(inliers), int(keep.sum()))


def stereo_disparity(pair: Pair) -> np.ndarray:
    """Disparity (H, W) [px] of a rectified pair, NaN where the match fails its checks (semi-global matching)."""
    left, right = (cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY) for view in (pair.first, pair.second))
    count = max(16, left.shape[1] // 4 // 16 * 16)
    matcher = cv2.StereoSGBM_create(minDisparity=0, numDisparities=count, blockSize=5, P1=200, P2=800, disp12MaxDiff=1,
                                    uniquenessRatio=10, speckleWindowSize=100, speckleRange=2,
                                    mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY)
    disparity = matcher.compute(left, right).astype(np.float32) / 16
    return np.where(disparity >= 1, disparity, np.nan)


def stereo_scale(pair: Pair, depth: np.ndarray) -> Scale | None:
    """Metric scale of `depth` (h, w) of the first view from the baseline: the median of measured over predicted depth.

    `depth` may have a lower resolution than the images. None: too few matches (no texture, not rectified).
    """
    disparity = stereo_disparity(pair)
    height, width = disparity.shape
    step_y, step_x = height // depth.shape[0], width // depth.shape[1]
    disparity = disparity[step_y // 2::step_y, step_x // 2::step_x][:depth.shape[0], :depth.shape[1]]
    with np.errstate(invalid='ignore'):
        ratio = pair.first.camera.fx * pair.baseline_m / disparity / depth
    ratio = ratio[np.isfinite(ratio) & (depth > 0)]
    if len(ratio) < MIN_INLIERS:
        return None
    factor = float(np.median(ratio))
    return Scale(factor, int((np.abs(ratio / factor - 1) < RATIO_TOLERANCE).sum()), len(ratio))


def place(pair: Pair, points: np.ndarray, points_second: np.ndarray, conf_second: np.ndarray, camera: Camera) -> Placed:
    """Pose and scale of a pair from its point maps (h, w, 3); `camera` of the second view at that size.

    A rectified stereo pair knows its pose and takes its scale from the baseline; any other takes the pose from PnP and
    keeps the network's scale.
    """
    if pair.baseline_m is None:
        pose = relative_pose(points_second, conf_second, camera)
        return Placed(pose.first_from_second, 1.0, 'network', pose.inliers, pose.points) if pose else \
            Placed(None, 1.0, 'network', 0, 0)
    scale = stereo_scale(pair, points[..., 2]) or Scale(1.0, 0, 0)
    first_from_second = np.eye(4)
    first_from_second[0, 3] = pair.baseline_m / scale.factor
    return Placed(first_from_second, scale.factor, 'stereo baseline' if scale.points else 'network', scale.inliers,
                  scale.points)
