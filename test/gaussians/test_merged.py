"""Neighbours merged into fewer, larger Gaussians: against a plain twin, and as they look."""

import numpy as np
import pytest
import torch
from support.live_page import some

from gsemsplat_ros.gaussians import merged as module
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.merged import WIDER, merged
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.camera import Camera

CAMERA = Camera.from_fov_y(128, 96, 0.9)


def wall(side=80, depth=2.0):
    """A wall of small Gaussians across the camera's view, in bands of colour; one each 2 pixels or so."""
    v, u = np.meshgrid(np.linspace(-0.55, 0.55, side), np.linspace(-0.75, 0.75, side), indexing='ij')
    means = depth * np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3)
    colors = 0.5 + 0.4 * np.sin(np.stack([5 * u, 5 * v, 3 * (u + v)], -1).reshape(-1, 3))
    count = len(means)
    return Gaussians(
        torch.tensor(means, dtype=torch.float32),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.tensor([[0.012, 0.012, 0.002]]).repeat(count, 1) * depth,
        torch.full((count,), 0.9),
        torch.tensor(colors, dtype=torch.float32),
        torch.zeros(count, 0),
        'cam',
    )


def psnr(one, other):
    return -10 * float(torch.log10(((one.rgb - other.rgb) ** 2).mean()))


def test_a_group_becomes_the_gaussian_with_its_moments():
    gaussians = some(400)
    made = merged(gaussians, 50, np.zeros(3))
    assert len(made.gaussians) == 50 and made.group.shape == (400,)
    assert np.array_equal(np.unique(made.group), np.arange(50))
    covariances, got = gaussians.covariances().numpy(), made.gaussians.covariances().numpy()
    for number in range(50):  # the plain twin: one loop over the parts of each
        parts = np.flatnonzero(made.group == number)
        areas = [np.prod(np.sort(gaussians.scales[part].numpy())[1:]) for part in parts]
        alphas = [float(gaussians.opacities[part].clip(1e-4, 0.99)) for part in parts]
        weights = np.multiply(areas, alphas)
        mean = sum(w * gaussians.means[part].numpy() for w, part in zip(weights, parts)) / sum(weights)
        color = sum(w * gaussians.colors[part].numpy() for w, part in zip(weights, parts)) / sum(weights)
        spread = np.zeros((3, 3))
        for w, part in zip(weights, parts):
            off = gaussians.means[part].numpy() - mean
            spread += w / sum(weights) * (covariances[part] + np.outer(off, off))
        wider = WIDER if len(parts) > 1 else 1.0
        assert made.gaussians.means[number].numpy() == pytest.approx(mean, abs=1e-5)
        assert made.gaussians.colors[number].numpy() == pytest.approx(color, abs=1e-5)
        assert got[number] == pytest.approx(spread * wider**2, rel=1e-3, abs=1e-6)
        area = np.prod(np.sort(made.gaussians.scales[number].numpy())[1:])
        through = np.exp(sum(a * np.log(1 - alpha) for a, alpha in zip(areas, alphas)) / area)
        assert float(made.gaussians.opacities[number]) == pytest.approx(min(1 - through, 0.99), abs=1e-4)
        assert made.weights[parts] == pytest.approx(weights, rel=1e-4)
    values = np.random.default_rng(0).random((400, 2), dtype=np.float32)
    parts = made.group == 7
    assert made.mean(values)[7] == pytest.approx(
        np.average(values[parts], axis=0, weights=made.weights[parts]), rel=1e-5
    )


def test_the_group_with_the_largest_spread_is_cut_at_its_mean():
    features = np.array([[0.0, 0], [0.1, 0], [0.0, 5], [0.2, 5], [0.1, 9]])
    rows, order, group = np.c_[features, np.ones(5)], np.arange(5), np.zeros(5, np.int64)
    assert module._bisect(rows.copy(), order, group, 2) == 2
    assert (group[0] == group[1]) and len(set(group[2:])) == 1 and group[0] != group[2]
    assert module._bisect(rows.copy(), np.arange(5), group, 3) == 3
    assert group[2] == group[3] != group[4] and group[0] == group[1]
    assert module._bisect(rows.copy(), np.arange(5), group, 9) == 5  # each its own
    equal = np.ones((6, 3))
    assert module._bisect(equal, np.arange(6), np.zeros(6, np.int64), 4) == 1  # nothing to cut


def test_a_wall_of_a_seventh_of_the_gaussians_looks_alike_and_stays_closed():
    full = wall()
    light = merged(full, len(full) // 7, np.zeros(3)).gaussians
    assert len(light) == len(full) // 7
    for x in (0.0, 0.8):  # from the camera, and from the side
        pose = np.eye(4)
        pose[0, 3] = -x
        one, other = render(full, CAMERA, pose), render(light, CAMERA, pose)
        inside = one.alpha > 0.98
        assert inside.float().mean() > 0.6
        assert other.alpha[inside].min() > 0.75 and other.alpha[inside].mean() > 0.94
        assert psnr(one, other) > 28
    even = merged(full, 100, np.zeros(3))
    busy = np.bincount(even.group)
    assert busy.max() < 6 * np.median(busy)  # of an evenly coloured wall all groups are about alike


def test_an_even_wall_takes_fewer_than_a_busy_one():
    full = wall()
    left = full.means[:, 0] < 0
    full.colors[left] = 0.5
    full.colors[~left] = torch.rand(int((~left).sum()), 3, generator=torch.Generator().manual_seed(1))
    made = merged(full, 600, np.zeros(3)).gaussians
    assert (made.means[:, 0] > 0).sum() > 3 * (made.means[:, 0] < 0).sum()


def test_few_and_none():
    assert len(merged(some(3), 10, np.zeros(3)).gaussians) == 3
    assert len(merged(some(0), 10, np.zeros(3)).gaussians) == 0
    alone = merged(some(1), 10, np.zeros(3)).gaussians
    assert torch.allclose(alone.covariances(), some(1).covariances(), rtol=1e-4)
    assert float(alone.opacities[0]) == pytest.approx(float(some(1).opacities[0]), abs=1e-5)


def test_gaussians_without_size_or_opacity_do_no_harm():
    gaussians = some(200)
    gaussians.scales[:50], gaussians.opacities[40:90] = 0, 0
    made = merged(gaussians, 20, np.zeros(3)).gaussians
    assert all(
        torch.isfinite(getattr(made, name)).all() for name in ('means', 'quats', 'scales', 'opacities')
    )
    assert (made.scales > 0).all()
