"""Maps as pictures: relevancy over an image, depth in colours. NumPy and OpenCV only."""

from __future__ import annotations

import cv2
import numpy as np

UNKNOWN = (32, 34, 38)  # RGB of pixels without depth
ROOM = 0.5, 7.0  # m: near and far end of depths in rooms, one scale for all their pictures
QUANTILES = 0.02, 0.98  # of the depth: the ends of its colours, unaffected by a few strays


def turbo(level: np.ndarray) -> np.ndarray:
    """Levels (H, W) in [0, 1] to the turbo colour map, (H, W, 3) uint8 RGB; values outside are clipped."""
    index = np.rint(np.clip(level, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(index, cv2.COLORMAP_TURBO)[..., ::-1])


def overlay(image: np.ndarray, relevancy: np.ndarray) -> np.ndarray:
    """Relevancy (H, W) in [0, 1] over the image (H, W, 3) uint8 RGB: the warmer and denser the more relevant.

    The image is unchanged where the relevancy is NaN (not rendered).
    """
    assert image.shape[:2] == relevancy.shape, (image.shape, relevancy.shape)
    known = np.isfinite(relevancy)
    level = np.where(known, relevancy, 0.0).astype(np.float32)
    alpha = ((0.15 + 0.6 * level) * known)[..., None]
    return np.rint(image + (turbo(level).astype(np.float32) - image) * alpha).astype(np.uint8)


def depth_picture(
    depth: np.ndarray, ends: tuple[float, float] | None = None
) -> tuple[np.ndarray, float, float]:
    """Depth (H, W) [m], NaN or not positive where unknown, to (H, W, 3) uint8 RGB: near is red, far is blue.

    Colours are linear in 1 / depth between two ends [m], near and far; None takes them from the depth itself,
    and gives NaN without any known depth. Returns the picture and its ends.
    """
    known = np.isfinite(depth) & (depth > 0)
    picture = np.full((*depth.shape, 3), UNKNOWN, np.uint8)
    if not known.any():
        return picture, *(ends or (float('nan'), float('nan')))
    near, far = ends or (float(q) for q in np.quantile(depth[known], QUANTILES))
    inverse = 1 / np.where(known, depth, 1.0)
    span = max(1 / near - 1 / far, 1e-9)
    # 0.08 .. 0.92: the ends of turbo are nearly black
    colors = turbo(0.08 + 0.84 * np.clip((inverse - 1 / far) / span, 0, 1))
    picture[known] = colors[known]
    return picture, near, far
