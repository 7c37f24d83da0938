"""The Gaussians value: every transform is checked through means and covariances against plain formulas."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.random_gaussians import make_prediction, pose, random_gaussians

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.model import Prediction


def test_covariances():
    gaussians, rotations = random_gaussians()
    scales = gaussians.scales.double().numpy()
    wanted = np.stack([r @ np.diag(s**2) @ r.T for r, s in zip(rotations, scales)])
    np.testing.assert_allclose(gaussians.covariances().numpy(), wanted, atol=1e-7)


@pytest.mark.parametrize('seed', range(5))
def test_rigid_transform_turns_covariances(seed):
    gaussians, _ = random_gaussians(seed=seed)
    a_from_b = pose(seed)
    moved = gaussians.transformed(a_from_b, frame='map')
    r, t = a_from_b[:3, :3], a_from_b[:3, 3]
    np.testing.assert_allclose(moved.means.numpy(), gaussians.means.numpy() @ r.T + t, atol=1e-6)
    turned = r @ gaussians.covariances().numpy() @ r.T
    np.testing.assert_allclose(moved.covariances().numpy(), turned, atol=1e-7)
    assert moved.frame == 'map' and gaussians.frame == 'camera'
    np.testing.assert_allclose(moved.quats.norm(dim=-1).numpy(), 1, atol=1e-6)
    for name in ('scales', 'opacities', 'colors', 'codes'):
        assert torch.equal(getattr(moved, name), getattr(gaussians, name)), name
    back = moved.transformed(np.linalg.inv(a_from_b), frame='camera')
    np.testing.assert_allclose(back.covariances().numpy(), gaussians.covariances().numpy(), atol=1e-7)


@pytest.mark.parametrize('s', [0.25, 3.0])
def test_scaling_is_a_similarity(s):
    gaussians, _ = random_gaussians()
    scaled = gaussians.scaled(s)
    np.testing.assert_allclose(scaled.means.numpy(), s * gaussians.means.numpy(), rtol=1e-6)
    torch.testing.assert_close(scaled.covariances(), s**2 * gaussians.covariances(), rtol=1e-5, atol=0)
    assert torch.equal(scaled.opacities, gaussians.opacities) and scaled.frame == gaussians.frame


def test_a_mirror_or_scaled_pose_is_refused():
    gaussians, _ = random_gaussians()
    for factor in (-1, 2):
        with pytest.raises(AssertionError):
            gaussians.transformed(np.diag([factor, factor, factor, 1]), frame='map')


def test_from_prediction_orders_and_converts():
    prediction = make_prediction()
    gaussians = Gaussians.from_prediction(prediction, 'left')
    assert len(gaussians) == 12 and gaussians.frame == 'left' and gaussians.codes.shape == (12, 32)
    for n, (view, row, column) in enumerate(
        (v, r, c) for v in (prediction.first, prediction.second) for r in range(2) for c in range(3)
    ):
        at = (0, row, column)  # batch item 0, view 1 first, row by row
        x, y, z, w = view.quats_xyzw[at].tolist()
        assert gaussians.quats[n].tolist() == [w, x, y, z]
        assert torch.equal(gaussians.means[n], view.means[at])
        assert torch.equal(gaussians.scales[n], view.scales[at])
        assert gaussians.opacities[n] == view.opacities[at]
        torch.testing.assert_close(gaussians.colors[n], 0.5 + 0.28209479177387814 * view.sh[at])
        assert torch.equal(gaussians.codes[n], view.codes[at][:32])


def test_from_prediction_half_precision_and_no_codes():
    half = make_prediction(dtype=torch.bfloat16)
    assert Gaussians.from_prediction(half, 'left').means.dtype == torch.float32
    views = [SimpleNamespace(**{**vars(view), 'codes': None}) for view in (half.first, half.second)]
    assert Gaussians.from_prediction(Prediction(*views), 'left').codes.shape == (12, 0)


def test_select_takes_indices_and_masks():
    gaussians, _ = random_gaussians(5)
    picked = gaussians.select(torch.tensor([3, 0]))
    assert torch.equal(picked.codes, gaussians.codes[[3, 0]]) and len(picked) == 2
    mask = gaussians.opacities > gaussians.opacities.median()
    assert torch.equal(gaussians.select(mask).means, gaussians.means[mask])
    assert torch.equal(gaussians.select(~mask).to('cpu').quats, gaussians.quats[~mask])


@pytest.mark.parametrize(
    'name, shape',
    [
        ('means', (5, 2)),
        ('quats', (5, 3)),
        ('scales', (4, 3)),
        ('opacities', (5, 1)),
        ('colors', (5, 4)),
        ('codes', (4, 8)),
    ],
)
def test_wrong_shapes_are_named(name, shape):
    tensors = {key: value for key, value in vars(random_gaussians(5)[0]).items() if key != 'frame'}
    with pytest.raises(AssertionError, match=name if name != 'means' else 'means|quats'):
        Gaussians(**{**tensors, name: torch.zeros(shape)}, frame='camera')
