"""Finds the input pair of an annotated view in a scene on disk, because the annotations do not name it.

The view's frame is the one that looks like the annotated image. The inputs are the two frames that together
see the pixels of the visibility mask, which was made from them (docs/published.md 32, 37).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from gsemsplat_ros.datasets.frames import Source
from gsemsplat_ros.evaluation.annotated_views import AnnotatedView, Inputs
from gsemsplat_ros.geometry.visibility import seen_by, surface_points
from gsemsplat_ros.images.view import View

THUMB = 64  # px: side of the compared thumbnails
ALIKE = 0.95  # least correlation of two images of one view; neighbouring views are below
GRID = 64  # side of the grid of pixels on which masks are compared, approximately
AGREE = 0.7  # least IoU of a pair's visible pixels with the mask


def find_inputs(source: Source, scene: str, frame: AnnotatedView) -> Inputs:
    """The inputs of a network for `frame`.

    source: scenes of posed RGB-D frames, cut to the size of the annotated view.

    Raises ValueError if no frame looks like the view, or no pair sees the pixels of its mask.
    """
    names = source.frames(scene)
    likeness = [alike(frame.image, source.frame(scene, name).image) for name in names]
    best = int(np.argmax(likeness))
    if likeness[best] < ALIKE:
        raise ValueError(
            f'{scene}: no frame looks like {frame.name}.jpg (the nearest, {names[best]}, correlates with '
            f'{likeness[best]:.2f}, wanted {ALIKE}): is it cut in the published way?'
        )
    geometries = [source.geometry(scene, name) for name in names]
    target = geometries[best]
    step = max(1, min(target.depth.shape) // GRID)
    rows, columns = (np.arange(step // 2, side, step) for side in target.depth.shape)
    grid = np.ix_(rows, columns)
    known = target.depth[grid] > 0
    points = surface_points(target.depth, target.camera, target.world_from_camera)[grid]
    seen = [
        None
        if i == best
        else known & seen_by(points, other.depth, other.camera, np.linalg.inv(other.world_from_camera))
        for i, other in enumerate(geometries)
    ]
    first, second, agreement = find_pair(seen, frame.visible[grid] & known)
    if agreement < AGREE:
        raise ValueError(
            f'{scene}: no two frames see what the mask of {frame.name} shows (the best, {names[first]} and '
            f'{names[second]}, agree to {agreement:.2f}, wanted {AGREE}): give cameras.json with the pair'
        )
    inputs = [
        View(
            source.frame(scene, names[i]).image,
            geometries[i].camera,
            map_from_camera=geometries[i].world_from_camera,
        )
        for i in (first, second)
    ]
    first_from_camera = np.linalg.inv(geometries[first].world_from_camera) @ target.world_from_camera
    return Inputs(inputs[0], inputs[1], target.camera, first_from_camera)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two images (H, W, 3) uint8 as small grey thumbnails."""
    x, y = (
        cv2.resize(
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (THUMB, THUMB), interpolation=cv2.INTER_AREA
        ).astype(float)
        for image in (a, b)
    )
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / norm) if norm > 0 else 0.0


def find_pair(seen: Sequence[np.ndarray | None], mask: np.ndarray) -> tuple[int, int, float]:
    """Indices of the two masks (h, w) bool whose union has the highest IoU with `mask`, the larger one first,
    and that IoU. Frames with None cannot be chosen."""
    rows = [i for i, part in enumerate(seen) if part is not None]
    flat = np.stack([part.ravel() for part in seen if part is not None]).astype(np.float32)  # (N, P)
    size = flat.sum(1)
    both = flat @ flat.T  # (N, N) pixels seen by both
    in_mask = flat[:, mask.ravel()]
    union = size[:, None] + size - both
    hits = in_mask.sum(1)
    inside = hits[:, None] + hits - in_mask @ in_mask.T
    overlap = inside / np.maximum(union + mask.sum() - inside, 1)
    np.fill_diagonal(overlap, -1)
    a, b = np.unravel_index(overlap.argmax(), overlap.shape)
    if size[b] > size[a]:
        a, b = b, a
    return rows[a], rows[b], float(overlap[a, b])
