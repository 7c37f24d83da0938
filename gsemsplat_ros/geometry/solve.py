"""The one entry to the geometry of a pair: the prediction, corrected by measurements on the images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.geometry.flow import dense_matches
from gsemsplat_ros.geometry.matches import PairMatches
from gsemsplat_ros.geometry.pose import PairPose, focal_from_points, pair_pose
from gsemsplat_ros.geometry.rays import snap_to_rays
from gsemsplat_ros.geometry.refine import bend
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Fitted, Pair
from gsemsplat_ros.network.model import Prediction, ViewPrediction


@dataclass(frozen=True)
class Solved:
    """The geometry of a pair; (h, w) is the size of the network's output.

    camera, second_camera: of the two views at that size; prediction: in the network's unit; with calibrated
    cameras on their rays, and with depths corrected to the measured ones. first_from_second (4, 4): pose of
    the second camera in the frame of the first [m], None: not found; scale: metres per network unit;
    scale_source: 'stereo baseline', 'tf' or 'network' (the network's guess counts as metres); `inliers` of
    `points` measurements agree with scale or pose.
    """

    camera: Camera
    second_camera: Camera
    prediction: Prediction
    first_from_second: np.ndarray | None
    scale: float
    scale_source: str
    inliers: int
    points: int


def solve(
    pair: Pair, first: Fitted, second: Fitted, prediction: Prediction, matches: PairMatches | None
) -> Solved:
    """Cameras, pose, scale and corrected points of `pair`.

    first, second: its views as fitted to the network; matches: of the pair (`match_pair`), in pixels of its
    images. Without a camera of the first view the focal length is taken from the predicted points, and
    nothing is corrected; a second view without a camera takes the first's. Raises ValueError where no point
    lies in front of an unknown camera.
    """
    points, conf = _maps(prediction.first)
    points_second, conf_second = _maps(prediction.second)
    height, width = conf.shape
    known = first.view.camera
    camera = (
        known.resized(width, height)
        if known
        else Camera.centred(width, height, focal_from_points(points, conf))
    )
    second_camera = second.view.camera.resized(width, height) if second.view.camera else camera
    if matches is not None:
        matches = matches.on_grid(first.window, second.window, width, height)
    pose = pair_pose(pair, matches, points[..., 2], points_second, conf_second, second_camera)
    if known:
        small = _resized(first.view.image, width, height), _resized(second.view.image, width, height)
        if pose.matches is not None and pair.baseline_m is None:  # stereo matches are dense already
            pose = _by_flow(pose, pose.matches, points[..., 2], small[0], first, second)
        prediction = snap_to_rays(prediction, (camera, second_camera), pose, small)
    return Solved(
        camera,
        second_camera,
        prediction,
        pose.first_from_second,
        pose.scale,
        pose.scale_source,
        pose.inliers,
        pose.points,
    )


def _maps(view: ViewPrediction) -> tuple[np.ndarray, np.ndarray]:
    """Point map (h, w, 3) and confidence (h, w) of one view, on the CPU."""
    return view.pts3d[0].cpu().numpy(), view.conf[0].cpu().numpy()


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _by_flow(
    pose: PairPose, corners: PairMatches, depth: np.ndarray, small: np.ndarray, first: Fitted, second: Fitted
) -> PairPose:
    """`pose` by matches at every textured pixel instead of its own, `corners`; too few: unchanged.

    depth (h, w) and small (h, w, 3) uint8: the network's depth of the first view, and its image.
    """
    cameras = first.view.camera, second.view.camera
    assert cameras[0] is not None and cameras[1] is not None, 'matched views have cameras'
    factor = bend(depth, small, corners.uv_first, corners.z_first)  # by the corners, so that flow is short
    bent = depth if factor is None else depth * factor
    dense = dense_matches(corners, bent, (first.view.image, second.view.image), (cameras[0], cameras[1]))
    return pose if dense is None else pose.with_matches(dense, depth)
