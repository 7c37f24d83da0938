"""Dense matches by flow, from a motion and depths that are somewhat wrong, in a box of known geometry."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.patterned_box import CAMERA, at, moved, room_view

from gsemsplat_ros.geometry.flow import flow_matches, follow, project
from gsemsplat_ros.geometry.matches import measure
from gsemsplat_ros.geometry.pose import Placed, network_factor
from gsemsplat_ros.images.view import Pair, View

TRUTH = moved((0.3, -0.05, 0.1), 0.1)
SIZE = (160, 120)  # of the network's depths


def views():
    (image1, depth1), (image2, depth2) = room_view(np.eye(4)), room_view(TRUTH)
    return View(image1, CAMERA), View(image2, CAMERA), depth1, depth2


def wrong(depth):
    """Depths as a network has them: waves of 8 %, and all too near."""
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    return (
        cv2.resize(depth, SIZE, interpolation=cv2.INTER_AREA)
        * 0.9
        * (1 + 0.08 * np.sin(u / 20) * np.cos(v / 15))
    )


def placed_by_corners(first, second, depth, source='network'):
    corners = measure(Pair(first, second))
    half = [(uv + 0.5) / 2 - 0.5 for uv in (corners.uv_first, corners.uv_second)]
    corners = replace(corners, uv_first=half[0], uv_second=half[1])
    corners = corners.scaled(network_factor(corners, depth)[0])
    scale = np.linalg.norm(TRUTH[:3, 3]) / np.linalg.norm(corners.first_from_second[:3, 3])
    return Placed(corners.first_from_second, None, scale if source == 'tf' else 1.0, source, 9, 9, corners)


def direction_error(pose):
    a, b = pose[:3, 3], TRUTH[:3, 3]
    return np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


@pytest.mark.parametrize('source', ['network', 'tf'])
def test_textured_pixels_are_measured_and_the_motion_gets_better(source):
    first, second, depth1, depth2 = views()
    depth = wrong(depth1)
    before = placed_by_corners(first, second, depth, source)
    after = follow(before, depth, first, second)
    m = after.measured
    assert len(m.z_first) > 5 * len(before.measured.z_first) and after.points > 5000
    unit = 1 / np.linalg.norm(m.first_from_second[:3, 3]) * np.linalg.norm(TRUTH[:3, 3])  # metres
    for z, truth, uv in ((m.z_first, depth1, m.uv_first), (m.z_second, depth2, m.uv_second)):
        assert np.median(np.abs(z * unit / at(truth, 2 * uv + 0.5) - 1)) < 0.015
    assert direction_error(m.first_from_second) < min(1.5, direction_error(before.first_from_second) + 0.3)
    np.testing.assert_array_equal(after.first_from_second, m.first_from_second)
    assert np.median(m.z_first / at(depth, m.uv_first)) == pytest.approx(1, abs=0.02)  # in the network's unit
    assert np.linalg.norm(after.in_metres()[:3, 3]) == pytest.approx(
        np.linalg.norm(before.in_metres()[:3, 3]), rel=1e-6 if source == 'tf' else 0.2
    )


def test_without_texture_the_corners_stay():
    first, second, depth1, _ = views()
    placed = placed_by_corners(first, second, wrong(depth1))
    blank = np.full_like(first.image, 90)
    assert follow(placed, wrong(depth1), replace(first, image=blank), replace(second, image=blank)) is placed


def test_what_the_second_camera_cannot_see_is_not_matched():
    first, second, depth1, _ = views()
    uv, inside = project(depth1, CAMERA, CAMERA, TRUTH)
    assert 0.5 < inside.mean() < 0.95 and (uv[inside] > 0).all()
    behind = moved((0.0, 0.0, 9.0))  # all points lie behind the second camera
    assert not project(depth1, CAMERA, CAMERA, behind)[1].any()
    uv1, uv2 = flow_matches(depth1, first, second, TRUTH)
    expected = uv[tuple(np.rint(uv1).astype(int).T[::-1])]
    assert inside[tuple(np.rint(uv1).astype(int).T[::-1])].all() and len(uv1) > 3000
    assert np.median(np.linalg.norm(uv2 - expected, axis=1)) < 0.2
    assert (np.linalg.norm(uv1 % 2 - 1, axis=1) == 0).all()
