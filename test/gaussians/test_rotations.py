"""Quaternions and matrices, by value, the same for NumPy and torch."""

import math

import cv2
import numpy as np
import pytest
import torch
from support.random_gaussians import axis_angle

from gsemsplat_ros.gaussians.rotations import multiply_quats, quats_to_rotations, rotation_to_quat


def random_quats(n: int, seed: int = 0) -> np.ndarray:
    quats = np.random.default_rng(seed).normal(size=(n, 4))
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


@pytest.mark.parametrize(
    'axis, angle',
    [
        ((1, 0, 0), math.pi),
        ((0, 1, 0), math.pi),
        ((0, 0, 1), math.pi),
        ((1, 2, 3), 1e-5),
        ((1, -1, 0.5), 3.1),
        ((0, 1, 1), 0.0),
    ],
)
def test_rotation_to_quat(axis, angle):
    rotation, quat = axis_angle(axis, angle)
    got = rotation_to_quat(rotation)
    assert got[0] >= 0
    np.testing.assert_allclose(got * np.sign(got @ quat), quat, atol=1e-9)


def test_rotations_turn_as_opencv_says_and_lead_back():
    turns = np.random.default_rng(1).normal(size=(50, 3))
    for turn in turns:
        rotation = cv2.Rodrigues(turn)[0]
        np.testing.assert_allclose(quats_to_rotations(rotation_to_quat(rotation)), rotation, atol=1e-12)


def test_a_product_is_one_rotation_after_the_other():
    p, q = random_quats(20), random_quats(20, seed=1)
    wanted = quats_to_rotations(p) @ quats_to_rotations(q)
    np.testing.assert_allclose(quats_to_rotations(multiply_quats(p, q)), wanted, atol=1e-12)


def test_numpy_and_torch_agree_in_any_shape():
    p, q = random_quats(6).reshape(2, 3, 4), random_quats(6, seed=1).reshape(2, 3, 4)
    for dtype in (np.float32, np.float64):
        a, b = p.astype(dtype), q.astype(dtype)
        matrices, product = quats_to_rotations(a), multiply_quats(a, b)
        assert matrices.shape == (2, 3, 3, 3) and matrices.dtype == product.dtype == dtype
        torch.testing.assert_close(quats_to_rotations(torch.from_numpy(a)), torch.from_numpy(matrices))
        torch.testing.assert_close(
            multiply_quats(torch.from_numpy(a), torch.from_numpy(b)), torch.from_numpy(product)
        )


def test_many_rotations_become_quats_at_once():
    quats = random_quats(20)
    got = rotation_to_quat(quats_to_rotations(quats).reshape(4, 5, 3, 3))
    np.testing.assert_allclose(got.reshape(-1, 4), quats * np.sign(quats[:, :1]), atol=1e-12)
