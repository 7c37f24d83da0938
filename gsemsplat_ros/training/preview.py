"""A contact sheet of packed rooms, to look at before training: colour, depth and instances of a few pairs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.training.datasets import PackedRooms

FAR = 7.0  # m, the darkest depth of the sheet


def sheet(samples: list[dict]) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a row a sample; first, second and target view, then depth and instances of the
    first.

    Colour of depth: bright is near, black is nothing. The instances carry their names where they are large
    enough.
    """
    rows = []
    for sample in samples:
        depth, instance = sample['depth'][0], sample['instance'][0]
        near = np.where(depth > 0, 255 - 235 * np.clip(depth / FAR, 0, 1), 0).astype(np.uint8)
        hues = np.random.default_rng(0).integers(60, 255, (int(instance.max()) + 1, 3), np.uint8)
        named = np.ascontiguousarray(hues[instance])
        for ident in np.unique(instance[instance > 0]):
            mask = instance == ident
            if mask.mean() > 0.015:
                inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
                y, x = np.unravel_index(inside.argmax(), inside.shape)
                word = sample['names'][ident]
                cv2.putText(
                    named,
                    word,
                    (max(0, int(x) - 3 * len(word)), int(y)),
                    cv2.FONT_HERSHEY_SIMPLEX,
                    0.33,
                    (0, 0, 0),
                    1,
                )
        rows.append(
            np.hstack([*sample['images'], cv2.applyColorMap(near, cv2.COLORMAP_INFERNO)[..., ::-1], named])
        )
    return np.vstack(rows)


def preview(folder: str | Path, out: str | Path, rows: int = 8) -> None:
    """Writes the sheet of `rows` samples, evenly spread over the packed rooms of `folder`, as PNG.

    Raises ValueError for a folder without packed rooms.
    """
    rooms = PackedRooms(folder)
    numbers = np.linspace(0, len(rooms) - 1, min(rows, len(rooms))).astype(int)
    cv2.imwrite(str(out), sheet([rooms[int(i)] for i in numbers])[..., ::-1])
