"""camera_info to cameras: binning and region of interest (REP 104), stereo baseline, rectification of raw images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

from gsemsplat_ros.views.view import Camera

FISHEYE = ('equidistant', 'fisheye')
POLYNOMIAL = ('plumb_bob', 'rational_polynomial')


def _to_image(K: np.ndarray, info: CameraInfo) -> Camera:
    """`K` (3, 3) of the full, unbinned picture as the camera of the image that the driver sends."""
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    camera = Camera.from_K(K, info.width, info.height).cropped(roi.x_offset, roi.y_offset, width, height)
    return camera.resized(width // max(1, info.binning_x), height // max(1, info.binning_y))


def _check(info: CameraInfo, width: int, height: int, topic: str) -> None:
    if not (info.k[0] > 0 and info.k[4] > 0 and info.width and info.height and np.isfinite([*info.k, *info.p]).all()):
        raise ValueError(f'{topic} is uncalibrated (K[0] = {info.k[0]:g}, {info.width}x{info.height} px): calibrate '
                         'the camera; only mode sequential with rectified images does without')
    wanted = ((info.roi.width or info.width) // max(1, info.binning_x),
              (info.roi.height or info.height) // max(1, info.binning_y))
    if wanted != (width, height):
        raise ValueError(f'{topic} describes images of {wanted[0]}x{wanted[1]} px (binning and roi applied), the image '
                         f'has {width}x{height} px: wanted the camera_info of this image size')


def _projection(info: CameraInfo) -> np.ndarray:
    """(3, 3) camera matrix of the rectified image; K where P was left empty (a monocular driver)."""
    P = np.asarray(info.p, np.float64).reshape(3, 4)
    return P[:, :3] if P[0, 0] > 0 else np.asarray(info.k, np.float64).reshape(3, 3)


def camera_of(info: CameraInfo, width: int, height: int, topic: str = 'camera_info') -> Camera:
    """The camera of a rectified image of `width` x `height` pixels, from P.

    Raises ValueError that names `topic` when the camera is uncalibrated (K[0] = 0, REP 104) or of another size.
    """
    _check(info, width, height, topic)
    return _to_image(_projection(info), info)


def baseline_of(right: CameraInfo, topic: str = 'right/camera_info') -> float:
    """Distance of the two cameras [m]: -P[3] / P[0] of the RIGHT camera_info. Raises ValueError unless positive."""
    baseline = (0.0 - right.p[3]) / right.p[0] if right.p[0] else 0.0  # 0 - 0 is no -0
    if not 0 < baseline < float('inf'):
        raise ValueError(f'{topic} gives a stereo baseline of {baseline:g} m (P[3] = {right.p[3]:g}, P[0] = '
                         f'{right.p[0]:g}): wanted P[3] = -fx x baseline; are left and right exchanged, or calibrated '
                         'one by one?')
    return baseline


@dataclass(frozen=True)
class _Maps:
    key: tuple
    xy: np.ndarray
    interpolation: np.ndarray


class Rectifier:
    """Turns raw images into rectified ones with K, D, R, P of camera_info; keeps the maps while these stay the same."""

    def __init__(self):
        self._maps: _Maps | None = None

    def __call__(self, image: np.ndarray, info: CameraInfo, topic: str = 'camera_info') -> np.ndarray:
        """(H, W, 3) uint8 raw to rectified, black where the raw image shows nothing.

        Raises ValueError as `camera_of`, and for an empty or unknown distortion (REP 104: cannot be rectified).
        """
        height, width = image.shape[:2]
        _check(info, width, height, topic)
        key = (width, height, info.width, info.height, info.distortion_model, tuple(info.d), tuple(info.k),
               tuple(info.r), tuple(info.p), str(info.roi), info.binning_x, info.binning_y)
        if self._maps is None or self._maps.key != key:
            self._maps = _Maps(key, *self._make(info, width, height, topic))
        return cv2.remap(image, self._maps.xy, self._maps.interpolation, cv2.INTER_LINEAR)

    @staticmethod
    def _make(info: CameraInfo, width: int, height: int, topic: str) -> tuple[np.ndarray, np.ndarray]:
        D, R = np.asarray(info.d, np.float64), np.asarray(info.r, np.float64).reshape(3, 3)
        if not R.any():
            R = np.eye(3)
        K, P = _to_image(np.asarray(info.k), info).K, _to_image(_projection(info), info).K
        if len(D) and info.distortion_model in FISHEYE:
            return cv2.fisheye.initUndistortRectifyMap(K, D[:4], R, P, (width, height), cv2.CV_16SC2)
        if len(D) and info.distortion_model in POLYNOMIAL:
            return cv2.initUndistortRectifyMap(K, D, R, P, (width, height), cv2.CV_16SC2)
        raise ValueError(f"{topic} has distortion_model '{info.distortion_model}' with {len(D)} coefficients: "
                         f'raw images are rectified with {", ".join(POLYNOMIAL + FISHEYE)}; or send rectified '
                         'images and set rectified: true')
