"""Pixels of two images that look alike: features, matched by their descriptors. Nothing is verified here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

DESCRIPTOR_UNIT = 1 / 512  # of an entry in 8 bits: of a unit one with 128 none reaches half
LONG_SIDE = 640  # images are matched at most at this size [px]


class Effort(NamedTuple):
    """enlarged: factor on the image; features: at most so many; contrast: of the weakest; ratio: Lowe's test,
    distance of the best match over that of the second best."""

    enlarged: float
    features: int
    contrast: float
    ratio: float


PLAIN = Effort(1.0, 2000, 0.01, 0.85)
FINE = Effort(1.5, 4000, 0.004, 0.8)  # five times as slow: smaller and fainter things, more distinct


class Alike(NamedTuple):
    """Pixels (N, 2) of two images that look alike."""

    uv_first: np.ndarray
    uv_second: np.ndarray


def gray(image: np.ndarray) -> tuple[np.ndarray, float]:
    """The image (H, W, 3) in gray, at most LONG_SIDE pixels long, and its pixels per input pixel."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    factor = min(1.0, LONG_SIDE / max(image.shape))
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    return (image if factor == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)), factor


class Features(NamedTuple):
    """Pixels uv (N, 2) and unit descriptors (N, 128) float32 of an image, the strongest first."""

    uv: np.ndarray
    descriptors: np.ndarray


def described(image: np.ndarray, effort: Effort = PLAIN) -> Features:
    """The features of an image (H, W, 3): RootSIFT (Lowe 2004; Arandjelovic and Zisserman 2012)."""
    small, factor = gray(image)
    if effort.enlarged != 1.0:
        small = cv2.resize(small, None, fx=effort.enlarged, fy=effort.enlarged, interpolation=cv2.INTER_CUBIC)
    sift = cv2.SIFT_create(  # type: ignore[attr-defined]  # not in cv2's stubs
        effort.features, contrastThreshold=effort.contrast
    )
    points, descriptors = sift.detectAndCompute(small, None)
    if descriptors is None:
        return Features(np.empty((0, 2)), np.empty((0, 128), np.float32))
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    uv = np.array([point.pt for point in points])
    order = np.argsort([-point.response for point in points], kind='stable')
    return Features((uv[order] + 0.5) / (factor * effort.enlarged) - 0.5, root[order])


def matched_pixels(first: np.ndarray, second: np.ndarray, effort: Effort = PLAIN) -> Alike:
    """Pixels of two images (H, W, 3) whose descriptors are each other's best, and clearly so."""
    if effort is PLAIN:
        a, b = described(first, effort), described(second, effort)
    else:
        with ThreadPoolExecutor(1) as pool:  # OpenCV works without Python's lock
            other = pool.submit(partial(described, second, effort))
            a, b = described(first, effort), other.result()
    rows, others = matched_rows(a.descriptors, b.descriptors, effort.ratio)
    return Alike(a.uv[rows], b.uv[others])


def matched_rows(a: np.ndarray, b: np.ndarray, ratio: float = PLAIN.ratio) -> tuple[np.ndarray, np.ndarray]:
    """Rows (M,) of unit descriptors a (N, 128) and b (L, 128) that are each other's best, and clearly so."""
    if min(len(a), len(b)) < 2:
        return np.empty(0, int), np.empty(0, int)
    likeness = a @ b.T
    rows = np.arange(len(a))
    best, back = likeness.argmax(1), likeness.argmax(0)
    nearest = likeness[rows, best]
    likeness[rows, best] = -np.inf
    two = np.sqrt(np.maximum(2 - 2 * np.stack((nearest, likeness.max(1))), 0))  # distances
    keep = (back[best] == rows) & (two[0] < ratio * two[1])
    return np.flatnonzero(keep), best[keep]
