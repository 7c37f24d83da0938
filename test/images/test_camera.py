"""The pinhole camera against its formulas written out."""

import numpy as np
import pytest

from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.images.view import View, fit

CAMERA = Camera(64, 48, 50.0, 40.0, 31.0, 24.5)


def test_points_become_pixels():
    points = np.array([[0.0, 0.0, 2.0], [1.0, -0.5, 2.0], [0.3, 0.2, -1.0], [0.3, 0.2, 0.0]])
    uv, in_front = CAMERA.project(points)
    np.testing.assert_array_equal(uv[:2], [[31.0, 24.5], [50 * 1.0 / 2 + 31, 40 * -0.5 / 2 + 24.5]])
    np.testing.assert_array_equal(in_front, [True, True, False, False])
    assert np.isfinite(uv).all()
    homogeneous = points[1] @ CAMERA.K.T
    np.testing.assert_allclose(uv[1], homogeneous[:2] / homogeneous[2])
    np.testing.assert_array_equal(CAMERA.project(points, near=2.0)[1], [False] * 4)
    assert CAMERA.project(points.astype(np.float32))[0].dtype == np.float32
    assert not CAMERA.in_image(CAMERA.project(np.array([np.nan, 0, 1.0]))[0])


def test_pixels_become_rays_and_points():
    np.testing.assert_array_equal(
        CAMERA.rays(np.array([[31.0, 24.5], [41.0, 4.5]])), [[0, 0, 1], [0.2, -0.5, 1]]
    )
    depth = np.random.default_rng(0).uniform(1, 5, (48, 64))
    points = CAMERA.unproject(depth)
    np.testing.assert_allclose(
        points[7, 11], ((11 - 31) / 50 * depth[7, 11], (7 - 24.5) / 40 * depth[7, 11], depth[7, 11])
    )
    uv, in_front = CAMERA.project(points)
    np.testing.assert_allclose(uv, pixel_grid(48, 64), atol=1e-12)
    assert in_front.all() and CAMERA.in_image(uv).all()


def test_the_image_ends_half_a_pixel_beyond_its_outer_centres():
    uv = np.array([[-0.49, 0], [-0.51, 0], [63.49, 47.49], [63.51, 0], [0, 47.51], [0, -0.51], [0.4, 0.6]])
    np.testing.assert_array_equal(CAMERA.in_image(uv), [True, False, True, False, False, False, True])
    np.testing.assert_array_equal(CAMERA.in_image(uv, margin=1.0), [False] * 7)
    assert CAMERA.in_image(np.array([0.6, 0.6]), margin=1.0)
    (rows, columns), inside = CAMERA.index(uv)
    np.testing.assert_array_equal(inside, CAMERA.in_image(uv))
    np.testing.assert_array_equal(rows, [0, 0, 47, 0, 0, 0, 1])
    np.testing.assert_array_equal(columns, [0, 0, 63, 0, 0, 0, 0])


def test_lengths_at_a_depth():
    assert CAMERA.length(5.0) == 0.1
    assert CAMERA.pixels(0.2, 2.0) == 5.0
    points = np.array([[0.3, 0.1, 4.0]])
    disparity = (CAMERA.project(points)[0] - CAMERA.project(points - (0.12, 0, 0))[0])[:, 0]
    np.testing.assert_allclose(CAMERA.depth_of(disparity, 0.12), 4.0)


def test_field_of_view():
    camera = Camera.from_fov_y(200, 100, np.pi / 2)
    assert camera == Camera.centred(200, 100, camera.fx)
    assert camera.fx == pytest.approx(50) and camera.fov_y == pytest.approx(np.pi / 2)
    assert (camera.cx, camera.cy, camera.aspect) == (99.5, 49.5, 2.0)
    assert CAMERA.aspect == pytest.approx((64 / 50) / (48 / 40))


def test_a_changed_picture_keeps_its_rays():
    """The pixel of the new picture that shows what a pixel of the old one shows has the same ray."""
    image = np.zeros((48, 64, 3), np.uint8)
    _, window = fit(View(image, CAMERA), 32, 32)
    uv = np.array([20.0, 30.0])
    ray = CAMERA.rays(uv)
    for camera, there in (
        (CAMERA.resized(128, 24), (uv + 0.5) * (2, 0.5) - 0.5),
        (CAMERA.cropped(5, 7, 20, 30), uv - (5, 7)),
        (CAMERA.strided(5), (uv - 2) / 5),
        (CAMERA.mirrored().mirrored(), uv),
        (CAMERA.in_window(window), window.to_network(uv)),
    ):
        np.testing.assert_allclose(camera.rays(there), ray, atol=1e-12)
    np.testing.assert_allclose(CAMERA.mirrored().rays(np.array([63 - 20.0, 30.0])), ray * (-1, 1, 1))
    assert image[2::5, 2::5].shape[:2] == (CAMERA.strided(5).height, CAMERA.strided(5).width)
    again = CAMERA.in_window(window).around_window(window)
    assert (again.width, again.height) == (64, 48)
    np.testing.assert_allclose(again.K, CAMERA.K, atol=1e-12)
    assert Camera.from_K(CAMERA.K, 64, 48) == CAMERA
