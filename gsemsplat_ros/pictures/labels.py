"""Names in an image: each with its colour, written where it is. NumPy and OpenCV only."""

from __future__ import annotations

import cv2
import numpy as np

SHOWN = 0.015  # least share of the picture on which a name is written
GOLDEN = 111  # degrees / 2: steps of the golden angle spread over the hues
FONT, FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.33


def name_map(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """labels (H, W), rows of `names`, 0 for nothing, to (H, W, 3) uint8 RGB, with names written on larger
    areas. In one list of names each has one colour, and neighbours in the list have very different ones.
    """
    order = {name: i for i, name in enumerate(dict.fromkeys(names[1:]))}
    hsv = [(0, 0, 0)] + [
        (order[name] * GOLDEN % 180, 150 - 50 * (order[name] % 2), 235 - 45 * (order[name] % 3))
        for name in names[1:]
    ]
    colours = cv2.cvtColor(np.array([hsv], np.uint8), cv2.COLOR_HSV2RGB)[0]
    picture = np.ascontiguousarray(colours[labels])
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        if mask.mean() < SHOWN:
            continue
        inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        width, height = cv2.getTextSize(names[label], FONT, FONT_SIZE, 1)[0]
        x = int(np.clip(x - width // 2, 0, max(0, labels.shape[1] - width)))
        cv2.putText(
            picture, names[label], (x, int(y) + height // 2), FONT, FONT_SIZE, (0, 0, 0), 1, cv2.LINE_AA
        )
    return picture
