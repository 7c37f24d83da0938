"""One visitor's page: query, answer and picture. Every browser has its own.

What belongs to a visitor: the question and its history, threshold, mode, boxes and camera. What all share:
the Gaussians in their own colours, sent once, and the answers. A page that shows other colours lays splats of
its own over the shared ones. Callbacks note what is wanted and return; a job does it, and what was wanted
meanwhile, only the newest, is done after it.
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
from gsemsplat_ros.live.question_history import QuestionHistory
from gsemsplat_ros.live.repeated_job import RepeatedJob
from gsemsplat_ros.live.shared_state import SharedState, ViewState, question
from gsemsplat_ros.live.shown_scene import ShownScene, object_hit, viewpoint_before
from gsemsplat_ros.live.splat_cache import SplatCache
from gsemsplat_ros.live.visitor_camera import VisitorCamera
from gsemsplat_ros.live.visitor_overlay import VisitorOverlay
from gsemsplat_ros.live.visitor_panel import PanelActions, VisitorPanel
from gsemsplat_ros.semantics.objects import Object

if TYPE_CHECKING:
    import viser

PAUSE_S = 0.4  # without a new letter: the word is asked


class VisitorPage:
    """Made when a browser connects, closed when it goes.

    `client`: viser's handle of the browser; `submit` calls a function in a thread of the server's pool.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        shared: SharedState,
        splats: SplatCache,
        submit: Callable[[Callable[[], None]], None],
    ):
        self._client, self._shared, self._splats = client, shared, splats
        self._lock = threading.Lock()  # of all that callbacks and the job both use
        self._closed = False
        self._text: str | None = None  # the question; None: none
        self._number = 0  # of the question: the same word again is asked again
        self._threshold: float | None = None  # None: the source's
        self._history = QuestionHistory()
        self._complaint = ''  # about what was typed
        self._pause: threading.Timer | None = None  # runs while the visitor types
        self._asked: tuple[int, float | None, int] | None = None  # number, threshold, version of the answer
        self._answer: PageAnswer | None = None
        self._error = ''  # of the source
        self._state: ViewState | None = None  # what the page shows
        self._shown: ShownScene | None = None
        self._drawn: tuple | None = None  # what the splats are made of
        self._marked: tuple | None = None  # what the boxes and cameras are made of
        self._draws_fast: bool | None = None  # None: not known yet
        self._camera, self._overlay = VisitorCamera(client), VisitorOverlay(client)
        self._job = RepeatedJob(partial(self._guarded, self._update), submit)
        self._panel = VisitorPanel(
            client,
            PanelActions(
                typed=self._typed,
                choose=self._choose,
                redraw=self.refresh,
                set_threshold=partial(self._guarded, self._set_threshold),
                fly_to=lambda thing: self._guarded(partial(self.fly_to, thing)),
                start_view=partial(self._guarded, self.start_view),
                screenshot=partial(self._guarded, self._camera.screenshot),
                download_ply=partial(self._guarded, self.download_ply),
                download_video=partial(self._guarded, self.download_video),
            ),
        )
        client.scene.on_click()(self._clicked)
        self.refresh()

    # what the visitor wants

    def ask(self, text: str | None, typed: bool = False) -> None:
        """Ask this phrase, or nothing any more (None). typed: it may be the beginning of a longer one."""
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
        """Bring the page up to date, soon."""
        self._job.request()

    def close(self) -> None:
        """The browser has gone."""
        with self._lock:
            self._closed = self._camera.gone = True
            if self._pause is not None:
                self._pause.cancel()
        self._job.close()

    def _choose(self, text: str | None) -> None:
        """Ask this, and let the box say so."""
        self._panel.text = text or ''
        self.ask(text)

    def _typed(self) -> None:
        """The text in the box has changed: ask it when its writer pauses."""
        with self._lock:
            if self._pause is not None:
                self._pause.cancel()
            if not self._closed:
                self._pause = threading.Timer(PAUSE_S, self._guarded, (self._ask_what_was_typed,))
                self._pause.daemon = True
                self._pause.start()

    def _ask_what_was_typed(self) -> None:
        text = self._panel.text
        if text != (self._text or '') or self._complaint:
            self.ask(text or None, typed=True)

    def _set_threshold(self) -> None:
        with self._lock:
            self._threshold = self._panel.threshold
        self.refresh()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; a fault is said on the page, unless the browser has left meanwhile."""
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
        """The first sight of a scene, or of another frame: stand where it is seen best."""
        last, self._shown = self._shown, shown
        if last is None or last.frame != shown.frame or last.up != shown.up:
            self._client.scene.set_up_direction(np.asarray(shown.up))
            self._camera.stand(shown.position, shown.look_at)

    def _find(self, state: ViewState) -> None:
        """Ask, unless it is asked already; keep the old answer while the new one is on its way."""
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
            if number == self._number:  # else another question came meanwhile
                self._answer, self._error = answer, error

    def _draw(self, shown: ShownScene, state: ViewState) -> None:
        answer, mode, full = self._answer, self._panel.mode, self._full
        if answer is not None and answer.shown is not shown:  # a newer scene came, and nobody answered since
            answer = self._answer = carried_over(answer, shown)
        wanted = shown, mode, answer, full
        if wanted != self._drawn:
            self._overlay.show_splats(self._splats.of(shown, mode, answer, state.semantic_colors, full))
            self._drawn, self._marked = wanted, None
        marks = (
            answer if self._panel.shows_boxes else None,
            shown.cameras if self._panel.shows_cameras else (),
        )
        if marks != self._marked:
            self._overlay.show_marks(*marks, shown)
            self._marked = marks
        if self._draws_fast is None:
            self._draws_fast = False
            if len(shown.light[0]) < len(shown.rows):
                threading.Thread(target=self._guarded, args=(self._probe,), name='probe', daemon=True).start()

    def _write(self) -> None:
        """The panel's words: verdict, history, objects, image."""
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
        """Whether all splats are drawn, not the light level."""
        detail = self._panel.detail
        return detail == 'Full' or (detail == 'Automatic' and bool(self._draws_fast))

    def _probe(self) -> None:
        """See whether the browser can take the full level."""
        self._draws_fast = self._camera.draws_fast()
        if self._draws_fast:
            self.refresh()

    # moving, taking away

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
        """Move the visitor's camera before an object."""
        if self._shown is not None:
            self._camera.fly(*viewpoint_before(self._shown, thing, self._camera.position))

    def start_view(self) -> None:
        """Move it back to where it began."""
        if self._shown is not None:
            self._camera.fly(self._shown.position, self._shown.look_at)

    def download_ply(self) -> None:
        """The Gaussians as a PLY file for splat viewers, all of them, in their own colours."""
        if self._shown is None:
            raise ValueError('there is nothing to download yet')
        self._client.send_file_download('gsemsplat.ply', self._splats.ply(self._shown), save_immediately=True)

    def download_video(self) -> None:
        """A flight from where the visitor stands, in the colours that the page shows, as an MP4 file."""
        shown, state, camera = self._shown, self._state, self._camera
        if shown is None or state is None:
            raise ValueError('there is nothing to film yet')
        path = camera_path(self._panel.path, float(np.linalg.norm(camera.look_at - camera.position)))
        colors = self._splats.colors(shown, self._panel.mode, self._answer, state.semantic_colors)
        self._notify(f'drawing {len(path)} pictures along the path {path.name}')
        video = film(shown, colors, path, camera.world_from_camera, *camera.lens)
        self._client.send_file_download('gsemsplat.mp4', video, save_immediately=True)
