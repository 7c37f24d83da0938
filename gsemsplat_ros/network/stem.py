"""The stem of the small network: the frozen features of EfficientNet-Lite0, in place of raw patches."""

from __future__ import annotations

from torch import Tensor

from gsemsplat_ros.network.efficientnet import LITE0, Trunk

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
