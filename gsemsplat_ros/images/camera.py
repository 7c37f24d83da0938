"""The pinhole camera: the only place where points become pixels and pixels rays.

A camera looks along +z with x to the right and y down (OpenCV; the `*_optical_frame` of REP 103). Pixel
centres lie at integer coordinates: pixel (u, v) covers [u - 0.5, u + 0.5), and the image [-0.5, width - 0.5)
by [-0.5, height - 0.5). A point is in front of the camera when its z, along the axis, is positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.images.window import Window

UP_OF_CAMERA = (0.0, -1.0, 0.0)  # in optical frames (REP 103), if the camera is held level


def pixel_grid(height: int, width: int) -> np.ndarray:
    """(height, width, 2) float64 pixel centres (u, v)."""
    return np.stack(np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)), -1)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: size and focal lengths in pixels, principal point with pixel centres at integers.

    Raises ValueError for a size or focal length that is not positive.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
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

    @classmethod
    def centred(cls, width: int, height: int, focal: float) -> Camera:
        """Square pixels, the principal point in the middle of the image; focal length [px]."""
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    @classmethod
    def from_fov_y(cls, width: int, height: int, fov_y: float) -> Camera:
        """Centred, with a vertical field of view of `fov_y` [rad]."""
        return cls.centred(width, height, height / 2 / math.tan(fov_y / 2))

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 [px]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def fov_y(self) -> float:
        """Vertical field of view [rad], as if the principal point lay in the middle."""
        return 2 * math.atan(self.height / 2 / self.fy)

    @property
    def aspect(self) -> float:
        """Width over height of the field of view at one depth."""
        return self.width / self.height * self.fy / self.fx

    def project(self, points: np.ndarray, near: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Points (..., 3) in the camera's frame to pixels (..., 2), and which (...) bool lie farther than
        `near` along the axis. The pixels of the others are meaningless, but finite if the points are.
        """
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        in_front = z > near
        z = np.where(in_front, z, 1.0)
        with np.errstate(over='ignore', invalid='ignore'):  # non-finite points stay non-finite
            return np.stack((self.fx * x / z + self.cx, self.fy * y / z + self.cy), -1), in_front

    def rays(self, uv: np.ndarray) -> np.ndarray:
        """(..., 3) points at depth 1 that fall on the pixels uv (..., 2)."""
        u, v = uv[..., 0], uv[..., 1]
        return np.stack(((u - self.cx) / self.fx, (v - self.cy) / self.fy, np.ones(u.shape)), -1)

    def unproject(self, depth: np.ndarray) -> np.ndarray:
        """Depth (height, width) along the axis to points (height, width, 3) in the camera's frame."""
        return self.rays(pixel_grid(self.height, self.width)) * depth[..., None]

    def in_image(self, uv: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """Which pixels (..., 2) lie in the image, farther than `margin` [px] from its border."""
        u, v, edge = uv[..., 0], uv[..., 1], margin - 0.5
        return (u > edge) & (u < self.width - 1 - edge) & (v > edge) & (v < self.height - 1 - edge)

    def index(self, uv: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Rows and columns (...) int of the image nearest to the pixels uv (..., 2), and which (...) bool lie
        in the image; row and column are 0 for the others.
        """
        inside = self.in_image(uv)
        u, v = (np.rint(np.where(inside, uv[..., axis], 0)).astype(int) for axis in (0, 1))
        return (v, u), inside

    def length(self, pixels: float) -> float:
        """Length that `pixels` along a row cover at depth 1, in the unit of depth."""
        return pixels / self.fx

    def pixels(self, length: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Pixels that a `length` across the axis covers at `depth`, in a row or column, whichever is more."""
        return max(self.fx, self.fy) * length / depth

    def depth_of(self, disparity: np.ndarray, baseline: float) -> np.ndarray:
        """Depth, in the unit of `baseline`, of points that an equal camera `baseline` along +x sees
        `disparity` [px] farther to the left.
        """
        return self.fx * baseline / disparity

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same picture resampled to `width` x `height` pixels."""
        sx, sy = width / self.width, height / self.height
        return Camera(
            width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        )

    def cropped(self, x0: float, y0: float, width: int, height: int) -> Camera:
        """The camera of the part that starts at pixel (`x0`, `y0`)."""
        return replace(self, width=width, height=height, cx=self.cx - x0, cy=self.cy - y0)

    def mirrored(self) -> Camera:
        """The camera of the picture with left and right exchanged."""
        return replace(self, cx=self.width - 1 - self.cx)

    def strided(self, step: int) -> Camera:
        """The camera of the picture that [step // 2 :: step, step // 2 :: step] takes from this one's."""
        start = step // 2
        return Camera(
            len(range(start, self.width, step)),
            len(range(start, self.height, step)),
            self.fx / step,
            self.fy / step,
            (self.cx - start) / step,
            (self.cy - start) / step,
        )

    def in_window(self, window: Window) -> Camera:
        """The camera of the picture that shows `window` of this one's."""
        cx, cy = window.to_network(np.array([self.cx, self.cy])).tolist()
        return Camera(window.width, window.height, self.fx / window.scale_x, self.fy / window.scale_y, cx, cy)

    def around_window(self, window: Window) -> Camera:
        """The camera of the whole input image of which this one's picture shows `window`."""
        cx, cy = window.to_input(np.array([self.cx, self.cy])).tolist()
        return Camera(
            window.input_width,
            window.input_height,
            self.fx * window.scale_x,
            self.fy * window.scale_y,
            cx,
            cy,
        )
