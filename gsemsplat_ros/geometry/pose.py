"""Camera geometry from point maps: focal length, relative pose, and the metric scale of a pair.

A point map: the 3-D point of each pixel in the frame of view 1. OpenCV axes, pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from gsemsplat_ros.geometry.matches import PairMatches
from gsemsplat_ros.geometry.refine import log_ratios
from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.images.view import Pair

REPROJECTION_PX = 5.0  # PnP inlier threshold at 512 px width, docs/published.md 43
MIN_INLIERS = 50  # with fewer correspondences there is no pose
MIN_SHARE = 0.5  # of the correspondences: a minority is not a consensus
MIN_CELLS = 20  # with fewer measured pixels there is no scale
RATIO_TOLERANCE = 0.25  # a measured depth agrees with the scale when it lies within this fraction
MIN_MOVED_M = 0.05  # after shorter motions odometry gives no scale
MAX_TURN_APART = np.deg2rad(10)  # odometry and visual motion disagree beyond this,
MAX_DIRECTION_APART = np.deg2rad(30)  # or beyond this angle between their directions


@dataclass(frozen=True)
class RelativePose:
    """`first_from_second_net` (4, 4) rigid, in network units; `inliers` of `points` correspondences agree."""

    first_from_second_net: np.ndarray
    inliers: int
    points: int


@dataclass(frozen=True)
class PairPose:
    """Pose of the second camera, and scale of the scene.

    first_from_second_net (4, 4): translation in the network's unit; None: not found. first_from_points_net:
    the same from the second point map alone. scale: metres per such unit; scale_source: 'stereo baseline',
    'tf' or 'network'; `inliers` of `points` measurements agree with scale or pose. matches: in the network's
    unit; None: too few.
    """

    first_from_second_net: np.ndarray | None = None
    first_from_points_net: np.ndarray | None = None
    scale: float = 1.0
    scale_source: str = 'network'
    inliers: int = 0
    points: int = 0
    matches: PairMatches | None = None

    @property
    def first_from_second(self) -> np.ndarray | None:
        """(4, 4) with its translation in metres, as far as `scale` is metric."""
        if self.first_from_second_net is None:
            return None
        pose = self.first_from_second_net.copy()
        pose[:3, 3] *= self.scale
        return pose

    def with_matches(self, matches: PairMatches, depth: np.ndarray) -> PairPose:
        """With other `matches`, roughly in the network's unit; `depth` (h, w) of the first view fixes the
        exact factor. Unchanged if too few agree with it.
        """
        factor, inliers, points = network_factor(matches, depth)
        if inliers < MIN_CELLS:
            return self
        matches = matches.scaled(factor)
        return replace(
            self,
            first_from_second_net=matches.first_from_second_rel,
            scale=self.scale / factor if self.scale_source == 'tf' else self.scale,  # keeps odometry's metres
            inliers=inliers,
            points=points,
            matches=matches,
        )


def focal_from_points(points: np.ndarray, conf: np.ndarray, iterations: int = 10) -> float:
    """Focal length [px] of the camera that sees its own point map (H, W, 3), principal point at the centre.

    Minimises the sum of pixel distances between f (x/z, y/z) and the pixels (docs/published.md 44), over the
    more confident half. Raises ValueError when no point lies in front of the camera.
    """
    height, width = conf.shape
    keep = (points[..., 2] > 1e-6) & np.isfinite(points).all(-1)
    if not keep.any():
        raise ValueError(
            'no point lies in front of the camera: the focal length of this image is unknown; '
            'give its calibration (camera_info; --calibration) or show another scene'
        )
    keep &= conf >= np.median(conf[keep])
    p = (pixel_grid(height, width) - ((width - 1) / 2, (height - 1) / 2))[keep]
    q = points[keep][:, :2] / points[keep][:, 2:]
    dots, squares = (q * p).sum(1), (q * q).sum(1)
    f = dots.mean() / squares.mean()
    for _ in range(iterations):
        weights = 1 / np.maximum(np.linalg.norm(p - f * q, axis=1), 1e-8)
        f = (weights * dots).sum() / (weights * squares).sum()
    if not f > 0:
        raise ValueError(
            f'the point map gives a focal length of {f:.1f} px: '
            'give the calibration (camera_info; --calibration)'
        )
    return float(f)


def relative_pose(points: np.ndarray, conf: np.ndarray, camera: Camera) -> RelativePose | None:
    """Pose of view 2 from its points (H, W, 3) in the frame of view 1 and its own `camera` of the same size.

    RANSAC with SQPnP (Terzakis & Lourakis 2020) on the more confident half of a grid. None: no consensus.
    """
    height, width = conf.shape
    assert (camera.height, camera.width) == (height, width), (camera, conf.shape)
    step = max(1, round(width / 64))
    grid = np.s_[step // 2 :: step, step // 2 :: step]
    pixels, points, conf = (
        pixel_grid(height, width)[grid].reshape(-1, 2),
        points[grid].reshape(-1, 3),
        conf[grid].ravel(),
    )
    keep = (conf >= np.median(conf)) & np.isfinite(points).all(1)
    if keep.sum() < MIN_INLIERS:
        return None
    found = camera_pose(points[keep], pixels[keep], camera, iterations=100)
    if found is None or len(found[1]) < max(MIN_INLIERS, MIN_SHARE * keep.sum()):
        return None
    return RelativePose(np.linalg.inv(found[0]), len(found[1]), int(keep.sum()))


def camera_pose(
    points: np.ndarray, pixels: np.ndarray, camera: Camera, iterations: int = 200
) -> tuple[np.ndarray, np.ndarray] | None:
    """camera_from_points (4, 4) of the `camera` that sees points (N, 3) at its pixels (N, 2), and the rows
    (M,) that agree with it; None: no pose. RANSAC with SQPnP (Terzakis & Lourakis 2020).
    """
    if len(points) < 4:
        return None
    cv2.setRNGSeed(0)  # the same points give the same pose
    try:
        found, rotation, translation, inliers = cv2.solvePnPRansac(
            points,
            pixels,
            camera.K,
            None,
            iterationsCount=iterations,
            reprojectionError=REPROJECTION_PX * camera.width / 512,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:  # it drew points that coincide
        return None
    if not found or inliers is None:
        return None
    return rigid(rotation, translation), inliers[:, 0]


def polished_pose(points: np.ndarray, pixels: np.ndarray, camera: Camera, pose: np.ndarray) -> np.ndarray:
    """`pose` (4, 4), camera_from_points, moved to where the pixels (N, 2) of the points (N, 3) fit best."""
    rotation, translation = cv2.solvePnPRefineLM(
        points, pixels, camera.K, None, cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3:].copy()
    )
    return rigid(rotation, translation)


def rigid(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The pose (4, 4) of OpenCV's rotation vector (3, 1) and translation (3, 1)."""
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(rotation)[0]
    pose[:3, 3] = translation[:, 0]
    return pose


