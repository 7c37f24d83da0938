"""Two more scores of queries in an annotated view: the published one without its flaws, and LSM's eight
classes.

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
MIN_ALPHA = 0.5  # opacity below which a pixel shows nothing
EIGHT = (
    'wall',
    'floor',
    'ceiling',
    'chair',
    'table',
    'sofa',
    'bed',
    'other',
)  # LSM (arXiv 2410.18956), sec. 4


def evaluate_corrected(
    relevancy: np.ndarray,
    polygons: Sequence[Sequence[np.ndarray]],
    visible: np.ndarray,
    alpha: np.ndarray | None = None,
    threshold: float = THRESHOLD,
) -> FrameScores:
    """Scores one frame as `evaluate_frame` does, without its flaws (docs/published.md 31).

    Pixels that are not visible, or where less than half was rendered (`alpha` (H, W), None: all were),
    neither win nor set the range of a map, and smoothing does not mix them in. One branch answers, that with
    the higher peak there, for the mask and for the peak alike. A peak below 0.5 means that the phrase was not
    found: its mask is empty, its IoU 0. The smoothing box is odd, so that it shifts nothing, and no mask is
    filtered. The truth is all that is annotated and visible, rendered or not.
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
    """The row of EIGHT that a category of ScanNet++ belongs to: an office chair is a chair, a door is
    "other".
    """
    noun = category.lower().split()[-1]
    noun = {'couch': 'sofa'}.get(noun, noun)
    return EIGHT.index(noun if noun in EIGHT else 'other')


def label_map(polygons: Mapping[str, Sequence[np.ndarray]], height: int, width: int) -> np.ndarray:
    """Rows of EIGHT (H, W) int, -1 where nothing is annotated; where polygons overlap, the smaller one is in
    front.
    """
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
    """LSM's protocol on an annotated view: every pixel takes the class of EIGHT that it is most like.

    relevancy (branches, 8, H, W) of the eight words, not smoothed; of two branches the surer one speaks
    (ours: LSM has one). Counts pixels that are annotated and visible. Returns `miou`, over the classes that
    are there or were said, and `accuracy` of the pixels; None where nothing counts.
    """
    labels = label_map(polygons, *visible.shape)
    counted = visible & (labels >= 0)
    if not counted.any():
        return {'miou': None, 'accuracy': None}
    said, true = relevancy.max(0).argmax(0)[counted], labels[counted]
    overlaps = np.array([iou(said == row, true == row) for row in range(len(EIGHT))])
    return {'miou': float(np.nanmean(overlaps)), 'accuracy': float((said == true).mean())}
