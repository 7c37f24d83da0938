"""The one entry to the geometry of a pair: the prediction, corrected by measurements on the images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from gsemsplat_ros.device import download
from gsemsplat_ros.geometry.calibrate import Calibrated, Observed, calibrated, self_calibrated
from gsemsplat_ros.geometry.features import Alike
from gsemsplat_ros.geometry.flow import dense_matches
from gsemsplat_ros.geometry.matches import PairMatches
from gsemsplat_ros.geometry.pose import PairPose, focal_from_points, pair_pose
from gsemsplat_ros.geometry.rays import snap_to_rays
from gsemsplat_ros.geometry.refine import bend
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Fitted, Pair
from gsemsplat_ros.network.model import Prediction


@dataclass(frozen=True)
class Solved:
    """The geometry of a pair; (h, w) is the size of the network's output.

    camera, second_camera: of the two views at that size; focal_source: what tells their focal length,
    'calibration', 'exif', 'images' or 'network'; focal_spread: standard deviation of its logarithm, 0 for a
    calibration. prediction: in the network's unit; unless nothing was known or measured, on the rays of these
    cameras and with depths corrected to the measured ones. first_from_second (4, 4): pose of the second
    camera in the frame of the first [m], None: not found; scale: metres per network unit; scale_source:
    'stereo baseline', 'tf' or 'network' (the network's guess counts as metres); `inliers` of `points`
    measurements agree with scale or pose. measured (h, w) bool: pixels of the first view whose depth was.
    """

    camera: Camera
    second_camera: Camera
    focal_source: str
    focal_spread: float
    prediction: Prediction
    first_from_second: np.ndarray | None
    scale: float
    scale_source: str
    inliers: int
    points: int
    measured: np.ndarray


def solve(
    pair: Pair,
    first: Fitted,
    second: Fitted,
    prediction: Prediction,
    matches: PairMatches | Alike | None,
    as_published: bool = False,
) -> Solved:
    """Cameras, pose, scale and corrected points of `pair`.

    first, second: its views as fitted to the network; matches: what `match_pair` says of the pair. A view
    without a camera takes the other's. If neither has one, the focal length comes from file, network and
    images (calibrate.py), and then all goes as with a calibration; but as_published the points stay as
    predicted, with the pose beside. Raises ValueError where no point lies in front of an unknown camera.
    """
    tensors = [t for view in (prediction.first, prediction.second) for t in (view.pts3d, view.conf)]
    if prediction.first_from_second is not None:
        tensors.append(prediction.first_from_second)
    points, conf, points_second, conf_second, *first_from_points = (array[0] for array in download(tensors))
    height, width = conf.shape
    known = _cameras(pair, first, second, prediction, matches, points, conf)
    first, second = (
        fitted._replace(view=replace(fitted.view, camera=camera.in_window(fitted.window)))
        for fitted, camera in zip((first, second), known.cameras)
    )
    camera, second_camera = (
        camera.in_window(fitted.window).resized(width, height)
        for fitted, camera in zip((first, second), known.cameras)
    )
    measured = (
        None if known.matches is None else known.matches.on_grid(first.window, second.window, width, height)
    )
    pose = pair_pose(pair, measured, points[..., 2], points_second, conf_second, second_camera)
    if first_from_points:  # right or wrong, it is what turns the second view's points back into its depths
        pose = replace(pose, first_from_points_net=first_from_points[0].astype(float))
    small = _resized(first.view.image, width, height), _resized(second.view.image, width, height)
    if pose.matches is not None and pair.baseline_m is None:  # stereo matches are dense already
        pose = _by_flow(pose, pose.matches, points[..., 2], small[0], first, second)
    told = known.focal_source != 'network' or pose.matches is not None
    if known.focal_source == 'calibration' or (told and not as_published):
        prediction = snap_to_rays(prediction, (points, points_second), (camera, second_camera), pose, small)
    measured_pixels = np.zeros((height, width), np.uint8)
    if pose.matches is not None:
        (rows, columns), inside = camera.index(pose.matches.uv_first)
        measured_pixels[rows[inside], columns[inside]] = 1
        # a measurement in a coarse image covers several of these pixels
        measured_pixels = cv2.dilate(measured_pixels, np.ones((3, 3), np.uint8))
    return Solved(
        camera,
        second_camera,
        known.focal_source,
        known.focal_spread,
        prediction,
        pose.first_from_second,
        pose.scale,
        pose.scale_source,
        pose.inliers,
        pose.points,
        measured_pixels > 0,
    )


def _cameras(
    pair: Pair,
    first: Fitted,
    second: Fitted,
    prediction: Prediction,
    matches: PairMatches | Alike | None,
    points: np.ndarray,
    conf: np.ndarray,
) -> Calibrated:
    """Cameras and matches by what is given: the calibration of one view or both, or the images alone.

    points (h, w, 3), conf (h, w): of the first view.
    """
    own = pair.first.camera, pair.second.camera
    if not isinstance(matches, Alike):  # a rectified pair, which has its first camera
        assert own[0] is not None, pair
        return Calibrated((own[0], own[1] or _same_camera(first, second)), 'calibration', 0.0, matches)
    observed = Observed(pair, matches, prediction, points[..., 2], (first, second))
    if own[0] is None and own[1] is None:
        return self_calibrated(observed, focal_from_points(points, conf) * first.window.width / conf.shape[1])
    return calibrated(
        observed, (own[0] or _same_camera(second, first), own[1] or _same_camera(first, second))
    )


def _same_camera(known: Fitted, other: Fitted) -> Camera:
    """The camera of the `other` input image whose fitted image has that of the known one."""
    assert known.view.camera is not None, known
    return known.view.camera.around_window(other.window)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _by_flow(
    pose: PairPose, corners: PairMatches, depth: np.ndarray, small: np.ndarray, first: Fitted, second: Fitted
) -> PairPose:
    """`pose` by matches at every textured pixel instead of its own, `corners`; too few: unchanged.

    depth (h, w) and small (h, w, 3) uint8: the network's depth of the first view, and its image.
    """
    cameras = first.view.camera, second.view.camera
    assert cameras[0] is not None and cameras[1] is not None, 'solve has given cameras to both views'
    factor = bend(depth, small, corners.uv_first, corners.z_first)  # by the corners, so that flow is short
    bent = depth if factor is None else depth * factor
    dense = dense_matches(corners, bent, (first.view.image, second.view.image), (cameras[0], cameras[1]))
    return pose if dense is None else pose.with_matches(dense, depth)
