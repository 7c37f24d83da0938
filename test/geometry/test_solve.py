"""The geometry of a pair as a whole: its cameras, pose and scale, and what becomes of the points."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.patterned_box import CAMERA, moved, room_view

from gsemsplat_ros.geometry.matches import match_pair
from gsemsplat_ros.geometry.solve import solve
from gsemsplat_ros.images.view import Pair, View, fit
from gsemsplat_ros.network.model import Prediction, ViewPrediction

MOTION = moved((0.3, -0.05, 0.1), 0.1)
BASELINE = moved((0.12, 0, 0))
SMALL = CAMERA.resized(160, 120)
UNIT = 0.8  # metres of the network's unit


def predicted(depth, pose, focal_error=1.0):
    """A view's points as the network has them, in its unit, with rays of a focal length that is wrong."""
    small = cv2.resize(depth, (160, 120), interpolation=cv2.INTER_AREA)
    camera = replace(SMALL, fx=SMALL.fx * focal_error, fy=SMALL.fy * focal_error)
    points = (camera.unproject(small) @ pose[:3, :3].T + pose[:3, 3]) / UNIT
    tensor = torch.from_numpy(points).float()[None]
    return ViewPrediction(
        tensor, torch.ones(tensor.shape[:3]), means=tensor.clone(), scales=torch.full_like(tensor, 0.01)
    )


def solved(motion, baseline_m=None, calibrated=(True, True), tf=False, focal_error=1.0, as_published=False):
    (image1, depth1), (image2, depth2) = room_view(np.eye(4)), room_view(motion)
    first, second = (View(x, CAMERA if known else None) for x, known in zip((image1, image2), calibrated))
    if tf:
        first, second = replace(first, map_from_camera=np.eye(4)), replace(second, map_from_camera=motion)
    pair = Pair(first, second, baseline_m)
    prediction = Prediction(predicted(depth1, np.eye(4), focal_error), predicted(depth2, motion, focal_error))
    fitted = fit(first, CAMERA.width, CAMERA.height), fit(second, CAMERA.width, CAMERA.height)
    return solve(pair, *fitted, prediction, match_pair(pair), as_published), prediction, depth1


def test_a_rectified_pair_is_in_metres():
    result, _, depth = solved(BASELINE, 0.12, focal_error=1.1)
    assert result.scale_source == 'stereo baseline' and result.inliers > 0.9 * result.points > 1000
    assert result.scale == pytest.approx(UNIT, rel=0.02)
    np.testing.assert_allclose(result.first_from_second, BASELINE, atol=1e-9)
    assert result.camera == result.second_camera == SMALL
    points = result.prediction.first.pts3d[0].numpy() * result.scale
    uv, in_front = SMALL.project(points)
    assert in_front.all()
    np.testing.assert_allclose(uv, SMALL.project(SMALL.unproject(np.ones((120, 160))))[0], atol=1e-3)
    true = cv2.resize(depth, (160, 120), interpolation=cv2.INTER_AREA)
    assert np.median(np.abs(points[..., 2] / true - 1)) < 0.015


@pytest.mark.parametrize('tf', [False, True])
def test_a_moving_camera_has_its_scale_from_odometry(tf):
    result, _, _ = solved(MOTION, tf=tf)
    assert result.scale_source == ('tf' if tf else 'network')
    assert result.scale == pytest.approx(UNIT if tf else 1.0, rel=0.02)
    assert result.points > 5000  # dense, by flow
    np.testing.assert_allclose(result.first_from_second[:3, :3], MOTION[:3, :3], atol=0.01)
    metres = 1.0 if tf else 1 / UNIT
    np.testing.assert_allclose(result.first_from_second[:3, 3], metres * MOTION[:3, 3], atol=0.02)


def test_without_calibration_the_images_tell_camera_and_pose_and_bend_the_points():
    turned = moved((0.9, 0.1, 0.3), -0.25)
    result, _, depth = solved(turned, calibrated=(False, False), focal_error=0.85)
    assert result.focal_source == 'images' and 0 < result.focal_spread < 0.1
    assert result.camera.fx == result.camera.fy == pytest.approx(SMALL.fx, rel=0.04)
    assert (result.camera.cx, result.camera.cy) == (79.5, 59.5)
    assert result.second_camera == result.camera and result.points > 1000
    assert result.scale_source == 'network' and result.scale == 1.0
    np.testing.assert_allclose(result.first_from_second[:3, :3], turned[:3, :3], atol=0.03)
    np.testing.assert_allclose(result.first_from_second[:3, 3], turned[:3, 3] / UNIT, atol=0.06)
    true = cv2.resize(depth, (160, 120), interpolation=cv2.INTER_AREA) / UNIT
    points = result.prediction.first.pts3d[0].numpy()
    assert np.median(np.abs(points[..., 2] / true - 1)) < 0.03
    uv, in_front = result.camera.project(points)
    assert in_front.all()
    np.testing.assert_allclose(uv, SMALL.project(SMALL.unproject(np.ones((120, 160))))[0], atol=1)


def test_as_published_the_points_of_an_uncalibrated_pair_stay():
    result, prediction, _ = solved(MOTION, calibrated=(False, False), as_published=True)
    assert result.prediction is prediction and result.points > 1000
    np.testing.assert_allclose(result.first_from_second[:3, 3], MOTION[:3, 3] / UNIT, atol=0.05)
    known, prediction, _ = solved(MOTION, as_published=True)
    assert known.prediction is not prediction and known.focal_source == 'calibration'


def test_what_nobody_measured_stays_as_predicted():
    result, prediction, _ = solved(moved((0, 0, 0), 0.1), calibrated=(False, False))  # no parallax
    assert result.prediction is prediction and result.focal_source == 'network'
    assert result.camera.fx == pytest.approx(SMALL.fx, rel=0.02) and result.focal_spread == 0.2


@pytest.mark.parametrize('known', [(True, False), (False, True)])
def test_a_view_without_a_camera_has_the_other_ones(known):
    result, prediction, _ = solved(MOTION, calibrated=known)
    assert result.second_camera == result.camera == SMALL
    assert (result.focal_source, result.focal_spread) == ('calibration', 0.0)
    assert result.prediction is not prediction and result.points > 5000
    np.testing.assert_allclose(result.first_from_second[:3, 3], MOTION[:3, 3] / UNIT, atol=0.02)
