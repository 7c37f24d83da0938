"""camera_info to cameras: binning and region of interest (REP 104), stereo baseline, rectification."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

from gsemsplat_ros.images.calibration import doubt_baseline, doubt_camera, doubt_pair
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.ros.conversions import quoted

FISHEYE = ('equidistant', 'fisheye')
POLYNOMIAL = ('plumb_bob', 'rational_polynomial')
# distortion model -> numbers of coefficients that it may have
COEFFICIENTS = {**dict.fromkeys(POLYNOMIAL, (4, 5, 8, 12, 14)), **dict.fromkeys(FISHEYE, (4,))}
# part of the rectified image that the raw one must fill: less is the calibration of another camera
MIN_SEEN = 0.2
MAX_UPWARDS = 0.05  # part of the baseline by which a camera may stand above the other: 0.005 in KITTI
MAX_SIDE = 32766  # pixels: cv2.remap counts in 16 bits


def _to_image(K: np.ndarray, info: CameraInfo) -> Camera:
    """`K` (3, 3) of the full, unbinned picture as the camera of the image that the driver sends."""
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    camera = Camera.from_K(K, info.width, info.height).cropped(roi.x_offset, roi.y_offset, width, height)
    return camera.resized(width // max(1, info.binning_x), height // max(1, info.binning_y))


def _check(info: CameraInfo, K: np.ndarray, width: int, height: int, topic: str) -> None:
    """Raises ValueError unless `K` (3, 3) can be that of the full picture, of which the image is a part."""
    if not (
        K[0, 0] > 0 and K[1, 1] > 0 and info.width and info.height and np.isfinite([*info.k, *info.p]).all()
    ):
        raise ValueError(
            f'{topic} is uncalibrated (K[0] = {info.k[0]:g}, P[0] = {info.p[0]:g}, {info.width}x'
            f'{info.height} px): calibrate the camera; only mode sequential with rectified images does '
            'without'
        )
    roi, binning = info.roi, (max(1, info.binning_x), max(1, info.binning_y))
    if roi.x_offset + roi.width > info.width or roi.y_offset + roi.height > info.height:
        raise ValueError(
            f'{topic} has a roi of {roi.width}x{roi.height} px at ({roi.x_offset}, {roi.y_offset}), outside '
            f'its picture of {info.width}x{info.height} px: wanted unbinned pixels of the full '
            'picture (REP 104)'
        )
    wanted = (roi.width or info.width) // binning[0], (roi.height or info.height) // binning[1]
    if wanted != (width, height):
        raise ValueError(
            f'{topic} describes images of {wanted[0]}x{wanted[1]} px (binning and roi applied), the image '
            f'has {width}x{height} px: wanted the camera_info of this image size'
        )
    doubt = doubt_camera(Camera.from_K(K, info.width, info.height))
    if doubt and not doubt_camera(Camera.from_K(K, width, height)):
        doubt = (
            f'K and P are those of {width}x{height} px, as if binning and roi were applied already: wanted '
            f'those of the full picture of {info.width}x{info.height} px (REP 104)'
        )
    if doubt:
        raise ValueError(f'{topic}: {doubt}')


def _projection(info: CameraInfo) -> np.ndarray:
    """(3, 3) camera matrix of the rectified image; K where P was left empty (a monocular driver)."""
    P = np.asarray(info.p, np.float64).reshape(3, 4)
    return P[:, :3] if P[0, 0] > 0 else _raw(info)


def _raw(info: CameraInfo) -> np.ndarray:
    """(3, 3) camera matrix of the raw image."""
    return np.asarray(info.k, np.float64).reshape(3, 3)


def camera_of(info: CameraInfo, width: int, height: int, topic: str = 'camera_info') -> Camera:
    """The camera of a rectified image of `width` x `height` pixels, from P.

    Raises ValueError that names `topic` for an uncalibrated camera (P[0] and K[0] = 0, REP 104), another
    image size, and a calibration that no camera has.
    """
    _check(info, _projection(info), width, height, topic)
    return _to_image(_projection(info), info)


def baseline_of(left: CameraInfo, right: CameraInfo, topic: str = 'right/camera_info') -> float:
    """Stereo baseline [m] of a rectified pair: (left P[3] - right P[3]) / P[0] (REP 104; the left P[3] is not
    zero where both belong to a rig of more cameras). Raises ValueError, which names the right one's `topic`,
    for one that no pair of cameras side by side has, and for cameras that differ in more.
    """
    fx = float(right.p[0])
    # the scene's frame is not shifted by the left P[3]: it is that of the left image, whose origin is this
    # camera's own optical centre (sensor_msgs/Image), as with KITTI's cam2; P[3] tells its place in the rig
    # 0 + 0 is no -0
    across, upwards = (float(left.p[i]) - float(right.p[i]) + 0.0 for i in (3, 7))
    baseline = across / fx if fx > 0 else 0.0
    doubt = doubt_baseline(baseline, fx or None)
    if doubt:
        raise ValueError(
            f'{topic} gives {doubt} (P[3] = {right.p[3]:g}, left {left.p[3]:g}, P[0] = {fx:g}; wanted P[3] = '
            '-fx x baseline in metres)'
        )
    if not abs(upwards) <= MAX_UPWARDS * across:
        raise ValueError(
            f'{topic} has P[7] = {right.p[7]:g}, left {left.p[7]:g}: wanted cameras side by side; '
            'calibrate them together'
        )
    cameras = [Camera.from_K(_projection(info), info.width, info.height) for info in (left, right)]
    doubt = doubt_pair(*cameras)
    if doubt:
        raise ValueError(f'{topic}: {doubt}')
    return baseline


@dataclass(frozen=True)
class _Maps:
    key: tuple
    xy: np.ndarray
    interpolation: np.ndarray


class Rectifier:
    """Rectifies raw images with K, D, R, P of camera_info; reuses its maps until these change."""

    def __init__(self):
        self._maps: _Maps | None = None

    def __call__(self, image: np.ndarray, info: CameraInfo, topic: str = 'camera_info') -> np.ndarray:
        """(H, W, 3) uint8 raw to rectified, black where the raw image shows nothing.

        Raises ValueError as `camera_of`, for an empty or unknown distortion (REP 104: cannot be rectified),
        and for a calibration that makes no picture of the raw image.
        """
        height, width = image.shape[:2]
        _check(info, _raw(info), width, height, topic)
        _check(info, _projection(info), width, height, topic)
        key = (
            width,
            height,
            info.width,
            info.height,
            info.distortion_model,
            tuple(info.d),
            tuple(info.k),
            tuple(info.r),
            tuple(info.p),
            str(info.roi),
            info.binning_x,
            info.binning_y,
        )
        if self._maps is None or self._maps.key != key:
            self._maps = _Maps(key, *self._make(info, width, height, topic))
        return cv2.remap(image, self._maps.xy, self._maps.interpolation, cv2.INTER_LINEAR)

    @staticmethod
    def _make(info: CameraInfo, width: int, height: int, topic: str) -> tuple[np.ndarray, np.ndarray]:
        D, r = np.asarray(info.d, np.float64), np.asarray(info.r, np.float64).reshape(3, 3)
        R = r if r.any() else np.eye(3)  # left empty by a driver of one camera
        if len(D) not in COEFFICIENTS.get(info.distortion_model, ()):
            raise ValueError(
                f'{topic} has distortion_model {quoted(info.distortion_model)} with {len(D)} '
                'coefficients: raw images are rectified with '
                + ', '.join(f'{model} ({" or ".join(map(str, n))})' for model, n in COEFFICIENTS.items())
                + '; or send rectified images and set rectified: true'
            )
        if not (
            np.isfinite(D).all()
            and np.abs(R).max() < 2
            and np.abs(R @ R.T - np.eye(3)).max() < 0.01
            and np.linalg.det(R) > 0
        ):
            raise ValueError(
                f'{topic} has D or R that no calibration gives (not finite, or R no rotation): calibrate '
                'the camera again'
            )
        if max(width, height) > MAX_SIDE:
            raise ValueError(
                f'{topic} describes images of {width}x{height} px: wanted at most {MAX_SIDE} px a side to '
                'rectify them'
            )
        K, P = _to_image(np.asarray(info.k), info).K, _to_image(_projection(info), info).K
        make = (cv2.fisheye if info.distortion_model in FISHEYE else cv2).initUndistortRectifyMap
        xy, interpolation = make(K, D, R, P, (width, height), cv2.CV_16SC2)
        seen = float(((xy >= 0) & (xy < (width, height))).all(axis=2).mean())
        if seen < MIN_SEEN:
            raise ValueError(
                f'{topic} leaves {seen:.0%} of the rectified image to be filled by the raw one: wanted '
                f'{MIN_SEEN:.0%}; is it the calibration of another camera or image size?'
            )
        return xy, interpolation
