"""EfficientNet-Lite0 (Tan & Le 2019): the stem of the small network and its context-aware branch.

Batch norms are folded into the convolutions, because the stem is always frozen. Images are in [-1, 1]; its
weights were trained on (x - 127) / 128.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.network.config import CLASSES, CODE_DIM

STEM_DIMS = {4: 24, 8: 40, 16: 112, 32: 320}  # channels at each stride
HEAD_DIM = 1280
# expansion, kernel, stride, channels, repeats
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
TAPS = {1: 4, 2: 8, 4: 16, 6: 32}  # stage -> stride of the map that is returned
SPREAD = {4: 7.6, 8: 7.2, 16: 6.1, 32: 1.0}  # divisors of the maps: their standard deviations on rooms
DEEP_SPREAD = 2.5  # divisor of the classifier's map in patches
TEMPERATURE = 2.0  # of the class probabilities: measured best on real stereo pairs


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: at stride 2 an even image is padded at the far side."""

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        pad_y, pad_x = (max((-(-size // s) - 1) * s + k - size, 0) for size in x.shape[-2:])
        if pad_y or pad_x:
            x = F.pad(x, (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2))
        return super().forward(x)


class MBConv(nn.Module):
    def __init__(self, dim: int, expansion: int, kernel: int, stride: int, out: int):
        super().__init__()
        hidden = dim * expansion
        self.residual = stride == 1 and dim == out
        self.expand = nn.Conv2d(dim, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = nn.Conv2d(hidden, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if isinstance(self.expand, nn.Identity) else F.relu6(self.expand(x), inplace=True)
        out = self.project(F.relu6(self.depthwise(hidden), inplace=True))
        return x + out if self.residual else out


class Stem(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to feature maps {stride: (B, STEM_DIMS[stride], H/stride, W/stride)}.

    The maps that trained layers read are scaled to unit spread; the classifier's (stride 32) is not.
    """

    def __init__(self):
        super().__init__()
        self.conv = SameConv(3, 32, 3, stride=2)
        stages, dim = [], 32
        for expansion, kernel, stride, out, repeats in STAGES:
            blocks = []
            for i in range(repeats):
                blocks.append(MBConv(dim, expansion, kernel, stride if i == 0 else 1, out))
                dim = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        x, maps = F.relu6(self.conv(images), inplace=True), {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in TAPS:
                maps[TAPS[i]] = x / SPREAD[TAPS[i]]
        return maps


class ContextBranch(nn.Module):
    """The context-aware code, from the stem's own ImageNet classifier run densely and kept frozen.

    Class probabilities at stride 32 (temperature 2, 3x3 mean of the logits) times one 16-d code a class; the
    context decoder maps such mixtures back to the text space. `code.weight` is (16, 1000, 1, 1).
    """

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(STEM_DIMS[32], HEAD_DIM, 1)
        self.classifier = nn.Conv2d(HEAD_DIM, CLASSES, 1)
        self.code = nn.Conv2d(CLASSES, CODE_DIM, 1, bias=False)

    def probabilities(self, x: Tensor) -> Tensor:
        """Stem map of stride 32 (B, 320, h, w) to class probabilities (B, 1000, h, w)."""
        logits = self.classifier(F.relu6(self.features(x), inplace=True))
        logits = F.avg_pool2d(logits, 3, stride=1, padding=1, count_include_pad=False)
        return torch.softmax(logits / TEMPERATURE, 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Stem map of stride 32 to codes (B, 16, *size)."""
        return F.interpolate(self.code(self.probabilities(x)), size, mode='bilinear', align_corners=False)
