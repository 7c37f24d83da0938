"""Partners of pixels, and the loss of their descriptors, against plain loops and values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gsemsplat_ros.training.matching_loss import CLOSE, TEMPERATURE, matching_loss, partners

H, W = 12, 16


def two_views(shift=0.2):
    """A slanted wall with a box before it, seen by two cameras side by side: points (1, 2, H, W, 3) in the
    first frame, camera (1, 4), second_from_first (1, 4, 4)."""
    v, u = np.mgrid[:H, :W].astype(float)
    points = []
    for offset in (0.0, shift):
        rays = np.stack(((u - 7.5) / 14, (v - 5.5) / 14, np.ones_like(u)), -1)
        z = (2 + 0.3 * offset) / (1 - 0.3 * rays[..., 0])  # the wall z = 2 + 0.3 x
        at_box = rays[..., 0] * 1.2 + offset
        z = np.where((np.abs(at_box) < 0.15) & (np.abs(rays[..., 1]) < 0.2), 1.2, z)
        points.append(rays * z[..., None] + (offset, 0, 0))
    pose = np.eye(4)
    pose[0, 3] = -shift
    as_tensor = lambda x: torch.from_numpy(np.asarray(x)).float()[None]  # noqa: E731
    return as_tensor(points), as_tensor([14.0, 14.0, 7.5, 5.5]), as_tensor(pose)


def test_a_partner_shows_the_same_point():
    points, camera, pose = two_views()
    valid = torch.ones(1, 2, H, W, dtype=torch.bool)
    valid[0, 0, 3, 4] = valid[0, 1, :, 2] = False
    found = partners(points, valid, camera, pose)[0]
    for y in range(H):
        for x in range(W):
            local = points[0, 0, y, x].numpy() - (0.2, 0, 0)
            u, v = (round(float(14 * local[i] / local[2] + c)) for i, c in ((0, 7.5), (1, 5.5)))
            want = -1
            if valid[0, 0, y, x] and 0 <= u < W and 0 <= v < H and valid[0, 1, v, u]:
                there = float(points[0, 1, v, u, 2])
                want = v * W + u if abs(there - local[2]) < CLOSE * local[2] else -1
            assert found[y, x] == want, (y, x)
    seen = found >= 0
    assert 0.5 < seen.float().mean() < 0.95  # the box hides something, and the views differ at the sides


def test_alike_partners_cost_nothing_and_equal_descriptors_the_logarithm():
    points, camera, pose = two_views()
    partner = partners(points, torch.ones(1, 2, H, W, dtype=torch.bool), camera, pose)
    generator = torch.Generator().manual_seed(0)
    second = F.normalize(torch.randn(1, H, W, 24, generator=generator), dim=-1)
    first = second.flatten(1, 2)[0][partner[0].clamp(min=0)][None]
    uniform = torch.rand(1, 64, generator=generator)
    assert matching_loss(first, second, partner, uniform) < 0.05
    wrong = matching_loss(first.flip(1), second, partner, uniform)
    assert wrong > 5
    # one descriptor for all: no more than a guess among those that are other pixels
    same = torch.zeros(1, H, W, 24)
    same[..., 0] = 1
    known = (partner >= 0).flatten().nonzero()[:, 0]
    rows = [int(partner.flatten()[known[int(share * len(known))]]) for share in uniform[0].tolist()]
    guesses = [math.log(sum(r != row for r in rows) + 1) for row in rows]
    assert matching_loss(same, same, partner, uniform).item() == pytest.approx(np.mean(guesses), abs=1e-3)


def test_a_loss_is_that_of_plain_sums():
    generator = torch.Generator().manual_seed(1)
    first, second = F.normalize(torch.randn(2, 1, 2, 3, 4, generator=generator), dim=-1)
    partner = torch.tensor([[[5, -1, 3], [-1, 0, -1]]])
    uniform = torch.tensor([[0.1, 0.5, 0.9]])  # the pixels 0, 2 and 4, with partners 5, 3 and 0
    one, two = first.flatten(1, 2)[0][[0, 2, 4]], second.flatten(1, 2)[0][[5, 3, 0]]
    logits = one @ two.T / TEMPERATURE
    plain = -(logits.diag() - logits.logsumexp(1)).mean() - (logits.diag() - logits.logsumexp(0)).mean()
    assert matching_loss(first, second, partner, uniform).item() == pytest.approx(plain.item() / 2, abs=1e-5)


def test_views_without_partners_cost_nothing_and_a_batch_is_its_pairs():
    generator = torch.Generator().manual_seed(2)
    first, second = F.normalize(torch.randn(2, 3, H, W, 24, generator=generator), dim=-1)
    first.requires_grad_(True)
    partner = torch.full((3, H, W), -1)
    partner[1] = torch.arange(H * W).view(H, W)
    partner[2, 2] = 5
    uniform = torch.rand(3, 32, generator=generator)
    losses = matching_loss(first, second, partner, uniform)
    assert losses[0] == 0 and losses[1] > 1 and losses.isfinite().all()
    alone = [
        matching_loss(first[i : i + 1], second[i : i + 1], partner[i : i + 1], uniform[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(losses, torch.cat(alone))
    losses.sum().backward()
    assert first.grad is not None and first.grad[0].abs().max() == 0 and first.grad.isfinite().all()
