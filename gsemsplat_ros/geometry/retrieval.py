"""One vector for a picture, by which pictures of the same place are found among many.

This is VLAD (Jegou et al. 2010) over 64 kinds of features, each normalised by itself (Arandjelovic and
Zisserman 2013). feature_kinds.txt holds the kinds, one a line, as hexadecimal entries in DESCRIPTOR_UNIT:
k-means over the features of pictures of synthetic rooms for training.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import numpy as np

from gsemsplat_ros.geometry.features import DESCRIPTOR_UNIT


@lru_cache(1)
def feature_kinds() -> np.ndarray:
    """The mean descriptor (K, 128) float32 of each kind."""
    text = (resources.files('gsemsplat_ros.geometry') / 'feature_kinds.txt').read_text(encoding='utf-8')
    return np.array([list(bytes.fromhex(line)) for line in text.split()], np.float32) * np.float32(
        DESCRIPTOR_UNIT
    )


def image_vector(descriptors: np.ndarray) -> np.ndarray:
    """The vector (K * 128,) float32 of an image with these descriptors (N, 128), of unit length; zero without
    any. The likeness of two images is the product of their vectors.
    """
    kinds = feature_kinds()
    kind = (descriptors @ kinds.T - 0.5 * (kinds**2).sum(1)).argmax(1)
    order = np.argsort(kind, kind='stable')
    sums = np.zeros_like(kinds)
    present, first = np.unique(kind[order], return_index=True)
    if len(present):
        sums[present] = np.add.reduceat((descriptors - kinds[kind])[order], first)
    sums = np.sign(sums) * np.sqrt(np.abs(sums))
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return sums.ravel() / max(np.sqrt(len(present)), 1.0)
