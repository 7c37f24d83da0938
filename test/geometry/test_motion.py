"""The motion between two views of a box of known geometry, with and without known focal lengths."""

from dataclasses import replace

import numpy as np
import pytest
from support.patterned_box import CAMERA, at, moved, room_view

from gsemsplat_ros.geometry.epipolar import polish, with_focal
from gsemsplat_ros.geometry.features import FINE, Alike, matched_pixels
from gsemsplat_ros.geometry.motion import find_motion
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import View, fit

WINDOW = fit(View(room_view(np.eye(4))[0]), CAMERA.width, CAMERA.height).window
TRUTH = moved((0.3, -0.05, 0.1), 0.1)


def apart(a, b):
    """Angles [rad] between two motions: of their rotations, of their directions."""
    turn = np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1))
    t, u = a[:3, 3], b[:3, 3]
    return turn, np.arccos(np.clip(t @ u / np.linalg.norm(t) / np.linalg.norm(u), -1, 1))


def longer(camera, factor):
    return replace(camera, fx=factor * camera.fx, fy=factor * camera.fy)


def pixels(truth, count=300, noise=0.2, wrong=0.0, flat=False, seed=0):
    """Noisy matches of random points before both cameras, a share of them `wrong`, and a depth map (240, 320)
    of the first view that is right there up to 5 %, in a unit of its own."""
    rng = np.random.default_rng(seed)
    uv1 = rng.uniform((8, 8), (312, 232), (20 * count, 2))
    z = rng.uniform(2, 5, len(uv1))
    points = CAMERA.rays(uv1) * (3 / (1 + 0.2 * CAMERA.rays(uv1)[:, :1]) if flat else z[:, None])
    local = (points - truth[:3, 3]) @ truth[:3, :3]
    uv2, _ = CAMERA.project(local)
    seen = CAMERA.in_image(uv2) & (local[:, 2] > 0)
    uv1, uv2, points = (x[seen][:count] for x in (uv1, uv2, points))
    depth = np.full((240, 320), np.nan)
    u, v = np.rint(uv1).astype(int).T
    depth[v, u] = 1.7 * points[:, 2] * np.exp(rng.normal(0, 0.05, len(points)))
    uv2 = uv2 + rng.normal(0, noise, uv2.shape)
    bad = rng.random(len(uv1)) < wrong
    uv2[bad] = rng.uniform((0, 0), (320, 240), (bad.sum(), 2))
    return Alike(uv1, uv2), depth


def test_features_tell_motion_and_depths():
    (image1, depth1), (image2, _) = room_view(np.eye(4)), room_view(TRUTH)
    other = Camera(320, 240, 270.0, 270.0, 150.0, 125.0)  # of its own kind
    image2, depth2 = room_view(TRUTH, other)
    alike = matched_pixels(image1, image2)
    motion = find_motion(alike, (CAMERA, other), depth1 / 0.8, WINDOW)
    found, length = motion.matches, np.linalg.norm(TRUTH[:3, 3])
    assert max(apart(found.first_from_second_rel, TRUTH)) < 0.03
    assert motion.agreeing == len(found.z_first) > 100
    assert (motion.focal_factor, motion.focal_spread) == (1.0, 0.0)
    for z, depth, uv in ((found.z_first, depth1, found.uv_first), (found.z_second, depth2, found.uv_second)):
        assert np.median(np.abs(z * length / at(depth, uv) - 1)) < 0.025
    again = find_motion(alike, (CAMERA, other), depth1 / 0.8, WINDOW).matches
    np.testing.assert_array_equal(again.first_from_second_rel, found.first_from_second_rel)
    assert len(matched_pixels(image1, image2, FINE).uv_first) > len(alike.uv_first)


def test_no_motion_is_made_up():
    (image, depth), (turned, _) = room_view(np.eye(4)), room_view(moved((0, 0, 0), 0.1))
    blank = np.full_like(image, 90)
    for spread in (0.0, 0.2):  # a turn alone shows no depth
        assert find_motion(matched_pixels(image, turned), (CAMERA, CAMERA), depth, WINDOW, spread) is None
    nothing = matched_pixels(image, blank)
    assert nothing.uv_first.shape == nothing.uv_second.shape == (0, 2)
    assert find_motion(nothing, (CAMERA, CAMERA), depth, WINDOW) is None


@pytest.mark.parametrize('seed', range(5))
def test_what_agrees_on_nothing_has_no_motion(seed):
    alike, depth = pixels(TRUTH, 100, wrong=1.0, seed=seed)
    for spread in (0.0, 0.2):
        assert find_motion(alike, (CAMERA, CAMERA), depth, WINDOW, spread) is None


@pytest.mark.parametrize('error', [0.75, 0.9, 1.0, 1.15, 1.3])
def test_the_images_tell_a_wrong_focal_length(error):
    truth = moved((1.0, 0.3, 0.4), -0.25)
    alike, depth = pixels(truth, wrong=0.2)
    guess = longer(CAMERA, error)
    motion = find_motion(alike, (guess, guess), depth, WINDOW, 0.2)
    assert error * motion.focal_factor == pytest.approx(1, rel=0.04)
    assert 0 < motion.focal_spread < 0.06
    assert max(apart(motion.matches.first_from_second_rel, truth)) < 0.05


def test_a_motion_that_shows_no_focal_length_leaves_it():
    sideways = moved((0.5, 0.0, 0.0))
    alike, depth = pixels(sideways)
    guess = longer(CAMERA, 1.15)
    motion = find_motion(alike, (guess, guess), depth, WINDOW, 0.2)
    assert motion.focal_factor == pytest.approx(1, rel=0.05) and motion.focal_spread > 0.15
    assert max(apart(motion.matches.first_from_second_rel, sideways)) < 0.02


def test_depths_find_the_few_right_ones_of_a_wide_baseline():
    truth = moved((1.8, 0.2, 0.5), -0.6)
    alike, depth = pixels(truth, 120, noise=0.4, wrong=0.6)
    motion = find_motion(alike, (CAMERA, CAMERA), depth, WINDOW)
    assert max(apart(motion.matches.first_from_second_rel, truth)) < 0.05
    assert 35 < motion.agreeing < 55


@pytest.mark.parametrize('seed', range(3))
def test_one_plane_gives_the_right_motion_or_none(seed):
    truth = moved((0.6, 0.1, 0.2), -0.15)
    alike, depth = pixels(truth, noise=0.3, flat=True, seed=seed)
    motion = find_motion(alike, (CAMERA, CAMERA), depth, WINDOW)
    assert motion is None or max(apart(motion.matches.first_from_second_rel, truth)) < 0.1


def test_polishing_exact_matches_gives_the_truth():
    truth = moved((0.6, 0.1, 0.2), -0.15)
    truth[:3, 3] /= np.linalg.norm(truth[:3, 3])
    alike, _ = pixels(truth, noise=0.0)
    rays = [with_focal(CAMERA.rays(uv), 0.9) for uv in alike]
    start = truth @ moved((0.05, -0.04, 0.03), 0.02)
    start[:3, 3] /= np.linalg.norm(start[:3, 3])
    polished = polish(start, *rays, CAMERA.length(5.0), 100.0)  # a prior that says nothing
    np.testing.assert_allclose(polished.first_from_second_rel, truth, atol=1e-4)
    assert polished.focal_factor == pytest.approx(1 / 0.9, rel=3e-4)
