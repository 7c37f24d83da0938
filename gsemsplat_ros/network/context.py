"""The context-aware branch of the small network: what two frozen, packaged networks know of real pictures.

An ImageNet classifier (EfficientNet-Lite2, 1,000 names) and a COCO detector (NanoDet, 80 names) are run
densely. A class counts by its logit against what it usually is (training/context_code.py). The counts are the
features of this branch, one channel a class, and the text space names a phrase by its classes
(semantics/class_words.py). Gaussians carry a linear code of them, which the context decoder inverts; the
picture itself is asked by its own counts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.network.config import CLASSES
from gsemsplat_ros.network.efficientnet import DenseClassifier
from gsemsplat_ros.network.nanodet import OBJECTS, NanoDet

MULTIPLE = 32  # of the sides of an image that both networks divide evenly
TEMPERATURE = 2.0  # of the class probabilities


class ContextBranch(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to counts (B, 1080, H/8, W/8); `code` makes codes of `dim` channels of
    them."""

    def __init__(self, dim: int):
        super().__init__()
        self.classifier = DenseClassifier()
        self.detector = NanoDet()
        self.slope = nn.Parameter(torch.ones(CLASSES + OBJECTS, 1, 1))
        self.offset = nn.Parameter(torch.zeros(CLASSES + OBJECTS, 1, 1))
        self.code = nn.Conv2d(CLASSES + OBJECTS, dim, 1)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of the ImageNet classes (B, 1000, H/32, W/32), each the mean of 3 x 3 cells, and of the COCO names
        (B, 80, H/8, W/8), the highest over strides."""
        images = evenly(images)
        classes = F.avg_pool2d(self.classifier(images), 3, stride=1, padding=1, count_include_pad=False)
        fine, *coarse = self.detector(images)
        return classes, torch.stack([fine, *(spread(level, fine.shape[-2:]) for level in coarse)]).amax(0)

    def scores(self, images: Tensor) -> Tensor:
        """Both (B, 1080, H/8, W/8), classes first."""
        classes, objects = self.logits(images)
        return torch.cat((spread(classes, objects.shape[-2:]), objects), 1)

    def probabilities(self, images: Tensor) -> Tensor:
        """ImageNet class probabilities (B, 1000, H/32, W/32)."""
        return torch.softmax(self.logits(images)[0] / TEMPERATURE, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images) * self.slope + self.offset


def evenly(images: Tensor) -> Tensor:
    """Images resized by at most 16 pixels, so that 32 divides their sides."""
    size = [max(1, round(side / MULTIPLE)) * MULTIPLE for side in images.shape[-2:]]
    return images if size == list(images.shape[-2:]) else spread(images, size)


def spread(maps: Tensor, size: list[int] | torch.Size) -> Tensor:
    return F.interpolate(maps, list(size), mode='bilinear', align_corners=False)
