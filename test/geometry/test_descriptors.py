"""Matches by descriptors, against those that are known."""

import numpy as np
import torch
import torch.nn.functional as F

from gsemsplat_ros.geometry.descriptors import described_alike, nearest
from gsemsplat_ros.images.view import View, fit
from gsemsplat_ros.network.model import Prediction, ViewPrediction

WINDOWS = (fit(View(np.zeros((96, 160, 3), np.uint8)), 80, 48).window,) * 2  # half the size


def view(descriptors):
    return ViewPrediction(torch.empty(0), torch.empty(0), desc=descriptors)


def test_a_shift_is_found_at_every_seed_that_is_seen_twice():
    wide = F.normalize(torch.randn(48, 96, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    prediction = Prediction(view(wide[None, :, :80]), view(wide[None, :, 16:]))  # 16 px to the left
    found = described_alike(prediction, WINDOWS)
    shift = found.uv_first - found.uv_second
    right = (np.abs(shift - (32, 0)) < 1e-9).all(1)
    assert right.sum() >= 6 * 8 and right.mean() > 0.7
    seeds = found.uv_first[right]
    assert len(np.unique(seeds, axis=0)) == len(seeds)
    assert (seeds[:, 0] > 31).all()  # what lies to the left of it left the image


def test_no_descriptors_no_matches():
    assert described_alike(Prediction(view(None), view(None)), WINDOWS) is None


def test_the_nearest_is_the_most_alike():
    others = F.normalize(torch.randn(700, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    rows = torch.arange(0, 700, 2)  # more than one chunk
    assert torch.equal(nearest(others[rows], others), rows)
    assert nearest(others[:0], others).shape == (0,)
