"""One visitor's page: query, answer and picture. Every browser has its own.

Query, history, threshold, mode, boxes and camera belong to the visitor. The Gaussians in their own colours,
sent once, and the answers are shared. A page in other colours has splats of its own instead of the shared
ones. Callbacks only note the request; a job carries it out, then the newest of those that came meanwhile.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gsemsplat_ros.flight.paths import camera_path
from gsemsplat_ros.live import panel_text
from gsemsplat_ros.live.film import film
from gsemsplat_ros.live.page_answer import PageAnswer, carried_over
from gsemsplat_ros.live.pause import Pause
from gsemsplat_ros.live.question_history import QuestionHistory
from gsemsplat_ros.live.repeated_job import RepeatedJob
from gsemsplat_ros.live.shared_state import SharedState, ViewState, question
from gsemsplat_ros.live.shown_scene import ShownScene, object_hit, viewpoint_before
from gsemsplat_ros.live.splat_cache import SplatCache
from gsemsplat_ros.live.still_picture import StillImage, StillPicture, still_image
from gsemsplat_ros.live.visitor_camera import VisitorCamera, VisitorView
from gsemsplat_ros.live.visitor_overlay import VisitorOverlay
from gsemsplat_ros.live.visitor_panel import PanelActions, VisitorPanel
from gsemsplat_ros.semantics.objects import Object

if TYPE_CHECKING:
    import viser

PAUSE_S = 0.4  # without a new letter, before the text is queried
# At most 36 MB each. A browser that reads nothing is disconnected after 40 s; viser keeps all till then.
PLY_EVERY_S = 10.0


class VisitorPage:
    """Made when a browser connects, closed when it disconnects.

    `client`: viser's handle of the browser; `submit` calls a function in the server's thread pool,
    `submit_still` in the one that draws the pictures of visitors who stand still.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        shared: SharedState,
        splats: SplatCache,
        submit: Callable[[Callable[[], None]], None],
        submit_still: Callable[[Callable[[], None]], None],
    ):
        self._client, self._shared, self._splats = client, shared, splats
        self._lock = threading.Lock()  # for fields used by both callbacks and the job
        self._closed = False
        self._text: str | None = None  # the query, if any
        self._number = 0  # of the query; a repeated text counts as a new query
        self._threshold: float | None = None  # None: the source's default
        self._history = QuestionHistory()
        self._complaint = ''  # about the input
        self._pause = Pause(PAUSE_S, partial(self._guarded, self._ask_what_was_typed))  # while one types
        self._asked: tuple[int, float | None, int] | None = None  # number, threshold, version of `_answer`
        self._next_ply = 0.0  # the earliest time of the next file [s, time.monotonic]
        self._answer: PageAnswer | None = None
        self._error = ''  # from the source
        self._state: ViewState | None = None  # shown on the page
        self._shown: ShownScene | None = None
        self._drawn: tuple | None = None  # arguments of the shown splats
        self._marked: tuple | None = None  # arguments of the shown boxes and cameras
        self._draws_fast: bool | None = None  # None before the end of the probe
        self._probing = False  # or has probed
        self._camera, self._overlay = VisitorCamera(client), VisitorOverlay(client)
        self._still = StillPicture(self._camera, self._overlay, submit_still, self._guarded, self.refresh)
        self._job = RepeatedJob(partial(self._guarded, self._update), submit)
        with client.atomic():  # or the visitor could use a control that does not listen yet
            self._panel = VisitorPanel(
                client,
                PanelActions(
                    typed=self._pause.restart,
                    choose=self._choose,
                    redraw=self.refresh,
                    set_threshold=partial(self._guarded, self._set_threshold),
                    fly_to=lambda thing: self._guarded(partial(self.fly_to, thing)),
                    start_view=partial(self._guarded, self.start_view),
                    screenshot=partial(self._guarded, self._camera.screenshot),
                    download_ply=partial(self._guarded, self.download_ply),
                    download_video=partial(self._guarded, self.download_video),
                ),
                is_narrow=self._camera.view.aspect < 1,
            )
        client.scene.on_click()(self._clicked)
        client.camera.on_update(self._moved)
        self.refresh()

    # requests of the visitor

    def ask(self, text: str | None, typed: bool = False) -> None:
        """Query this phrase, or clear the query (None). typed: it may be the beginning of a longer one."""
        with self._lock:
            try:
                self._text = None if text is None else question(text)
            except ValueError as error:
                self._complaint = str(error)
            else:
                self._complaint = ''
                self._number += 1
                if self._text is not None:
                    self._history = self._history.with_question(self._text, typed, time.monotonic())
        self.refresh()

    def refresh(self) -> None:
        """Update the page soon."""
        self._job.request()

    def close(self) -> None:
        """Stop updating: the browser has disconnected."""
        with self._lock:
            self._closed = self._camera.gone = True
        self._pause.close()
        self._still.close()
        self._job.close()

    def _choose(self, text: str | None) -> None:
        """Query this text and write it into the text box."""
        self._panel.text = text or ''
        self.ask(text)

    def _moved(self, camera: viser.CameraHandle) -> None:
        """The browser has sent its camera."""
        if self._shown is not None:
            self._camera.fit(self._shown.first_view)
        self._still.moved()

    def _ask_what_was_typed(self) -> None:
        text = self._panel.text
        if text != (self._text or '') or self._complaint:
            self.ask(text or None, typed=True)

    def _set_threshold(self) -> None:
        with self._lock:
            self._threshold = self._panel.threshold
        self.refresh()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do `work`; show an error on the page, unless the browser has disconnected."""
        try:
            work()
        except Exception as error:
            if self._closed:
                return
            if not isinstance(error, (ValueError, TimeoutError)):
                traceback.print_exc()
            self._notify(str(error) or type(error).__name__)

    def _notify(self, text: str) -> None:
        self._client.add_notification('gsemsplat', text, auto_close_seconds=8.0, color='orange')

    # the job

    def _update(self) -> None:
        state = self._shared.state
        if state is not self._state:
            self._state = state
            self._panel.show_source(state)
        if state.shown is not None:
            self._show_scene(state.shown)
        self._find(state)
        if state.shown is not None:
            self._draw(state.shown, state)
        self._write()

    def _show_scene(self, shown: ShownScene) -> None:
        """Move the camera to the start view if this is the first scene or one of another frame."""
        last, self._shown = self._shown, shown
        if last is None or last.frame != shown.frame or last.up != shown.up:
            self._client.scene.set_up_direction(np.asarray(shown.up))
            self._camera.stand(shown.first_view.position, shown.first_view.look_at)
            self._camera.fit(shown.first_view)
            self._still.moved()

    def _find(self, state: ViewState) -> None:
        """Query if something changed; the old answer stays until the new one arrives."""
        with self._lock:
            text, number, threshold = self._text, self._number, self._threshold
            wanted = None if text is None else (number, threshold, state.version)
            if wanted == self._asked:
                return
            self._asked = wanted
        answer, error = None, ''
        if text is not None:
            if state.ask is None:
                self._panel.show_verdict(panel_text.waiting(text, state.no_query_reason))
            try:
                answer = self._shared.ask(text, threshold)
            except ValueError as failure:
                error = str(failure)
        with self._lock:
            if number == self._number:  # else a newer query came meanwhile
                self._answer, self._error = answer, error
        if answer is not None and threshold is None and answer.answer.threshold:
            self._panel.show_threshold(answer.answer.threshold)

    def _draw(self, shown: ShownScene, state: ViewState) -> None:
        answer, mode, full = self._answer, self._panel.mode, self._full
        if answer is not None and answer.shown is not shown:  # a newer scene, not queried yet
            answer = self._answer = carried_over(answer, shown)
        wanted = shown, mode, answer, full
        if wanted != self._drawn:
            self._overlay.show_splats(self._splats.of(shown, mode, answer, state.semantic_colors, full))
            self._drawn, self._marked = wanted, None
        reach = shown.first_view.reach
        marks = (
            answer if self._panel.shows_boxes else None,
            tuple(seen for seen in shown.cameras if not self._camera.is_inside(seen, reach))
            if self._panel.shows_cameras
            else (),
        )
        if marks != self._marked:
            self._overlay.show_marks(*marks, shown)
            self._marked = marks

        def draw(view: VisitorView) -> StillImage:
            return still_image(shown, self._splats.colors(shown, mode, answer, state.semantic_colors), view)

        is_light = shown.light is not None and not full and self._draws_fast is not None
        self._still.want(wanted if is_light else None, draw)
        if not self._probing and shown.light is not None:
            self._probing = True
            threading.Thread(target=self._guarded, args=(self._probe,), name='probe', daemon=True).start()

    def _write(self) -> None:
        """Update the panel: result, history, objects, image."""
        answer, shown, mode = self._answer, self._shown, self._panel.mode
        self._panel.show_verdict(
            panel_text.verdict(
                answer,
                self._complaint or self._error,
                mode,
                self._splats.ends(shown, mode),
                panel_text.level(shown, self._full),
            )
        )
        self._panel.show_history(self._history.texts, asked=self._text is not None)
        self._panel.show_objects(answer)
        self._panel.show_image(answer.picture if answer else None)

    @property
    def _full(self) -> bool:
        """Whether all splats are drawn instead of the light level."""
        detail = self._panel.detail
        return detail == 'Full' or (detail == 'Automatic' and bool(self._draws_fast))

    def _probe(self) -> None:
        """Switch to full detail if the browser draws fast enough."""
        self._draws_fast = self._camera.draws_fast()
        self.refresh()

    # flights and downloads

    def _clicked(self, event: viser.SceneClickEvent) -> None:
        answer = self._answer
        if answer is None or not self._panel.shows_boxes:
            return
        if event.ray_origin is None or event.ray_direction is None:
            return
        number = object_hit(np.array(event.ray_origin), np.array(event.ray_direction), answer.answer.objects)
        if number is not None:
            self._guarded(partial(self.fly_to, answer.answer.objects[number]))

    def fly_to(self, thing: Object) -> None:
        """Move the camera in front of an object."""
        if self._shown is not None:
            self._camera.fly(*viewpoint_before(self._shown, thing, self._camera.position))

    def start_view(self) -> None:
        """Move the camera back to the start view."""
        if self._shown is not None:
            self._camera.fly(self._shown.first_view.position, self._shown.first_view.look_at)

    def download_ply(self) -> None:
        """Send all Gaussians in their own colours as a PLY file for splat viewers. Raises ValueError."""
        if self._shown is None:
            raise ValueError('there is nothing to download yet')
        with self._lock:
            now = time.monotonic()
            if now < self._next_ply:
                raise ValueError(f'this file was sent less than {PLY_EVERY_S:g} s ago: wait a little')
            self._next_ply = now + PLY_EVERY_S
        self._client.send_file_download('gsemsplat.ply', self._splats.ply(self._shown), save_immediately=True)

    def download_video(self) -> None:
        """Send an MP4 of a flight from the current view, in the page's colours. Raises ValueError, also while
        another film is drawn, here or for another visitor."""
        shown, state, camera = self._shown, self._state, self._camera
        if shown is None or state is None:
            raise ValueError('there is nothing to film yet')
        path = camera_path(self._panel.path, float(np.linalg.norm(camera.look_at - camera.position)))
        colors = self._splats.colors(shown, self._panel.mode, self._answer, state.semantic_colors)
        if not self._shared.filming.acquire(blocking=False):
            raise ValueError('a film is being drawn already: try again when it is done')
        try:
            self._notify(f'drawing {len(path)} pictures along the path {path.name}')
            view = camera.view
            video = film(
                shown, colors, path, view.world_from_camera, view.fov, view.aspect, lambda: self._closed
            )
        finally:
            self._shared.filming.release()
        self._client.send_file_download('gsemsplat.mp4', video, save_immediately=True)
