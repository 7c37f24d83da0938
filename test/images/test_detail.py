"""Images that can be used, and those that are too small or show nothing."""

import cv2
import numpy as np
import pytest

from gsemsplat_ros.images.detail import blank, check_image
from gsemsplat_ros.images.view import View, fit, network_size

RNG = np.random.default_rng(0)


def scene(light=1.0, noise=0.0, size=(480, 640)):
    """Boxes of random gray on a gray ground, in less light, with noise of the sensor [gray levels]."""
    rng = np.random.default_rng(1)
    image = np.full(size, 110.0)
    for x, y, w, h, shade in rng.uniform(0, 1, (40, 5)):
        x, y = int(x * size[1]), int(y * size[0])
        image[y : y + int(9 + h * 120), x : x + int(9 + w * 120)] = 20 + 220 * shade
    image = image * light + rng.normal(0, noise, size)
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def flat(level, noise=0.0):
    image = level + np.random.default_rng(2).normal(0, noise, (480, 640))
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize(
    'image, words',
    [
        (flat(0), 'is black .mean 0 of 255.: is the lens covered'),
        (flat(8, 5), 'is black'),
        (flat(255), 'is white .mean 255 of 255.: is it overexposed'),
        (flat(120, 8), 'shows nothing'),
        (cv2.GaussianBlur(scene(0.3), (0, 0), 60), 'shows nothing'),  # a hand on the lens
    ],
)
def test_images_that_show_nothing_are_refused(image, words):
    with pytest.raises(ValueError, match=f'^the left image {words}') as error:
        check_image(image, 'the left image')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('image', [scene(), scene(0.15, 2), scene(1, 12), scene(0.5, 20)])
def test_dark_and_noisy_images_show_something(image):
    assert blank(image) == ''


def test_one_small_thing_before_a_wall_is_something():
    image = flat(200, 3)
    assert blank(image)
    image[200:280, 300:360] = 30  # 1.6 % of the image, and its borders as much again
    assert blank(image) == ''


@pytest.mark.parametrize(
    'size', [(15, 480), (640, 31), (1, 1), (1, 3000), (1100, 34), (2000, 40), (40, 2000)]
)
def test_small_images_and_long_strips_are_refused(size):
    with pytest.raises(ValueError, match=f'image of {size[0]}x{size[1]} px: wanted at least 32 px a side'):
        check_image(np.zeros((*size[::-1], 3), np.uint8))


@pytest.mark.parametrize('size', [(32, 32), (32, 1024), (1024, 32), (1000, 40)])
def test_the_smallest_image_and_the_longest_strips_are_fitted_whole(size):
    image = RNG.integers(0, 255, (*size[::-1], 3), np.uint8)
    check_image(image)
    window = fit(View(image), *network_size(*size)).window
    assert window.scale_x * window.width >= 0.75 * size[0]
    assert window.scale_y * window.height >= 0.75 * size[1]
