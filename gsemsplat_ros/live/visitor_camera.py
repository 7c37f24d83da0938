"""The camera of one visitor: pose, flights and field of view."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.live.shown_scene import FirstView, ShownCamera

if TYPE_CHECKING:
    import viser

FLIGHT_S = 0.6
BACKGROUND = (20, 20, 20)  # RGB of viser's page where no scene is
SCREENSHOT_WITHIN_S = 60.0
MAX_SIDE = 2048  # pixels, long side of a screenshot
FAST_S = 0.25  # a browser that draws the light level within this time gets full detail
FIRST_S = 1.0  # a GPU draws its first picture within this time, loading included
PROBE = 120, 160  # height and width of the timed picture [px]
PROBE_WITHIN_S = 20.0
PROBE_AFTER_S = 3.0  # let the visitor see the scene first


INSIDE = 0.1  # share of the reach: a camera so close to the visitor is not drawn, its image would hide all


@dataclass(frozen=True)
class VisitorView:
    """What a browser says of its camera: position (3,) and orientation (4,), w x y z, in the frame of the
    scene, vertical field of view [rad], and the size of the window [px]."""

    position: tuple[float, ...]
    wxyz: tuple[float, ...]
    fov: float
    width: int
    height: int

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def world_from_camera(self) -> np.ndarray:
        """(4, 4), OpenCV."""
        pose = np.eye(4)
        pose[:3, :3] = quats_to_rotations(np.array(self.wxyz))
        pose[:3, 3] = self.position
        return pose

    def camera(self, long_side: int) -> Camera:
        """The pinhole camera, with pictures of at most `long_side` pixels."""
        factor = min(1.0, long_side / max(self.width, self.height))
        width, height = (max(round(side * factor), 1) for side in (self.width, self.height))
        return Camera.from_fov_y(width, height, self.fov)


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
    def view(self) -> VisitorView:
        """What the browser said last."""
        camera = self._client.camera
        return VisitorView(
            tuple(map(float, camera.position)),
            tuple(map(float, camera.wxyz)),
            float(camera.fov),
            max(int(camera.image_width), 1),
            max(int(camera.image_height), 1),
        )

    def is_inside(self, seen: ShownCamera, reach: float) -> bool:
        """Whether the visitor stands where that camera stood, as one who looks `reach` far."""
        away = np.linalg.norm(self.position - seen.world_from_camera[:3, 3])
        return bool(away < INSIDE * reach)

    def fit(self, first: FirstView) -> None:
        """Take the field of view that shows in this window what the first view shows."""
        fov = first.fov_in(self.view.aspect)
        if abs(fov - self._client.camera.fov) > 1e-3:
            self._client.camera.fov = fov

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
