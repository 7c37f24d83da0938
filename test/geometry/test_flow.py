"""Dense matches by flow, from a motion and depths that are somewhat wrong, in a box of known geometry."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.patterned_box import CAMERA, at, moved, room_view

from gsemsplat_ros.geometry.features import matched_pixels
from gsemsplat_ros.geometry.flow import dense_matches, flow_matches, project
from gsemsplat_ros.geometry.motion import find_motion
from gsemsplat_ros.geometry.pose import PairPose, network_factor
from gsemsplat_ros.geometry.refine import bend
from gsemsplat_ros.images.view import View, fit

TRUTH = moved((0.3, -0.05, 0.1), 0.1)
SIZE = (160, 120)  # of the network's depths
CAMERAS = CAMERA, CAMERA


def views():
    (image1, depth1), (image2, depth2) = room_view(np.eye(4)), room_view(TRUTH)
    return (image1, image2), depth1, depth2


def wrong(depth):
    """Depths as a network has them: waves of 8 %, and all too near."""
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    return (
        cv2.resize(depth, SIZE, interpolation=cv2.INTER_AREA)
        * 0.9
        * (1 + 0.08 * np.sin(u / 20) * np.cos(v / 15))
    )


def corner_matches(images, depth):
    """Matches of corners in the unit of `depth`, and on its grid."""
    window = fit(View(images[0]), *SIZE).window
    corners = find_motion(matched_pixels(*images), CAMERAS, depth, window).matches
    half = [(uv + 0.5) / 2 - 0.5 for uv in (corners.uv_first, corners.uv_second)]
    corners = replace(corners, uv_first=half[0], uv_second=half[1])
    return corners.scaled(network_factor(corners, depth)[0])


def direction_error(pose):
    a, b = pose[:3, 3], TRUTH[:3, 3]
    return np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


def test_textured_pixels_are_measured_and_the_motion_gets_better():
    images, depth1, depth2 = views()
    depth = wrong(depth1)
    corners = corner_matches(images, depth)
    small = cv2.resize(images[0], SIZE, interpolation=cv2.INTER_AREA)
    dense = dense_matches(
        corners, depth * bend(depth, small, corners.uv_first, corners.z_first), images, CAMERAS
    )
    assert len(dense.z_first) > 5 * len(corners.z_first)
    before, after = corners.first_from_second_rel, dense.first_from_second_rel
    assert np.linalg.norm(after[:3, 3]) == pytest.approx(np.linalg.norm(before[:3, 3]), rel=1e-12)
    unit = np.linalg.norm(TRUTH[:3, 3]) / np.linalg.norm(after[:3, 3])  # metres
    for z, truth, uv in ((dense.z_first, depth1, dense.uv_first), (dense.z_second, depth2, dense.uv_second)):
        assert np.median(np.abs(z * unit / at(truth, 2 * uv + 0.5) - 1)) < 0.015
    assert direction_error(after) < min(1.5, direction_error(before) + 0.3)


@pytest.mark.parametrize('source', ['network', 'tf'])
def test_other_matches_fix_the_unit_anew(source):
    images, depth1, _ = views()
    depth = wrong(depth1)
    corners = corner_matches(images, depth)
    metres = np.linalg.norm(TRUTH[:3, 3]) / np.linalg.norm(corners.first_from_second_rel[:3, 3])
    before = PairPose(
        corners.first_from_second_rel, None, metres if source == 'tf' else 1.0, source, 9, 9, corners
    )
    after = before.with_matches(corners.scaled(1.1), depth)
    assert np.median(after.matches.z_first / at(depth, corners.uv_first)) == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(after.first_from_second_net, after.matches.first_from_second_rel)
    assert after.points > 100 and after.inliers <= after.points
    grown = 1.1 if source == 'tf' else 1.0  # the matches are told to be 1.1 times as far apart, in metres too
    np.testing.assert_allclose(
        after.first_from_second[:3, 3], grown * before.first_from_second[:3, 3], rtol=0.02
    )
    few = replace(corners, uv_first=corners.uv_first[:9], z_first=corners.z_first[:9])
    assert before.with_matches(few, depth) is before


def test_without_texture_there_are_none():
    images, depth1, _ = views()
    blank = np.full_like(images[0], 90)
    assert (
        dense_matches(corner_matches(images, wrong(depth1)), wrong(depth1), (blank, blank), CAMERAS) is None
    )


def test_what_the_second_camera_cannot_see_is_not_matched():
    images, depth1, _ = views()
    uv, inside = project(depth1, CAMERA, CAMERA, TRUTH)
    assert 0.5 < inside.mean() < 0.95 and (uv[inside] > 0).all()
    behind = moved((0.0, 0.0, 9.0))  # all points lie behind the second camera
    assert not project(depth1, CAMERA, CAMERA, behind)[1].any()
    uv1, uv2 = flow_matches(depth1, images, CAMERAS, TRUTH)
    expected = uv[tuple(np.rint(uv1).astype(int).T[::-1])]
    assert inside[tuple(np.rint(uv1).astype(int).T[::-1])].all() and len(uv1) > 3000
    assert np.median(np.linalg.norm(uv2 - expected, axis=1)) < 0.2
    assert (np.linalg.norm(uv1 % 2 - 1, axis=1) == 0).all()
