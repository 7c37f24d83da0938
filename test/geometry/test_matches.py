"""Motion and depth from two images alone, and the network's depth bent to them, in a box of known
geometry.
"""

import numpy as np
import pytest
from support.patterned_box import CAMERA, at, moved, room_view

from gsemsplat_ros.geometry.epipolar import triangulate
from gsemsplat_ros.geometry.matches import match_stereo
from gsemsplat_ros.geometry.refine import _smooth_rows, bend, log_ratios
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View, fit


@pytest.mark.parametrize('offset', [0.0, 12.0])
def test_depths_of_a_rectified_pair(offset):
    right = Camera(
        320, 240, 250.0, 250.0, 160.0 + offset, 118.0
    )  # principal points may differ (Middlebury's doffs)
    (left_image, depth1), (right_image, depth2) = room_view(np.eye(4)), room_view(moved((0.12, 0, 0)), right)
    found = match_stereo(Pair(View(left_image, CAMERA), View(right_image, right), 0.12))
    assert len(found.z_first) > 0.5 * depth1.size
    for z, depth, uv in ((found.z_first, depth1, found.uv_first), (found.z_second, depth2, found.uv_second)):
        assert np.median(np.abs(z / at(depth, uv) - 1)) < 0.025
    np.testing.assert_array_equal(found.first_from_second_rel, moved((0.12, 0, 0)))
    blank = View(np.zeros_like(left_image), CAMERA)
    with pytest.raises(ValueError, match='one and the same image'):
        match_stereo(Pair(blank, blank, 0.12))


def test_the_left_edge_is_measured_as_far_as_the_right_image_shows_it():
    (left_image, depth), (right_image, _) = room_view(np.eye(4)), room_view(moved((0.12, 0, 0)))
    found = match_stereo(Pair(View(left_image, CAMERA), View(right_image, CAMERA), 0.12))
    edge = found.uv_first[:, 0] < 80  # the range of disparities: a quarter of the width
    shown = np.arange(80) >= CAMERA.fx * 0.12 / depth[:, :80]
    assert edge.sum() > 0.95 * shown.sum() and found.uv_second[:, 0].min() >= 0
    errors = found.z_first[edge] / at(depth, found.uv_first[edge]) - 1
    assert np.median(np.abs(errors)) < 0.025 and np.quantile(np.abs(errors), 0.9) < 0.06


def test_measurements_follow_the_window_and_the_unit():
    image, _ = room_view(np.eye(4))
    pair = Pair(View(image, CAMERA), View(room_view(moved((0.12, 0, 0)))[0], CAMERA), 0.12)
    windows = [
        fit(view, 160, 96)[1] for view in (pair.first, pair.second)
    ]  # half the size, top and bottom cut
    found = match_stereo(pair)
    small = found.on_grid(*windows, 80, 48).scaled(2.0)
    np.testing.assert_allclose(small.uv_first[:, 0], (found.uv_first[:, 0] + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(small.uv_first[:, 1], (found.uv_first[:, 1] - 24 + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(small.z_first, 2 * found.z_first)
    assert small.first_from_second_rel[0, 3] == pytest.approx(0.24)


def test_triangulation_of_known_points():
    points = np.array([[0.3, 0.2, 2.0], [-0.5, 0.1, 3.0]])
    pose = moved((0.4, 0.1, -0.2), 0.2)
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    z1, z2, angle = triangulate(points / points[:, 2:], local / local[:, 2:], pose)
    np.testing.assert_allclose(z1, points[:, 2])
    np.testing.assert_allclose(z2, local[:, 2])
    eye = points - pose[:3, 3]
    cosine = (points * eye).sum(1) / np.linalg.norm(points, axis=1) / np.linalg.norm(eye, axis=1)
    np.testing.assert_allclose(angle, np.arccos(cosine), atol=1e-6)


def test_smoothing_solves_the_plain_system():
    rng = np.random.default_rng(0)
    x, link = rng.normal(size=(2, 3, 9)), rng.uniform(0, 1, (3, 9))
    expected = x.copy()
    for i in range(3):
        laplacian = np.zeros((9, 9))
        for j in range(8):
            laplacian[np.ix_([j, j + 1], [j, j + 1])] += link[i, j] * np.array([[1, -1], [-1, 1]])
        expected[:, i] = np.linalg.solve(np.eye(9) + 7.0 * laplacian, x[:, i].T).T
    _smooth_rows(x, link, 7.0)
    np.testing.assert_allclose(x, expected, atol=1e-12)


def test_depth_is_bent_surface_by_surface():
    """Two walls, each too far by a factor of its own; every twentieth pixel is measured, and some are quite
    wrong.
    """
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(64) < 30, 2.0, 3.0) * np.ones((48, 1))
    image = np.repeat(np.where(truth == 2.0, 90, 160).astype(np.uint8)[..., None], 3, 2)
    depth = truth * np.where(truth == 2.0, 1.3, 0.8)
    v, u = (x.ravel() for x in np.mgrid[:48, :64])
    drawn = rng.random(len(u)) < 0.05
    uv, z = np.stack((u, v), -1)[drawn].astype(float), truth[v, u][drawn]
    z[rng.random(len(z)) < 0.1] *= 9
    bent = depth * bend(depth, image, uv, z)
    assert np.abs(bent / truth - 1).mean() < 0.03 < 0.2 < np.abs(depth / truth - 1).mean()
    assert bend(depth, image, uv, z * np.exp(rng.normal(0, 9, len(z)))) is None  # another scene
    assert bend(depth, image, np.full((3, 2), 999.0), np.ones(3)) is None


def test_ratios_fall_on_their_pixels():
    logs, count = log_ratios(
        np.full((2, 3), 2.0),
        np.array([[0.2, 0.1], [-0.4, 0.4], [2.4, 1.2], [2.6, 0], [1, 1]]),
        np.array([2.0, 8.0, 1.0, 1.0, -1.0]),
    )
    np.testing.assert_array_equal(count, [[2, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(logs, [[np.log(2.0), 0, 0], [0, 0, np.log(0.5)]])
