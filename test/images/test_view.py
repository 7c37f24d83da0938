"""Views and cameras: resizing and cropping keep every pixel's ray."""

import numpy as np
import pytest

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View, fit, network_size

SIZES = [(640, 480), (741, 500), (300, 700), (512, 384), (64, 64)]


def gradient(width, height):
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack((u * 255 / width, v * 255 / height, np.full_like(u, 100)), -1).astype(np.uint8)


@pytest.mark.parametrize('width, height', SIZES)
@pytest.mark.parametrize('target', [(512, 384), (512, 512), (96, 64)])
def test_a_ray_stays_the_same_ray(width, height, target):
    camera = Camera(width, height, 400.0, 410.0, width * 0.4, height * 0.55)
    view, window = fit(View(gradient(width, height), camera), *target)
    assert view.image.shape == (target[1], target[0], 3)
    pixels = np.array([[0.0, 0.0], [target[0] - 1, target[1] - 1], [20.0, 31.0]])
    there = window.to_input(pixels)
    np.testing.assert_allclose(window.to_network(there), pixels, atol=1e-9)
    assert (there > -0.6).all() and (there[:, 0] < width).all() and (there[:, 1] < height).all()
    for small, large in zip(pixels, there):
        ray = np.linalg.inv(view.camera.K) @ [*small, 1]
        np.testing.assert_allclose(ray, np.linalg.inv(camera.K) @ [*large, 1], atol=1e-9)


@pytest.mark.parametrize('width, height', [(317, 534), (534, 317), (317, 541)])
def test_rounding_makes_no_negative_border(width, height):
    """The exact crop of these sizes begins at -3e-14 pixels, which a resize refuses."""
    target = network_size(width, height)
    scale = min(width / target[0], height / target[1])
    assert -1e-12 < min(width - target[0] * scale, height - target[1] * scale) < 0
    view, window = fit(View(gradient(width, height)), *target)
    assert view.image.shape == (target[1], target[0], 3) and min(window.x0, window.y0) == 0
    u, v = window.to_input(np.array([100.0, 120.0]))
    np.testing.assert_allclose(view.image[120, 100, :2], [u * 255 / width, v * 255 / height], atol=1.5)


@pytest.mark.parametrize('width, height', [(640, 480), (741, 500)])
def test_the_picture_lies_where_the_window_says(width, height):
    view, window = fit(View(gradient(width, height)), 256, 192)
    u, v = window.to_input(np.array([128.0, 96.0]))
    np.testing.assert_allclose(view.image[96, 128, :2], [u * 255 / width, v * 255 / height], atol=1.5)


@pytest.mark.parametrize('width, height', [(640, 480), (741, 500), (500, 741)])
@pytest.mark.parametrize('shape', [(192, 256), (384, 512), (37, 55)])
def test_a_map_expands_to_where_it_came_from(width, height, shape):
    _, window = fit(View(gradient(width, height)), 512, 384)
    h, w = shape
    u, v = np.meshgrid((np.arange(w) + 0.5) * 512 / w - 0.5, (np.arange(h) + 0.5) * 384 / h - 0.5)
    there = window.to_input(np.stack((u, v), -1))
    expanded = window.expand((there[..., 0] + 2 * there[..., 1]).astype(np.float32))
    assert expanded.shape == (height, width)
    full_u, full_v = np.meshgrid(np.arange(width), np.arange(height))
    inner = np.isfinite(expanded)
    inner[:10], inner[-10:], inner[:, :10], inner[:, -10:] = False, False, False, False
    assert inner.mean() > 0.4
    edge = max(window.x0, window.y0, 0) + 12
    inner &= (full_u > edge) & (full_u < width - edge) & (full_v > edge) & (full_v < height - edge)
    np.testing.assert_allclose(expanded[inner], (full_u + 2 * full_v)[inner], atol=0.6)
    outside = window.to_network(np.stack((full_u, full_v), -1).astype(float))
    beyond = (
        (outside[..., 0] < -1) | (outside[..., 0] > 512) | (outside[..., 1] < -1) | (outside[..., 1] > 384)
    )
    assert not np.isfinite(expanded[beyond]).any()


def test_holes_stay_holes():
    _, window = fit(View(gradient(64, 64)), 64, 64)
    image_map = np.ones((64, 64), np.float32)
    image_map[20:30, 20:30] = np.nan
    expanded = window.expand(image_map)
    assert np.isnan(expanded[22:28, 22:28]).all() and np.nanmax(np.abs(expanded - 1)) < 1e-6


@pytest.mark.parametrize(
    'size, square, wanted',
    [
        ((640, 480), False, (512, 384)),
        ((480, 640), False, (384, 512)),
        ((741, 500), False, (512, 352)),
        ((1280, 720), False, (512, 288)),
        ((640, 480), True, (512, 512)),
        ((4000, 10), False, (512, 16)),
    ],
)
def test_network_size(size, square, wanted):
    assert network_size(*size, square=square) == wanted


def test_wrong_values_are_refused_in_one_line():
    image, camera = gradient(40, 32), Camera(40, 32, 25, 25, 20, 16)
    cases = [
        (lambda: Camera(40, 32, 0, 25, 20, 16), 'calibrated'),
        (lambda: View(image[..., 0]), 'uint8 RGB'),
        (lambda: View(image.astype(np.float32)), 'uint8 RGB'),
        (lambda: View(image, Camera(41, 32, 25, 25, 20, 16)), '41x32'),
        (lambda: Pair(View(image, camera), View(image, camera), -0.1), 'left and right exchanged'),
        (lambda: Pair(View(image, camera), View(image, camera), 75.0), 'millimetres'),
        (lambda: Pair(View(image, camera), View(image, camera), 0.075 / 450), 'wanted 5 mm to 3 m'),
        (lambda: Pair(View(image, camera), View(image, camera), float('nan')), 'finite|wanted'),
        (lambda: Pair(View(image), View(image), 0.1), 'needs a camera'),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            make()
        assert '\n' not in str(error.value)
