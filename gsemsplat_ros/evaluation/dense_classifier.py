"""The untrained peer: a packaged ImageNet classifier run densely, without Gaussians, codes or training.

A phrase is a mixture of the class names, by their likeness in the text space. Whatever a trained network
answers must be better than this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.lexicon import imagenet_names
from gsemsplat_ros.semantics.text import MiniLM, TextEncoder

LONG_SIDES = 384, 512, 640  # of the image [px]; the logits are averaged
STRIDE = 32  # of the classifier: image sides are multiples of it
SHARPNESS = 0.05  # temperature of the softmax over the class names


class ClassifierPeer:
    """Answers phrases by the logits of a classifier at each cell of an image.

    logits: images (1, 3, h, w) float32 in [-1, 1], RGB, to (1, classes, h / 32, w / 32), on the CPU; names:
    of the classes, in that order; encoder: of the text space in which they are compared with phrases.
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], names: Sequence[str], encoder: TextEncoder):
        self._logits, self._encoder = logits, encoder
        named = encoder.encode(names)
        self._mean = named.mean(0)
        self._names = self._centred(named)  # (classes, C)

    @classmethod
    def of(cls, model: GSemSplat) -> ClassifierPeer | None:
        """The peer with the classifier inside a network; None: it has none, as the public one."""
        if not model.config.stem:
            return None
        device = model.mask_token.device

        def logits(images: Tensor) -> Tensor:
            return model.context.classifier(images.to(device, model.mask_token.dtype)).float().cpu()

        return cls(logits, imagenet_names(), MiniLM())

    def _centred(self, embeddings: np.ndarray) -> Tensor:
        """Unit rows (K, C) minus the mean of the classes, unit again: unrelated words are then unlike."""
        return F.normalize(torch.from_numpy(embeddings - self._mean), dim=1)

    @torch.inference_mode()
    def maps(self, image: np.ndarray, phrases: Sequence[str]) -> np.ndarray:
        """Image (H, W, 3) uint8 RGB and K phrases to maps (K, h, w) float32 that cover it: weighted means of
        the classes' logits, each the mean of 3x3 cells and over the sizes of the image.
        """
        grids = [
            F.avg_pool2d(
                self._logits(network_input(image, side)), 3, stride=1, padding=1, count_include_pad=False
            )
            for side in LONG_SIDES
        ]
        size = grids[-1].shape[-2:]
        mean = torch.stack([F.interpolate(grid, size, mode='bilinear') for grid in grids]).mean(0)[0]
        likeness = self._centred(self._encoder.encode(phrases)) @ self._names.T
        return torch.einsum('kc,chw->khw', torch.softmax(likeness / SHARPNESS, 1), mean).numpy()

    def peaks(self, image: np.ndarray, phrases: Sequence[str]) -> list[tuple[float, tuple[float, float]]]:
        """Of each phrase: score, the peak of its map [logits], and where, as pixel (u, v) of the image."""
        if not phrases:
            return []
        height, width = image.shape[:2]
        answers = []
        for map_ in self.maps(image, phrases):
            v, u = np.unravel_index(map_.argmax(), map_.shape)
            pixel = (u + 0.5) * width / map_.shape[1] - 0.5, (v + 0.5) * height / map_.shape[0] - 0.5
            answers.append((float(map_.max()), pixel))
        return answers


def network_input(image: np.ndarray, long_side: int) -> Tensor:
    """Image (H, W, 3) uint8 RGB to (1, 3, h, w) float32 in [-1, 1], in whole cells, to which the aspect gives
    way.
    """
    scale = long_side / max(image.shape[:2])
    height, width = (max(1, round(side * scale / STRIDE)) * STRIDE for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    return torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 127.5 - 1
