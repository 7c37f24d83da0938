"""Objects that only one visitor sees: own splats in place of the shared ones, a picture in place of either,
labelled boxes, cameras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gsemsplat_ros.gaussians.rotations import rotation_to_quat
from gsemsplat_ros.live import panel_text
from gsemsplat_ros.live.page_answer import PageAnswer
from gsemsplat_ros.live.shown_scene import ShownCamera, ShownScene

if TYPE_CHECKING:
    import viser

BOXES = 8  # objects drawn
BOX_COLORS = (255, 190, 60), (235, 235, 235)  # RGB: best object, others
GONE_COLOR = (130, 140, 150)
APART = 0.04  # share of the viewing distance: the images of cameras closer than this intersect
ROOT = '/scene'  # a page's own node: hides the splats from this visitor alone
SPLATS = f'{ROOT}/splats'  # name of the shared node, and of a page's own that replaces it
JPEG_QUALITY = 90


def add_splats(scene: viser.SceneApi) -> viser.GaussianSplatHandle:
    """Add an empty node of splats named SPLATS; fill it through its `buffer`."""
    return scene.add_gaussian_splats(
        SPLATS,
        np.zeros((1, 3), np.float32),
        np.eye(3, dtype=np.float32)[None] * 1e-6,
        np.ones((1, 3), np.float32),
        np.zeros((1, 1), np.float32),
    )


class VisitorOverlay:
    """`client`: viser's handle of the browser. Each call replaces what the same method showed before."""

    def __init__(self, client: viser.ClientHandle):
        self._client = client
        self._splats: viser.GaussianSplatHandle | None = None
        self._marks: list[viser.SceneNodeHandle] = []
        self._root = client.scene.add_frame(ROOT, show_axes=False)

    def show_splats(self, buffer: np.ndarray | None) -> None:
        """Show these splats (colors.packed) instead of the shared ones; None shows the shared ones."""
        with self._client.atomic():
            if buffer is None:
                if self._splats is not None:
                    self._splats.remove()
                    self._splats = None
                return
            if self._splats is None:
                self._splats = add_splats(self._client.scene)
            self._splats.buffer = buffer

    def show_picture(self, rgb: np.ndarray) -> None:
        """Show a picture (H, W, 3) uint8 of the whole window behind everything else."""
        self._client.scene.set_background_image(rgb, 'jpeg', jpeg_quality=JPEG_QUALITY)

    def hide_splats(self, rgb: np.ndarray, depth: np.ndarray) -> None:
        """Hide the splats, and of boxes and cameras what lies farther than `depth` (h, w) of the picture that
        is shown already, along the axis."""
        with self._client.atomic():
            self._client.scene.set_background_image(rgb, 'jpeg', jpeg_quality=JPEG_QUALITY, depth=depth)
            self._root.visible = False

    def hide_picture(self) -> None:
        """Show the splats again, without a picture."""
        with self._client.atomic():
            self._root.visible = True
            self._client.scene.set_background_image(None)

    def show_marks(
        self, answer: PageAnswer | None, cameras: Sequence[ShownCamera], shown: ShownScene
    ) -> None:
        """Show the boxes of an answer with their labels, and the cameras of a scene."""
        with self._client.atomic():
            for mark in self._marks:
                mark.remove()
            self._marks = self._frustums(cameras, shown)
            if answer is not None and answer.answer.found:
                self._marks += self._boxes(answer)
            if answer is not None:
                self._marks += self._gone(answer)

    def _boxes(self, answer: PageAnswer) -> list[viser.SceneNodeHandle]:
        scene, up = self._client.scene, np.asarray(answer.shown.up)
        marks: list[viser.SceneNodeHandle] = []
        for number, thing in list(enumerate(answer.answer.objects[:BOXES], 1))[::-1]:
            marks.append(
                scene.add_line_segments(
                    f'/answer/box{number}',
                    thing.edges.astype(np.float32),
                    BOX_COLORS[number > 1],
                    thickness=3.0 if number == 1 else 1.5,
                    thickness_units='screen',
                )
            )
            top = np.asarray(thing.center) + up * (abs(up) @ np.asarray(thing.size)) * 0.54
            text = (
                panel_text.label(number, answer.answer.text, thing, answer.shown)
                if number == 1
                else panel_text.name(number, thing)
            )
            marks.append(
                scene.add_label(
                    f'/answer/label{number}',
                    text,
                    position=top,
                    anchor='bottom-center',
                    font_screen_scale=1.0,
                )
            )
        return marks

    def _gone(self, answer: PageAnswer) -> list[viser.SceneNodeHandle]:
        """Thin boxes where things stood that have gone."""
        return [
            self._client.scene.add_line_segments(
                f'/answer/gone{number}',
                thing.edges.astype(np.float32),
                GONE_COLOR,
                thickness=1.0,
                thickness_units='screen',
            )
            for number, thing in enumerate(answer.answer.gone[: panel_text.GONE], 1)
        ]

    def _frustums(self, cameras: Sequence[ShownCamera], shown: ShownScene) -> list[viser.SceneNodeHandle]:
        reach = shown.first_view.reach
        return [
            self._client.scene.add_camera_frustum(
                f'/cameras/{number}',
                seen.fov,
                seen.aspect,
                scale=0.022 * reach,
                thickness=1.5,
                thickness_units='screen',
                color=(120, 200, 255),
                format='jpeg',
                jpeg_quality=85,
                image=seen.image if number == 0 or _apart(seen, cameras[0]) > APART * reach else None,
                wxyz=rotation_to_quat(seen.world_from_camera[:3, :3]),
                position=seen.world_from_camera[:3, 3],
                cast_shadow=False,
                receive_shadow=False,
            )
            for number, seen in enumerate(cameras)
        ]


def _apart(one: ShownCamera, other: ShownCamera) -> float:
    """Distance of the camera centres."""
    return float(np.linalg.norm(one.world_from_camera[:3, 3] - other.world_from_camera[:3, 3]))
