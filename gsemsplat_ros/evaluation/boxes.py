"""The boxes of an answer against the true instances of its name, by 3D intersection over union.

Boxes (..., 2, 3): the lowest and highest x, y, z, along the axes of one frame.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gsemsplat_ros.semantics.objects import Object

MIN_IOU = 0.25  # from which a box is the instance's
MIN_SHARE = 0.001  # of the view: an instance of which less is visible is not counted


def boxes_of(objects: Iterable[Object], scale: float = 1.0) -> np.ndarray:
    """(N, 2, 3): the boxes of the objects, times `scale`."""
    corners = [thing.corners[[0, 7]] for thing in objects]
    return scale * np.array(corners).reshape(-1, 2, 3)


def true_boxes(points: np.ndarray, instance: np.ndarray, rows: Iterable[int]) -> np.ndarray:
    """(M, 2, 3): the boxes around the visible part of each instance in `rows`.

    points (H, W, 3): surface of one view, in the frame of the boxes; instance (H, W). Instances on less
    than a thousandth of the view are left out.
    """
    masks = [instance == row for row in rows]
    seen = [points[mask] for mask in masks if mask.mean() >= MIN_SHARE]
    return np.array([(part.min(0), part.max(0)) for part in seen]).reshape(-1, 2, 3)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (N, M) of the boxes (N, 2, 3) and (M, 2, 3); 0 where the union is flat."""
    low, high = np.maximum(a[:, None, 0], b[None, :, 0]), np.minimum(a[:, None, 1], b[None, :, 1])
    both = np.clip(high - low, 0, None).prod(-1)
    union = (a[:, 1] - a[:, 0]).prod(-1)[:, None] + (b[:, 1] - b[:, 0]).prod(-1)[None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def box_scores(found: np.ndarray, true: np.ndarray) -> dict[str, list[float]]:
    """The boxes found (N, 2, 3), best first, against the true ones (M, 2, 3); the values of each measure.

    box_precision: of each found, 1 if it is right; box_recall: of each true one, 1 if it was found;
    box_count_error: |N - M|. In their order, each box found takes the true one of the highest IoU that is
    left, from MIN_IOU on.
    """
    right, taken = np.zeros(len(found)), np.zeros(len(true))
    for i, overlaps in enumerate(box_iou(found, true) if len(true) else ()):
        best = int((overlaps * (1 - taken)).argmax())
        if overlaps[best] >= MIN_IOU and not taken[best]:
            right[i] = taken[best] = 1
    return {
        'box_precision': right.tolist(),
        'box_recall': taken.tolist(),
        'box_count_error': [float(abs(len(found) - len(true)))],
    }
