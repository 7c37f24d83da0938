"""A perceptron a pixel, on maps of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelMlp(nn.Module):
    """Maps (B, dims[i], h_i, w_i), finest first, to a last hidden layer (B, hidden, h_0, w_0).

    The first layer works by parts, each at the resolution of its map, because a product and an interpolation
    commute: on interpolated maps it would cost many times as much.
    """

    def __init__(self, dims: Sequence[int], hidden: int):
        super().__init__()
        self.inputs = nn.ModuleList(nn.Conv2d(dim, hidden, 1, bias=i == 0) for i, dim in enumerate(dims))
        self.hidden = nn.Conv2d(hidden, hidden, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = self.inputs[-1](maps[-1])
        for layer, level in zip(reversed(self.inputs[:-1]), reversed(maps[:-1])):
            if x.shape[-2:] != level.shape[-2:]:
                x = F.interpolate(x, level.shape[-2:], mode='bilinear', align_corners=False)
            x = layer(level) + x
        return torch.relu_(self.hidden(torch.relu_(x)))
