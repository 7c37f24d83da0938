"""A map seen straight from above, as a picture. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EMPTY = (24, 27, 32)  # RGB where nothing was seen
CEILING = 1.9  # m: what is higher hides the rest


@dataclass(frozen=True)
class TopView:
    """x to the right, y up: from the corner `low` to `high` (2,) m, `scale` pixels a metre."""

    low: np.ndarray
    high: np.ndarray
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height [px]."""
        width, height = np.ceil((self.high - self.low) * self.scale).astype(int).tolist()
        return width, height

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """(..., 2) px of places (..., 2) m; a pixel's centre has whole numbers."""
        x, y = np.moveaxis(np.asarray(places, float), -1, 0)
        u, v = (x - self.low[0]) * self.scale - 0.5, (self.high[1] - y) * self.scale - 0.5
        return np.stack((u, v), -1)

    def picture(self, points: np.ndarray, colors: np.ndarray, width: float) -> np.ndarray:
        """(H, W, 3) uint8 RGB of points (N, 3) m with colors (N, 3) in [0, 1], each a square of `width` [m];
        of several the highest is seen."""
        columns, rows = self.size
        shown = points[:, 2] < CEILING
        points, colors = points[shown], np.rint(255 * np.clip(colors[shown], 0, 1)).astype(np.uint8)
        half = max(width * self.scale / 2, 0.5)
        side = np.arange(-half + 0.5, half)
        u, v = self.pixels(points[:, :2])[np.argsort(points[:, 2], kind='stable')].T
        colors = colors[np.argsort(points[:, 2], kind='stable')]
        image = np.full((rows * columns, 3), EMPTY, np.uint8)
        i = np.rint(v[:, None, None] + side[:, None]).astype(int) + np.zeros((1, 1, len(side)), int)
        j = np.rint(u[:, None, None] + side[None, :]).astype(int) + np.zeros((1, len(side), 1), int)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        image[(i * columns + j)[inside]] = np.broadcast_to(colors[:, None, None], (*i.shape, 3))[inside]
        return image.reshape(rows, columns, 3)
