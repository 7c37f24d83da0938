"""EfficientNet-Lite (Tan & Le 2019), the widths Lite0 and Lite2, as a classifier that is run densely.

Batch norms are folded into the convolutions, because these networks are always frozen. Images are in [-1, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.network.config import CLASSES

ENTRY_DIM = 32  # channels of the first convolution
HEAD_DIM = 1280


class Blocks(NamedTuple):
    """A stage: `repeats` blocks, the first with `stride`."""

    expansion: int
    kernel: int
    stride: int
    dim: int
    repeats: int


def stages(dims: tuple[int, ...], repeats: tuple[int, ...]) -> tuple[Blocks, ...]:
    """The seven stages of a width of the family."""
    expansions, kernels, strides = (1, 6, 6, 6, 6, 6, 6), (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
    return tuple(map(Blocks, expansions, kernels, strides, dims, repeats))


LITE0 = stages((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1))
LITE2 = stages((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1))


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


class Trunk(nn.Module):
    """Images (B, 3, H, W) to the outputs of all stages, in order."""

    def __init__(self, shape: tuple[Blocks, ...]):
        super().__init__()
        self.conv = SameConv(3, ENTRY_DIM, 3, stride=2)
        built, dim = [], ENTRY_DIM
        for stage in shape:
            blocks = []
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                blocks.append(MBConv(dim, stage.expansion, stage.kernel, stride, stage.dim))
                dim = stage.dim
            built.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(built)

    def outputs(self, images: Tensor) -> list[Tensor]:
        x, outputs = F.relu6(self.conv(images), inplace=True), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class DenseClassifier(Trunk):
    """EfficientNet-Lite2 with its ImageNet classifier at every position.

    Images (B, 3, H, W) to logits (B, 1000, H/32, W/32). The mean over the picture, which the classifier was
    trained behind, is left out.
    """

    def __init__(self):
        super().__init__(LITE2)
        self.features = nn.Conv2d(LITE2[-1].dim, HEAD_DIM, 1)
        self.classifier = nn.Conv2d(HEAD_DIM, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(F.relu6(self.features(self.outputs(images)[-1]), inplace=True))
