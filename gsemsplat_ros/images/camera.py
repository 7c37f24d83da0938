"""The pinhole camera: the one place that knows how points become pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: size and focal lengths in pixels, principal point with pixel centres at integers."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self):
        if self.width < 1 or self.height < 1 or not (self.fx > 0 and self.fy > 0):
            raise ValueError(
                f'camera of {self.width}x{self.height} px with fx {self.fx}, fy {self.fy}: '
                'a calibrated camera has a positive size and focal length; calibrate it'
            )

    @classmethod
    def from_K(cls, K: np.ndarray, width: int, height: int) -> Camera:
        """`K` (3, 3) [px] without skew."""
        K = np.asarray(K, dtype=np.float64).reshape(3, 3)
        return cls(width, height, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 [px]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same picture resampled to `width` x `height` pixels."""
        sx, sy = width / self.width, height / self.height
        return Camera(
            width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        )

    def cropped(self, x0: float, y0: float, width: int, height: int) -> Camera:
        """The camera of the part that starts at pixel (`x0`, `y0`)."""
        return replace(self, width=width, height=height, cx=self.cx - x0, cy=self.cy - y0)
