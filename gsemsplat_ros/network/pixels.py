"""Images as tensors for the network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray | Tensor) -> Tensor:
    """Images (..., H, W, 3) uint8 RGB to (..., 3, H, W) float32 in [-1, 1], on their device."""
    return torch.as_tensor(images).movedim(-1, -3).float() / 127.5 - 1
