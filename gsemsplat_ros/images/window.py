"""The part of an image that the network sees."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Window:
    """Where the network's picture lies in the input image.

    `input = (network + 0.5) * scale + (x0, y0) - 0.5`, all in pixels with centres at integers.
    """

    input_width: int
    input_height: int
    width: int
    height: int
    scale_x: float
    scale_y: float
    x0: float
    y0: float

    def to_input(self, uv: np.ndarray) -> np.ndarray:
        """Network pixels (..., 2) to input pixels (..., 2)."""
        return (np.asarray(uv, np.float64) + 0.5) * (self.scale_x, self.scale_y) + (
            self.x0 - 0.5,
            self.y0 - 0.5,
        )

    def to_network(self, uv: np.ndarray) -> np.ndarray:
        """Input pixels (..., 2) to network pixels (..., 2)."""
        return (np.asarray(uv, np.float64) + 0.5 - (self.x0, self.y0)) / (self.scale_x, self.scale_y) - 0.5

    def expand(self, image_map: np.ndarray, fill: float = np.nan) -> np.ndarray:
        """A map (h, w) over the window to (input_height, input_width) float32, with `fill` outside.

        The map may have any resolution. Bilinear; NaN stays where the nearest map value is NaN.
        """
        h, w = image_map.shape
        invalid = ~np.isfinite(image_map)
        values = np.where(invalid, 0.0, image_map).astype(np.float32)
        weights = (~invalid).astype(np.float32)
        sx, sy = self.scale_x * self.width / w, self.scale_y * self.height / h
        # input = (map + 0.5) * s + x0 - 0.5: the forward affine map that warpAffine inverts
        forward = np.array([[sx, 0.0, 0.5 * sx + self.x0 - 0.5], [0.0, sy, 0.5 * sy + self.y0 - 0.5]])
        size = (self.input_width, self.input_height)
        values = cv2.warpAffine(
            values, forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        weights = cv2.warpAffine(
            weights, forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        out = np.full((self.input_height, self.input_width), np.float32(fill))
        left, top = max(0, round(self.x0)), max(0, round(self.y0))
        inside = np.s_[
            top : round(self.y0 + self.height * self.scale_y),
            left : round(self.x0 + self.width * self.scale_x),
        ]
        seen = weights[inside] >= 0.5
        out[inside] = np.where(seen, values[inside] / np.maximum(weights[inside], 1e-6), np.float32(np.nan))
        return out
