"""NanoDet (RangiLyu, Apache-2.0): a detector of the 80 COCO names, of which the dense class scores are used.

Always frozen; its boxes are left out. Images are in [-1, 1] RGB; its weights were trained on BGR values
from 0 to 255, less MEAN and over STD.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OBJECTS = 80  # COCO names, in their standard order
MEAN = (103.53, 116.28, 123.675)  # BGR
STD = (57.375, 57.12, 58.395)
NECK_DIM = 128
UNITS = {32: 1, 64: 2, 128: 2, 256: 3}  # channels of a stage -> its units; strides 4, 8, 16, 32


def activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)


class Unit(nn.Module):
    """Two convolutions of half the width, their outputs side by side (CSP, Wang et al. 2020)."""

    def __init__(self, dim: int):
        super().__init__()
        self.first = nn.Conv2d(dim, dim // 2, 3, padding=1)
        self.second = nn.Conv2d(dim // 2, dim // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = activated(self.first(x))
        return torch.cat((activated(self.second(first)), first), 1)


class Stage(nn.Module):
    """(B, dim, h, w) to (B, 2 dim, h / stride, w / stride)."""

    def __init__(self, dim: int, units: int, stride: int):
        super().__init__()
        self.enter = nn.Conv2d(dim, dim, 3, stride=stride, padding=1)
        self.units = nn.Sequential(*(Unit(dim) for _ in range(units)))
        self.leave = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = activated(self.enter(x))
        return torch.cat((activated(self.leave(self.units(x))), x), 1)


class NanoDet(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to class logits (B, 80, H/s, W/s) at the strides s 8, 16 and 32."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.stages = nn.ModuleList(Stage(dim, units, 1 if dim == 32 else 2) for dim, units in UNITS.items())
        self.laterals = nn.ModuleList(nn.Conv2d(2 * dim, NECK_DIM, 1) for dim in list(UNITS)[1:])
        self.towers = nn.ModuleList(nn.Conv2d(NECK_DIM, NECK_DIM, 3, padding=1) for _ in range(3))
        self.classes = nn.ModuleList(nn.Conv2d(NECK_DIM, OBJECTS, 1) for _ in range(3))

    def forward(self, images: Tensor) -> list[Tensor]:
        blue_first = [
            images[:, 2 - i : 3 - i] * (127.5 / STD[i]) + (127.5 - MEAN[i]) / STD[i] for i in range(3)
        ]
        x = torch.cat(blue_first, 1)
        x = F.max_pool2d(activated(self.conv(x)), 3, stride=2, padding=1)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        fine, middle, coarse = (lateral(x) for lateral, x in zip(self.laterals, levels[1:]))
        middle = middle + resized(coarse, 2)  # down the pyramid, and up again (PAN, Liu et al. 2018)
        fine = fine + resized(middle, 2)
        middle = middle + resized(fine, 0.5)
        coarse = coarse + resized(middle, 0.5)
        return [
            classes(activated(tower(x)))
            for tower, classes, x in zip(self.towers, self.classes, (fine, middle, coarse))
        ]


def resized(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode='bilinear', align_corners=False)
