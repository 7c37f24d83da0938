"""The stem of the small network: the frozen features of EfficientNet-Lite0, in place of raw patches, and the
matching descriptors, which are made of them alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.network.config import DESC_DIM
from gsemsplat_ros.network.efficientnet import LITE0, Trunk
from gsemsplat_ros.network.pixel_mlp import PixelMlp

STEM_DIMS = {4: 24, 8: 40, 16: 112, 32: 320}  # channels at each stride
TAPS = {1: 4, 2: 8, 4: 16, 6: 32}  # stage -> stride of the map that is returned
SPREAD = {4: 7.6, 8: 7.2, 16: 6.1, 32: 1.0}  # divisors of the maps: their standard deviations on rooms
DEEP_SPREAD = 2.5  # divisor of the deepest map in patches


class Stem(Trunk):
    """Images (B, 3, H, W) in [-1, 1] to feature maps {stride: (B, STEM_DIMS[stride], H/stride, W/stride)},
    all but the deepest scaled to unit spread. Its weights were trained on (x - 127) / 128.
    """

    def __init__(self):
        super().__init__(LITE0)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        outputs = self.outputs(images)
        return {stride: outputs[stage] / SPREAD[stride] for stage, stride in TAPS.items()}


class Descriptors(nn.Module):
    """The stem's maps to matching descriptors (B, H/4, W/4, 24) of unit length (MASt3R's idea, sec. 3.2).

    They do not depend on another view, so that a keyframe keeps them. A perceptron a pixel on the maps of
    strides 4, 8 and 16 finds ten times as many true partners as one on the fused map of a trunk, which was
    trained for points (docs/measurements.md).
    """

    HIDDEN = 128
    STRIDES = 4, 8, 16

    def __init__(self):
        super().__init__()
        self.mlp = PixelMlp([STEM_DIMS[stride] for stride in self.STRIDES], self.HIDDEN)
        self.output = nn.Conv2d(self.HIDDEN, DESC_DIM, 1)

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        x = self.output(self.mlp([maps[stride] for stride in self.STRIDES]))
        return F.normalize(x.float(), dim=1).permute(0, 2, 3, 1)
