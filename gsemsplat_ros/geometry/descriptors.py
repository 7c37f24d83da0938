"""Pixels of two images that look alike, by the matching descriptors of a public network."""

from __future__ import annotations

import torch
from torch import Tensor

from gsemsplat_ros.geometry.features import Alike
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.network.model import Prediction

STEP = 8  # every so many pixels along a row or column a match is started
ROUNDS = 5  # there and back: what has not settled by then is none
CHUNK = 256  # descriptors compared at once with all others: bounds the memory


def described_alike(prediction: Prediction, windows: tuple[Window, Window]) -> Alike | None:
    """Pixels of the input images, seen through `windows`, whose descriptors are each other's nearest (fast
    reciprocal matching, MASt3R sec. 3.3). None: a prediction without descriptors.
    """
    one, two = prediction.first.desc, prediction.second.desc
    if one is None or two is None:
        return None
    (height, width), device = one.shape[1:3], one.device
    first, second = one[0].flatten(0, 1), two[0].flatten(0, 1)
    grid = torch.arange(height * width, device=device).view(height, width)
    here = grid[STEP // 2 :: STEP, STEP // 2 :: STEP].flatten()
    settled = torch.empty(0, 2, dtype=torch.long, device=device)
    for _ in range(ROUNDS):
        there = nearest(first[here], second)
        back = nearest(second[there], first)
        same = back == here
        settled = torch.cat((settled, torch.stack((here, there), 1)[same]))
        here = back[~same].unique()
    settled = settled.unique(dim=0)
    uv = torch.stack((settled % width, settled // width), -1).cpu().numpy()  # (N, 2 views, 2)
    uv_first, uv_second = (
        window.to_input((uv[:, i] + 0.5) * (window.width / width, window.height / height) - 0.5)
        for i, window in enumerate(windows)
    )
    return Alike(uv_first, uv_second)


def nearest(some: Tensor, others: Tensor) -> Tensor:
    """(n,) row of the `others` (m, C) most like each of `some` (n, C), all of unit length."""
    if not len(some):
        return torch.empty(0, dtype=torch.long, device=some.device)
    return torch.cat([(part @ others.T).argmax(1) for part in some.split(CHUNK)])
