"""Two more scores of queries in an annotated view: the published one corrected, and LSM's eight classes.

Letters: K phrases; H, W map; branches 1 or 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gsemsplat_ros.evaluation.metrics import iou
from gsemsplat_ros.evaluation.published import THRESHOLD, FrameScores, fill
from gsemsplat_ros.semantics.relevancy import SMOOTHING_BOX, relative_mask, smooth

FOUND = 0.5  # relevancy from which a phrase counts as found (LERF)
MIN_ALPHA = 0.5  # opacity below which a pixel counts as empty
# LSM (arXiv 2410.18956), sec. 4
EIGHT = ('wall', 'floor', 'ceiling', 'chair', 'table', 'sofa', 'bed', 'other')


def evaluate_corrected(
    relevancy: np.ndarray,
    polygons: Sequence[Sequence[np.ndarray]],
    visible: np.ndarray,
    alpha: np.ndarray | None = None,
    threshold: float = THRESHOLD,
) -> FrameScores:
    """Score one frame as `evaluate_frame`, without its flaws (docs/published.md 31).

    Pixels that are invisible or have an opacity `alpha` (H, W) below 0.5 (None: all are opaque) are excluded
    from peaks, from the range of a map, and from smoothing. One branch, that with the higher peak on the
    other pixels, gives both mask and peak. A phrase with a peak below 0.5 is not found: its mask is empty,
    its IoU 0. The smoothing box is odd, so that it does not shift the map, and masks are not filtered. The
    truth is every annotated visible pixel, rendered or not.
    """
    _, count, height, width = relevancy.shape
    inside = visible if alpha is None else visible & (alpha >= MIN_ALPHA)
    maps = smooth(torch.as_tensor(relevancy), SMOOTHING_BOX | 1, inside=torch.as_tensor(inside)).numpy()
    maps = np.where(inside, maps, np.float32(np.nan))
    scores, chosen = np.full(count, np.nan), np.zeros(count, np.int64)
    localised = np.zeros(count, bool)
    found = np.zeros((count, height, width), bool)
    truth = np.stack([fill(rings, height, width) & visible for rings in polygons])
    peaks: list[np.ndarray] = [np.zeros((0, 2), int) for _ in range(count)]
    for k in range(count):
        if not truth[k].any():
            continue
        if not inside.any():
            scores[k] = 0.0
            continue
        chosen[k] = np.nanmax(maps[:, k], axis=(1, 2)).argmax()
        map_ = maps[chosen[k], k]
        highest = np.nanmax(map_)
        if highest >= FOUND:
            found[k] = relative_mask(map_, (1 + threshold) / 2)
        scores[k] = iou(found[k], truth[k])
        peaks[k] = np.argwhere(map_ == highest)[:, ::-1]
        localised[k] = truth[k][map_ == highest].any()
    return FrameScores(scores, chosen, localised, maps, found, truth, tuple(peaks))


def class_of(category: str) -> int:
    """The row of EIGHT for a category of ScanNet++: an office chair is a chair, a door is "other"."""
    noun = category.lower().split()[-1]
    noun = {'couch': 'sofa'}.get(noun, noun)
    return EIGHT.index(noun if noun in EIGHT else 'other')


def label_map(polygons: Mapping[str, Sequence[np.ndarray]], height: int, width: int) -> np.ndarray:
    """Rows of EIGHT (H, W) int, -1 without annotation; of overlapping polygons the smaller one is on top."""
    labels = np.full((height, width), -1)
    rings = [
        (fill([ring], height, width), class_of(category))
        for category, rings in polygons.items()
        for ring in rings
    ]
    for mask, row in sorted(rings, key=lambda item: -np.count_nonzero(item[0])):
        labels[mask] = row
    return labels


def evaluate_eight(
    relevancy: np.ndarray, polygons: Mapping[str, Sequence[np.ndarray]], visible: np.ndarray
) -> dict:
    """LSM's protocol on an annotated view: every pixel takes its most relevant class of EIGHT.

    relevancy (branches, 8, H, W): of the eight words, not smoothed; of two branches the maximum counts (ours:
    LSM has one). Only annotated visible pixels count. Returns `miou` over the classes that are present or
    predicted, and `accuracy` over the pixels; None if no pixel counts.
    """
    labels = label_map(polygons, *visible.shape)
    counted = visible & (labels >= 0)
    if not counted.any():
        return {'miou': None, 'accuracy': None}
    said, true = relevancy.max(0).argmax(0)[counted], labels[counted]
    overlaps = np.array([iou(said == row, true == row) for row in range(len(EIGHT))])
    return {'miou': float(np.nanmean(overlaps)), 'accuracy': float((said == true).mean())}
