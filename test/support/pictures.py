"""Pictures with texture at every scale."""

import cv2
import numpy as np


def clouds(width, height):
    """An image (height, width, 3) uint8 with detail at every scale, as in rooms: octaves of noise."""
    rng, octaves = np.random.default_rng(5), np.zeros((height, width, 3), np.float32)
    for cells in (6, 12, 24, 48, 96):
        noise = rng.random((cells // 2, cells, 3), np.float32)
        octaves += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * (6 / cells) ** 0.5
    return cv2.normalize(octaves, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
