"""Whether two images are the rectified pair that they are said to be, in a box of known geometry."""

import cv2
import numpy as np
import pytest
from support.patterned_box import CAMERA, moved, room_view

from gsemsplat_ros.geometry.matches import match_stereo
from gsemsplat_ros.geometry.rectified import looks_alike, row_shift
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View

BASELINE = 0.12


@pytest.fixture(scope='module')
def images():
    """Left and right (240, 320, 3) uint8."""
    return room_view(np.eye(4))[0], room_view(moved((BASELINE, 0, 0)))[0]


def matched(left, right, camera=CAMERA):
    return match_stereo(Pair(View(left, camera), View(right, camera), BASELINE))


def turned_over(image):
    return np.ascontiguousarray(image[::-1, ::-1])


def lower(image, rows):
    return np.roll(image, rows, 0)


def noisy(image, light, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, image.shape[:2])[..., None]
    return (image * light + noise).clip(0, 255).astype(np.uint8)


def patterned(seed):
    pattern = np.random.default_rng(seed).uniform(0, 255, (240, 320)).astype(np.float32)
    pattern = cv2.normalize(cv2.GaussianBlur(pattern, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return np.repeat(pattern.astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize(
    'change',
    [
        lambda left, right: (left, right),
        lambda left, right: (noisy(left, 0.25, 2), noisy(right, 0.25, 2)),
        lambda left, right: (left, noisy(right, 0.5, 3)),  # the other exposure
        lambda left, right: (noisy(left, 1, 9), noisy(right, 1, 9)),
        lambda left, right: (left, lower(right, 1)),
        lambda left, right: (turned_over(right), turned_over(left)),  # upside down, and exchanged for it
    ],
)
def test_a_rectified_pair_is_taken(images, change):
    found = matched(*change(*images))
    assert len(found.z_first) > 5000


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda left, right: (right, left), 'are left and right exchanged'),
        (lambda left, right: (turned_over(left), turned_over(right)), 'both cameras upside down'),
        (lambda left, right: (left[:, ::-1].copy(), right[:, ::-1].copy()), 'are left and right exchanged'),
        (lambda left, right: (left, left), 'one and the same image'),
        (lambda left, right: (left, noisy(left, 1, 2)), 'too far away to measure'),
        (lambda left, right: (left, patterned(3)), 'nothing in common'),
        (lambda left, right: (left, np.zeros_like(right)), 'nothing in common'),
        (lambda left, right: (np.full_like(left, 255), right), 'nothing in common'),
        (lambda left, right: (left, lower(right, 9)), 'rows of left and right differ by 9 px'),
        (lambda left, right: (lower(left, 20), right), 'rows of left and right differ by 20 px'),
    ],
)
def test_images_that_are_no_rectified_pair_are_refused_with_the_likely_reason(images, change, words):
    with pytest.raises(ValueError, match=words) as error:
        matched(*change(*images))
    assert '\n' not in str(error.value)


def test_principal_points_may_differ(images):
    """Infinity then lies at a disparity of its own, also for what is tried with the images exchanged."""
    right = Camera(320, 240, 250.0, 250.0, 172.0, 118.0)
    left_image, right_image = images[0], room_view(moved((BASELINE, 0, 0)), right)[0]
    match_stereo(Pair(View(left_image, CAMERA), View(right_image, right), BASELINE))
    with pytest.raises(ValueError, match='exchanged'):
        match_stereo(Pair(View(right_image, right), View(left_image, CAMERA), BASELINE))


def test_rows_are_counted():
    image = patterned(1)[..., 0]
    for rows in (0, 3, -7):
        shift, likeness, unshifted = row_shift(image, np.roll(image, rows, 0))
        assert abs(shift - rows) <= 1 and likeness > 0.6 and (unshifted > 0.6) == (rows == 0)


def test_what_looks_alike():
    """Equal but for light and contrast; flat parts, parts without a match and other patterns do not count."""
    left = patterned(1)[..., 0]
    right = np.roll(left, -10, 1) // 2 + 40
    found = np.full(left.shape, 10, np.float32)
    assert looks_alike(left, right, found)[20:-20, 20:-20].mean() > 0.99
    assert looks_alike(left, np.roll(right, 30, 1), found).mean() < 0.1
    flat, unmatched = right.copy(), found.copy()
    flat[100:], unmatched[:60] = 90, np.nan
    alike = looks_alike(left, flat, unmatched)
    assert not alike[:60].any() and alike[70:90, 20:-20].mean() > 0.99 and not alike[110:].any()
