"""Image-text encoders for the targets of the semantic codes: masked crops, and a dense map with context.

`minilm-l6` needs no further files: the probabilities of the packaged classifier times the embeddings of the
class names (teacher.py). `openclip:MODEL` is the image tower of a CLIP model whose text tower encodes the
queries later. Both give unit vectors of the text space that the trained checkpoint names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.network.pixels import to_tensor
from gsemsplat_ros.semantics.lexicon import imagenet_names
from gsemsplat_ros.semantics.text import MINILM, MiniLM, open_clip_model

CROP = 224  # side of a crop [px]
AT_ONCE = 64  # crops in one forward pass
OPENCLIP = 'openclip:ViT-B-16'
CLIP_MEAN = 0.48145466, 0.4578275, 0.40821073
CLIP_STD = 0.26862954, 0.26130258, 0.27577711


class ImageEncoder(Protocol):
    """name: of the text space; dim: C; text_mean (C,): subtracted to centre the space, None if it is not."""

    name: str
    dim: int
    text_mean: np.ndarray | None

    def crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Encode K crops (CROP, CROP, 3) uint8 RGB as (K, C) float32, unit rows."""

    def dense(self, image: np.ndarray) -> np.ndarray:
        """Encode an image (H, W, 3) uint8 RGB, sides multiples of 32, as a map (h, w, C) float32 of unit
        vectors with context."""

    def words(self, names: Sequence[str]) -> np.ndarray | None:
        """Encode K names as (K, C) float32, unit rows; None if this encoder's crops are better targets."""


def masked_crop(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The box of `mask` (H, W) bool in `image` (H, W, 3), black outside the mask, padded to a square and
    resized to (CROP, CROP, 3)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    cut = np.where(mask[part][..., None], image[part], 0).astype(np.uint8)
    height, width = cut.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = cut
    return cv2.resize(square, (CROP, CROP), interpolation=cv2.INTER_AREA if side > CROP else cv2.INTER_LINEAR)


def in_parts(crops: Sequence[np.ndarray], features: Callable[[np.ndarray], Tensor]) -> np.ndarray:
    """Encode K crops as unit rows (K, C) float32, AT_ONCE at a time, with `features`: (B, CROP, CROP, 3)
    uint8 -> (B, C)."""
    parts = [np.stack(crops[i : i + AT_ONCE]) for i in range(0, len(crops), AT_ONCE)]
    return np.concatenate([F.normalize(features(part), dim=-1).cpu().numpy() for part in parts])


@lru_cache(1)
def packaged() -> tuple[weights.Checkpoint, MiniLM, Tensor]:
    """The shipped network, its centred text encoder, and the embeddings (1000, C) of the class names."""
    shipped = weights.load(None)
    assert shipped.text_mean is not None, 'the shipped network has a text space'
    encoder = MiniLM(shipped.text_mean.numpy())
    return shipped, encoder, torch.from_numpy(encoder.encode(imagenet_names()))


class Packaged:
    """The ImageNet classifier of the shipped network, in the MiniLM space: coarse, needs no download."""

    name = MINILM

    def __init__(self, device: str = 'cpu'):
        shipped, self._encoder, classes = packaged()
        assert shipped.text_mean is not None, 'the shipped network has a text space'
        self.text_mean: np.ndarray | None = shipped.text_mean.numpy()
        self.dim, self._device = self._encoder.dim, torch.device(device)
        self._branch = shipped.model.context.to(self._device)
        self._classes = classes.to(self._device)

    @torch.inference_mode()
    def crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        return in_parts(crops, lambda pictures: self._probabilities(pictures).mean((1, 2)) @ self._classes)

    @torch.inference_mode()
    def dense(self, image: np.ndarray) -> np.ndarray:
        return F.normalize(self._probabilities(image[None])[0] @ self._classes, dim=-1).cpu().numpy()

    def words(self, names: Sequence[str]) -> np.ndarray:
        return self._encoder.encode(names)

    def _probabilities(self, images: np.ndarray) -> Tensor:
        x = to_tensor(torch.from_numpy(images).to(self._device))
        return self._branch.probabilities(x).permute(0, 2, 3, 1)  # (B, h, w, 1000)


class OpenCLIPImage:
    """The image tower of a plain CLIP vision transformer of open_clip, from a local checkpoint.

    A crop is encoded as its image embedding, as in LangSplat. The dense map is that of MaskCLIP (Zhou et al.
    2022): in the last block every patch keeps its own value vector instead of the attention's mixture, so
    that it matches text, with the context of all blocks before.
    """

    text_mean: np.ndarray | None = None

    def __init__(self, model: str, checkpoint: str | Path, device: str = 'cpu'):
        """Raises ValueError as semantics.text.OpenCLIP, and if the tower is not a plain transformer."""
        _, clip = open_clip_model(model, checkpoint)
        self.name, self._visual = f'openclip:{model}', clip.visual.eval().to(device)
        plain = (
            getattr(self._visual, 'attn_pool', self) is None
            and getattr(self._visual, 'pool_type', '') == 'tok'
        )
        if not plain or self._visual.patch_size not in ((16, 16), (32, 32)):
            raise ValueError(f"the image tower of openclip:{model} gives no dense map here: take 'ViT-B-16'")
        self.dim, self._device = self._visual.output_dim, torch.device(device)

    @torch.inference_mode()
    def crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        return in_parts(crops, lambda pictures: self._visual(self._tensor(pictures)))

    @torch.inference_mode()
    def dense(self, image: np.ndarray) -> np.ndarray:
        tower = self._visual
        x = tower.conv1(self._tensor(image[None]))  # (1, D, h, w)
        grid = x.shape[-2:]
        own, others = tower.positional_embedding[:1], tower.positional_embedding[1:]
        others = others.T.unflatten(1, tower.grid_size)[None]
        others = F.interpolate(others, grid, mode='bicubic', align_corners=False)[0].flatten(1).T
        x = torch.cat((tower.class_embedding[None], x[0].flatten(1).T)) + torch.cat((own, others))
        x = tower.ln_pre(x)[None]  # (1, 1 + h w, D)
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            x = block(x)
        weight, bias = last.attn.in_proj_weight.chunk(3)[2], last.attn.in_proj_bias.chunk(3)[2]
        values = last.attn.out_proj(F.linear(last.ln_1(x[0, 1:]), weight, bias))
        features = tower.ln_post(values) @ tower.proj  # (h w, C)
        return F.normalize(features, dim=-1).unflatten(0, grid).cpu().numpy()

    def words(self, names: Sequence[str]) -> np.ndarray | None:
        return None

    def _tensor(self, images: np.ndarray) -> Tensor:
        x = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=self._device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD)
        )
        return (x - mean) / std


def load_image_encoder(name: str, checkpoint: str | Path | None, device: str = 'cpu') -> ImageEncoder:
    """Load the encoder `name`: 'minilm-l6', or 'openclip:MODEL' with `checkpoint`. Raises ValueError."""
    if name == MINILM:
        if checkpoint is not None:
            raise ValueError(
                f'the encoder {MINILM} has its own weights, got the checkpoint {checkpoint}: '
                f'give --encoder {OPENCLIP} with it'
            )
        return Packaged(device)
    kind, _, model = name.partition(':')
    if kind != 'openclip' or not model:
        raise ValueError(f"unknown encoder {name!r}: wanted '{MINILM}' or '{OPENCLIP}'")
    if checkpoint is None:
        raise ValueError(
            f'the encoder {name} needs its weights (laion2b_s34b_b88k for GSemSplat): give --checkpoint FILE'
        )
    return OpenCLIPImage(model, checkpoint, device)