def all_rigid(poses: np.ndarray, rounding: float = 1e-4) -> bool:
    """Whether each of poses (N, 4, 4) turns and moves, and does nothing else."""
    turns = poses[:, :3, :3]
    return bool(
        np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(initial=0) <= rounding
        and (np.linalg.det(turns) > 0).all()
        and (poses[:, 3] == (0, 0, 0, 1)).all()
    )


def depth_ratio(before: np.ndarray, after: np.ndarray) -> tuple[float, int]:
    """Median of before / after over depths (N,) of the same points, and how many agree; (nan, 0): none."""
    ahead = (before > 0) & (after > 0)  # false for NaN
    if not ahead.any():
        return float('nan'), 0
    ratios = before[ahead] / after[ahead]
    ratio = float(np.median(ratios))
    return ratio, int((np.abs(ratios / ratio - 1) < RATIO_TOLERANCE).sum())


def motion_scale(network: np.ndarray, metric: np.ndarray) -> float | None:
    """Metres per network unit from one motion (4, 4) measured twice: by the images, by odometry [m].

    None when the camera moved too little, or when the two disagree in rotation or direction.
    """
    way, metric_way = network[:3, 3], metric[:3, 3]
    length, metres = float(np.linalg.norm(way)), float(np.linalg.norm(metric_way))
    if metres < MIN_MOVED_M or not length > 0:
        return None
    turn = np.arccos(np.clip((np.trace(network[:3, :3].T @ metric[:3, :3]) - 1) / 2, -1, 1))
    direction = np.arccos(np.clip(way @ metric_way / (length * metres), -1, 1))
    return metres / length if turn <= MAX_TURN_APART and direction <= MAX_DIRECTION_APART else None


def pair_pose(
    pair: Pair,
    matches: PairMatches | None,
    depth: np.ndarray,
    points_second: np.ndarray,
    conf_second: np.ndarray,
    camera: Camera,
) -> PairPose:
    """Pose and scale of a pair from its prediction and from its `matches` on the same grid.

    depth (h, w) of the first view, point map (h, w, 3) of the second in the frame of the first, and its
    confidence (h, w); `camera` of the second view at that size. A rectified stereo pair has a known pose and
    takes its scale from the disparities. Any other pair takes the pose from its matches, or else from PnP on
    the second point map, and the scale from the known motion of the camera, else the network's. Raises
    ValueError for a stereo pair whose disparities agree with no scale.
    """
    factor, inliers, points = (0.0, 0, 0) if matches is None else network_factor(matches, depth)
    matches = matches.scaled(factor) if matches is not None and inliers >= MIN_CELLS else None
    if pair.baseline_m is not None:
        if matches is None:
            raise ValueError(
                f'{inliers} of {points} disparities agree with the depths of the network: wanted at least '
                f'{MIN_CELLS}; is the calibration that of these images?'
            )
        pose = matches.first_from_second_rel
        return PairPose(pose, pose, 1 / factor, 'stereo baseline', inliers, points, matches)
    by_points = relative_pose(points_second, conf_second, camera)
    if matches is not None:
        pose = matches.first_from_second_rel
    elif by_points is not None:
        pose, inliers, points = by_points.first_from_second_net, by_points.inliers, by_points.points
    else:
        return PairPose()
    scale = None if pair.first_from_second is None else motion_scale(pose, pair.first_from_second)
    return PairPose(
        pose,
        pose if by_points is None else by_points.first_from_second_net,
        1.0 if scale is None else scale,
        'network' if scale is None else 'tf',
        inliers,
        points,
        matches,
    )


def network_factor(matches: PairMatches, depth: np.ndarray) -> tuple[float, int, int]:
    """Network units per unit of the matches, how many pixels agree with it, and how many were measured.

    depth (h, w): of the first view; the factor is the median over its measured pixels.
    """
    logs, count = log_ratios(depth, matches.uv_first, matches.z_first)
    logs = logs[count > 0]
    if not len(logs):
        return 0.0, 0, 0
    middle = float(np.median(logs))
    return float(np.exp(-middle)), int((np.abs(logs - middle) < RATIO_TOLERANCE).sum()), len(logs)
