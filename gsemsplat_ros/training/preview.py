"""Rooms as pictures: depths and names in colours, and a contact sheet to look at before training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.training.datasets import PackedRooms

FAR = 7.0         # m, the darkest depth: one scale for all pictures, so that they can be compared
SHOWN = 0.015     # share of the picture that a thing must cover to be written on
GOLDEN = 111      # degrees / 2: steps of the golden angle go round the hues without meeting
FONT, FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.33


def depth_colours(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) [m] to (H, W, 3) uint8 RGB: bright is near, black is nothing (0 or NaN)."""
    near = np.where(depth > 0, 255 - 235 * np.clip(np.nan_to_num(depth) / FAR, 0, 1), 0).astype(np.uint8)
    return cv2.applyColorMap(near, cv2.COLORMAP_INFERNO)[..., ::-1]


def name_map(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """labels (H, W): rows of `names`, 0 for nothing, to (H, W, 3) uint8 RGB; the names are written on their larger
    places. Under one list of names a name has one colour, and neighbours in the list have very different ones."""
    order = {name: i for i, name in enumerate(dict.fromkeys(names[1:]))}
    hsv = [(0, 0, 0)] + [(order[name] * GOLDEN % 180, 150 - 50 * (order[name] % 2), 235 - 45 * (order[name] % 3))
                         for name in names[1:]]
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
        cv2.putText(picture, names[label], (x, int(y) + height // 2), FONT, FONT_SIZE, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def sheet(samples: list[dict]) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a row a sample; first, second and target view, then depth and names of the first."""
    return np.vstack([np.hstack([*sample['images'], depth_colours(sample['depth'][0]),
                                 name_map(sample['instance'][0], sample['names'])]) for sample in samples])


def preview(folder: str | Path, out: str | Path, rows: int = 8) -> None:
    """Writes the sheet of `rows` samples, evenly spread over the packed rooms of `folder`, as PNG or JPEG.

    Raises ValueError for a folder without packed rooms, and for a name that is no picture's.
    """
    out = Path(out)
    if out.suffix not in ('.png', '.jpg'):
        raise ValueError(f'{out}: wanted a picture whose name ends in .png or .jpg')
    rooms = PackedRooms(folder)
    numbers = np.linspace(0, len(rooms) - 1, min(rows, len(rooms))).astype(int)
    picture = cv2.imencode(out.suffix, sheet([rooms[int(i)] for i in numbers])[..., ::-1])[1]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(picture)
