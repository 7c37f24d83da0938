"""The camera of one visitor: pose, flights and field of view."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gsemsplat_ros.gaussians.rotations import quats_to_rotations

if TYPE_CHECKING:
    import viser

FLIGHT_S = 0.6
BACKGROUND = (18, 20, 24)  # RGB of screenshots
SCREENSHOT_WITHIN_S = 60.0
MAX_SIDE = 2048  # pixels, long side of a screenshot
FAST_S = 0.25  # a browser that draws the light level within this time gets full detail
FIRST_S = 1.0  # a GPU draws its first picture within this time, loading included
PROBE = 120, 160  # height and width of the timed picture [px]
PROBE_WITHIN_S = 20.0
PROBE_AFTER_S = 5.0  # let the visitor see the scene first


class VisitorCamera:
    """`client`: viser's handle of the browser; gone: it has disconnected. Poses are in the scene's frame."""

    def __init__(self, client: viser.ClientHandle):
        self._client, self.gone = client, False
        self._flight = 0  # number of the newest flight

    @property
    def position(self) -> np.ndarray:
        """(3,) in the frame of the scene."""
        return np.array(self._client.camera.position)

    @property
    def look_at(self) -> np.ndarray:
        """(3,) in the frame of the scene: the centre of rotation."""
        return np.array(self._client.camera.look_at)

    @property
    def world_from_camera(self) -> np.ndarray:
        """(4, 4), OpenCV."""
        pose = np.eye(4)
        pose[:3, :3] = quats_to_rotations(np.array(self._client.camera.wxyz))
        pose[:3, 3] = self.position
        return pose

    @property
    def lens(self) -> tuple[float, float]:
        """Vertical field of view [rad] and width over height."""
        camera = self._client.camera
        return float(camera.fov), float(camera.aspect)

    def stand(self, position: np.ndarray, look_at: np.ndarray) -> None:
        """Move there at once."""
        camera = self._client.camera
        with self._client.atomic():
            camera.position = position
            camera.look_at = look_at

    def fly(self, position: np.ndarray, look_at: np.ndarray) -> None:
        """Move there smoothly; a later flight ends this one."""
        self._flight += 1
        flight, start = self._flight, time.monotonic()
        from_, at = self.position, self.look_at
        share = 0.0
        while share < 1 and flight == self._flight and not self.gone:
            time.sleep(1 / 30)
            share = min((time.monotonic() - start) / FLIGHT_S, 1.0)
            eased = share * share * (3 - 2 * share)
            self.stand(from_ + eased * (position - from_), at + eased * (look_at - at))

    def screenshot(self) -> None:
        """Send the browser its view, without the panel, as a PNG to save."""
        camera = self._client.camera
        width, height = camera.image_width, camera.image_height
        factor = min(1.0, MAX_SIDE / max(width, height, 1))
        shot = self._client.get_render(
            max(round(height * factor), 1),
            max(round(width * factor), 1),
            transport_format='png',
            timeout=SCREENSHOT_WITHIN_S,
        )
        alpha = shot[..., 3:] / 255.0 if shot.shape[2] == 4 else 1.0
        solid = np.rint(shot[..., :3] * alpha + np.array(BACKGROUND) * (1 - alpha)).astype(np.uint8)
        done, data = cv2.imencode('.png', solid[..., ::-1])
        assert done, solid.shape
        self._client.send_file_download('gsemsplat.png', data.tobytes(), save_immediately=True)

    def draws_fast(self) -> bool:
        """Whether the browser draws fast: times two small off-screen renderings, after a pause."""
        time.sleep(PROBE_AFTER_S)
        try:
            for limit in (FIRST_S, FAST_S):  # the first includes loading
                start = time.perf_counter()
                self._client.get_render(*PROBE, timeout=PROBE_WITHIN_S)
                if time.perf_counter() - start > limit:
                    return False
        except (RuntimeError, TimeoutError):
            return False  # disconnected, or too slow
        return True
