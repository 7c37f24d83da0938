"""A video of a flight through the scene as a visitor sees it, for download."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.flight.flight import VIDEO_LONG_SIDE, fly, resized
from gsemsplat_ros.flight.paths import CameraPath
from gsemsplat_ros.flight.video import write_video
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.live.shown_scene import ShownScene


def film(
    shown: ShownScene,
    colors: np.ndarray,
    path: CameraPath,
    world_from_start: np.ndarray,
    fov: float,
    aspect: float,
    has_left: Callable[[], bool],
) -> bytes:
    """An MP4 file of the shown Gaussians, in `colors` (M, 3) in [0, 1], flown along `path`.

    world_from_start (4, 4): OpenCV pose at the start of the path; fov: vertical [rad]; aspect: width over
    height; has_left: whether the visitor has left, which ends the film. Raises ValueError then, and without
    PyAV.
    """
    width, height = round(VIDEO_LONG_SIDE * aspect), VIDEO_LONG_SIDE
    camera = resized(Camera.from_fov_y(width, height, fov), VIDEO_LONG_SIDE)
    gaussians = shown.drawn.transformed(np.linalg.inv(world_from_start), 'start')

    def frames() -> Iterator[np.ndarray]:
        for _, coloured in fly(gaussians, torch.from_numpy(np.asarray(colors, np.float32)), path, camera):
            if has_left():
                raise ValueError('the visitor has left before the film was drawn')
            yield coloured

    with tempfile.TemporaryDirectory(prefix='gsemsplat') as folder:
        file = Path(folder) / 'flight.mp4'
        write_video(file, frames(), path.fps)
        return file.read_bytes()
