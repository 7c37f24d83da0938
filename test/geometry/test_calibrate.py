"""The focal length of a pair: by its file, the network and the images, and which of them is believed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.patterned_box import CAMERA, moved, room_view

from gsemsplat_ros.geometry.calibrate import NETWORK_SPREAD, Observed, calibrated, self_calibrated
from gsemsplat_ros.geometry.matches import match_pair
from gsemsplat_ros.images.view import Pair, View, fit
from gsemsplat_ros.network.model import Prediction, ViewPrediction

TURNED = moved((0.9, 0.15, 0.3), -0.25)
CENTRED = replace(CAMERA, cx=159.5, cy=119.5)
FOCAL = CAMERA.fx


def observed(motion, exif=(None, None), blank=False):
    (first, depth), (second, _) = room_view(np.eye(4), CENTRED), room_view(motion, CENTRED)
    if blank:
        second = np.full_like(second, 90)
    views = [View(image, exif_focal=focal) for image, focal in zip((first, second), exif)]
    pair = Pair(*views)
    fitted = tuple(fit(view, 160, 120) for view in views)
    nothing = ViewPrediction(torch.empty(0), torch.empty(0))  # no descriptors
    return Observed(pair, match_pair(pair), Prediction(nothing, nothing), depth[::2, ::2] / 0.8, fitted)


@pytest.mark.parametrize('error', [0.8, 1.0, 1.25])
def test_the_images_correct_the_network(error):
    found = self_calibrated(observed(TURNED), error * FOCAL / 2)
    assert found.focal_source == 'images' and 0.02 <= found.focal_spread < 0.1
    for camera in found.cameras:
        assert camera.fx == camera.fy == pytest.approx(FOCAL, rel=0.06)
        assert (camera.width, camera.height, camera.cx, camera.cy) == (320, 240, 159.5, 119.5)
    direction = found.matches.first_from_second_rel[:3, 3] @ TURNED[:3, 3] / np.linalg.norm(TURNED[:3, 3])
    assert direction > np.cos(0.06)


def test_without_matches_the_network_is_believed_and_said_to_be_unsure():
    found = self_calibrated(observed(TURNED, blank=True), 0.9 * FOCAL / 2)
    assert (found.focal_source, found.focal_spread, found.matches) == ('network', NETWORK_SPREAD, None)
    assert found.cameras[0].fx == pytest.approx(0.9 * FOCAL)


def test_the_file_is_surer_than_the_network():
    alone = self_calibrated(observed(TURNED, (1.02 * FOCAL, None), blank=True), 0.8 * FOCAL / 2)
    assert (alone.focal_source, alone.focal_spread) == ('exif', 0.05)
    assert [camera.fx for camera in alone.cameras] == pytest.approx([1.02 * FOCAL] * 2)
    second = self_calibrated(observed(TURNED, (None, FOCAL), blank=True), 0.8 * FOCAL / 2)
    assert [camera.fx for camera in second.cameras] == pytest.approx([FOCAL] * 2)
    sideways = self_calibrated(observed(moved((0.4, 0, 0)), (1.02 * FOCAL, 1.02 * FOCAL)), 0.8 * FOCAL / 2)
    assert sideways.focal_source == 'exif' and sideways.cameras[0].fx == pytest.approx(1.02 * FOCAL, rel=0.02)
    assert sideways.matches is not None and sideways.focal_spread < 0.06


def test_a_wrong_file_is_outvoted():
    by_images = self_calibrated(observed(TURNED, (1.6 * FOCAL, 1.6 * FOCAL)), FOCAL / 2)
    assert by_images.focal_source == 'images'
    assert by_images.cameras[0].fx == pytest.approx(FOCAL, rel=0.05)
    by_network = self_calibrated(observed(TURNED, (2 * FOCAL, 2 * FOCAL), blank=True), 0.9 * FOCAL / 2)
    assert by_network.focal_source == 'network'
    assert by_network.cameras[0].fx == pytest.approx(0.9 * FOCAL)


def test_a_calibration_is_not_touched():
    other = replace(CENTRED, fx=1.02 * FOCAL)
    found = calibrated(observed(TURNED, (2 * FOCAL, None)), (CENTRED, other))
    assert found.cameras == (CENTRED, other)
    assert (found.focal_source, found.focal_spread) == ('calibration', 0.0)
    assert len(found.matches.z_first) > 50
