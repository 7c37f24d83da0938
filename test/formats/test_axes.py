"""The axes of formats, against plain sentences about what is right, up and ahead."""

import numpy as np
import pytest
import torch
from support.random_gaussians import random_gaussians

from gsemsplat_ros.formats.axes import Axes, guessed, rotation, turned
from gsemsplat_ros.gaussians.rotations import quats_to_rotations

# (right, up, ahead) as unit vectors of each
KNOWN = {
    Axes.OPTICAL: [(1, 0, 0), (0, -1, 0), (0, 0, 1)],
    Axes.Z_UP: [(0, -1, 0), (0, 0, 1), (1, 0, 0)],
    Axes.Y_UP: [(1, 0, 0), (0, 1, 0), (0, 0, -1)],
}


@pytest.mark.parametrize('b', Axes)
@pytest.mark.parametrize('a', Axes)
def test_directions_stay_what_they_are(a, b):
    a_from_b = rotation(a, b)
    assert np.linalg.det(a_from_b) == 1
    for there, here in zip(KNOWN[b], KNOWN[a]):
        np.testing.assert_array_equal(a_from_b @ there, here)


def test_gaussians_turn_with_their_covariances():
    gaussians, _ = random_gaussians(20, seed=1)
    found = turned(gaussians, Axes.Y_UP, Axes.OPTICAL)
    means, flip = gaussians.means.numpy(), np.diag([1.0, -1.0, -1.0])
    np.testing.assert_allclose(found.means.numpy(), means * [1, -1, -1], atol=1e-6)
    for i in range(len(gaussians)):
        axes = quats_to_rotations(gaussians.quats[i].double().numpy())
        plain = flip @ axes @ np.diag(gaussians.scales[i].double().numpy() ** 2) @ axes.T @ flip
        np.testing.assert_allclose(found.covariances()[i].numpy(), plain, rtol=1e-4, atol=1e-9)
    assert turned(gaussians, Axes.Z_UP, Axes.Z_UP) is gaussians
    back = turned(found, Axes.OPTICAL, Axes.Y_UP)
    torch.testing.assert_close(back.covariances(), gaussians.covariances())


def test_what_one_camera_can_have_seen_is_its_scene():
    rng = np.random.default_rng(0)
    seen = rng.uniform((-1, -1, 1), (1, 1, 3), (1000, 3))
    seen[:5] = -1  # a few strays
    assert guessed(seen) is Axes.OPTICAL
    assert guessed(seen - [0, 0, 2]) is guessed(np.zeros((0, 3))) is Axes.Z_UP
