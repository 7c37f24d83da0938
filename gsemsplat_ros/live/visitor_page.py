"""One visitor's page: its panel, its question, its picture. Another browser has a page of its own.

What belongs to a visitor: the question and its history, threshold, mode, boxes and camera. What all share:
the Gaussians in their own colours, sent once, and the answers. A page that shows other colours lays splats of
its own over the shared ones. Callbacks note what is wanted and return; a job does it, and what was wanted
meanwhile, only the newest, is done after it.
"""

from __future__ import annotations

import threading
import time
import traceback

import numpy as np

from gsemsplat_ros.flight.paths import PRESETS, camera_path
from gsemsplat_ros.live import panel
from gsemsplat_ros.live.film import film
from gsemsplat_ros.live.shared_state import PageAnswer, SharedState, ViewState, carried_over, question
from gsemsplat_ros.live.shown_scene import ShownScene, object_hit, viewpoint_before
from gsemsplat_ros.live.splat_cache import MODES, SplatCache
from gsemsplat_ros.live.visitor_camera import VisitorCamera
from gsemsplat_ros.live.visitor_overlay import VisitorOverlay

DETAILS = 'Automatic', 'Light', 'Full'
PAUSE_S = 0.4  # without a new letter: the word is asked
LATE_S = 5.0  # a word that grows so soon takes its own place in the history
HISTORY = 8  # questions that stay to be clicked
LISTED = 5  # objects in the panel
STALE = object()


class VisitorPage:
    """Made when a browser connects, forgotten when it goes. `client`: viser's handle of that browser."""

    def __init__(self, client, shared: SharedState, pictures: SplatCache, submit):
        """`submit`: runs a function in a thread of the server's pool."""
        self.client, self._shared, self._pictures, self._submit = client, shared, pictures, submit
        self._lock = threading.Lock()
        self._busy = self._again = self._gone = False
        self._text: str | None = None  # the question; None: none
        self._threshold: float | None = None  # None: the source's
        self._answer: PageAnswer | None = None
        self._asked: object = None  # what the answer or its error belongs to; STALE: ask again
        self._error = self._complaint = ''  # of the source; about what was typed
        self._history: list[str] = []
        self._drawn: tuple | None = None
        self._shown: ShownScene | None = None
        self._state: ViewState | None = None
        self._buttons = []
        self._camera, self._overlay, self._pause = (
            VisitorCamera(client),
            VisitorOverlay(client),
            threading.Timer(0, int),
        )
        self._typed: tuple[str | None, float] = None, 0.0  # the last question, if it was typed, and when
        self._fast: bool | None = None  # whether the browser draws fast; None: not known yet
        self._build()
        self.refresh()

    # the panel

    def _build(self) -> None:
        gui = self.client.gui
        self._head = gui.add_html('')
        # no form, no button: what follows a letter within 50 ms takes that letter's place on the way here
        # (viser 1.1), so an Enter that a busy browser sends right after the word would cost the word its end
        self._box = gui.add_text('Find', '', hint='a thing, such as: chair')
        self._box.on_update(lambda _: self._letter())
        self._past = gui.add_button_group('Asked', ('',), visible=False)
        self._past.on_click(lambda event: self._choose(event.target.value))
        self._verdict = gui.add_html('')
        self._objects = gui.add_folder(None)
        self._clear = gui.add_button('Clear', visible=False, color='gray')
        self._clear.on_click(lambda _: self._choose(None))
        self._mode = gui.add_dropdown('Show', MODES)
        self._mode.on_update(lambda _: self.refresh())
        self._detail = gui.add_dropdown(
            'Detail', DETAILS, hint='Light: fewer Gaussians, for a browser that draws slowly'
        )
        self._detail.on_update(lambda _: self.refresh())
        self._slider = gui.add_slider(
            'Threshold', 0.05, 0.95, 0.01, 0.5, hint='relevancy from which a word counts as found'
        )
        self._slider.on_update(lambda _: self._guarded(self._set_threshold))
        self._show_boxes = gui.add_checkbox('Boxes', True)
        self._show_cameras = gui.add_checkbox('Cameras', True)
        for box in (self._show_boxes, self._show_cameras):
            box.on_update(lambda _: self.refresh())
        self._picture = None
        for label, icon, work in (
            ('Start view', 'HOME', self.home),
            ('Screenshot', 'CAMERA', self._camera.screenshot),
            ('Download PLY', 'DOWNLOAD', self.download),
            ('Download video', 'MOVIE', self.film),
        ):
            button = gui.add_button(label, icon=panel.icon(icon), color='gray')
            button.on_click(lambda _, work=work: self._guarded(work))
        self._path = gui.add_dropdown(
            'Video path', tuple(PRESETS), hint='how the camera moves, from where it stands'
        )
        self.client.scene.on_click()(self._on_click)

    # what a visitor wants

    def ask(self, text: str | None, typed: bool = False) -> None:
        """Ask this, or nothing any more (None)."""
        with self._lock:
            try:
                self._text = None if text is None else question(text)
            except ValueError as error:
                self._complaint = str(error)
            else:
                self._complaint, self._asked = '', STALE  # the same word again is asked again
                if self._text is not None:
                    self._remember(self._text, typed)
        self.refresh()

    def _remember(self, text: str, typed: bool) -> None:
        """Keep the question to be clicked; what it grew out of was not whole yet."""
        last, at = self._typed
        part = last if typed and last and text.startswith(last) and time.monotonic() - at < LATE_S else None
        self._history = [text, *(t for t in self._history if t not in (text, part))][:HISTORY]
        self._typed = text if typed else None, time.monotonic()

    def _choose(self, text: str | None) -> None:
        """Ask this, and let the box say so."""
        self._box.value = text or ''
        self.ask(text)

    def _letter(self) -> None:
        """The box has changed: ask when its writer pauses."""
        with self._lock:
            self._pause.cancel()
            if not self._gone:
                self._pause = threading.Timer(PAUSE_S, self._guarded, (self._paused,))
                self._pause.daemon = True
                self._pause.start()

    def _paused(self) -> None:
        text = self._box.value
        if text != (self._text or '') or self._complaint:
            self.ask(text or None, typed=True)

    def _set_threshold(self) -> None:
        with self._lock:
            value = float(self._slider.value)
            self._threshold = min(max(value, 0.05), 0.95) if value == value else None
        self.refresh()

    def refresh(self) -> None:
        """Bring the page up to date, soon."""
        with self._lock:
            if self._gone:
                return
            self._again = True
            if self._busy:
                return
            self._busy = True
        self._submit(self._work)

    def close(self) -> None:
        """The browser has gone."""
        with self._lock:
            self._gone = self._camera.gone = True
            self._pause.cancel()

    # the job

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._gone or not self._again:
                    self._busy = False
                    return
                self._again = False
            self._guarded(self._update)

    def _guarded(self, work) -> None:
        """Do it; a browser that left meanwhile is no fault, and what is one is said on the page."""
        try:
            work()
        except Exception as error:
            if self._gone:
                return
            if not isinstance(error, (ValueError, TimeoutError)):
                traceback.print_exc()
            self._notify(str(error) or type(error).__name__)

    def _notify(self, text: str) -> None:
        self.client.add_notification('gsemsplat', text, auto_close_seconds=8.0, color='orange')

    def _update(self) -> None:
        state = self._shared.state
        if state is not self._state:
            self._state, self._head.content = state, panel.head(state)
        if state.shown is not None:
            self._look(state.shown)
        self._find(state)
        if state.shown is not None:
            self._draw(state)
        self._say()

    def _find(self, state: ViewState) -> None:
        """Ask, unless it is asked already; keep the old answer while the new one is on its way."""
        with self._lock:
            text, threshold = self._text, self._threshold
            wanted = None if text is None else (text, threshold, state.version)
            if wanted == self._asked:
                return
            self._asked = wanted
        answer, error = None, ''
        if text is not None:
            if state.ask is None:
                self._verdict.content = panel.waiting(text, state.no_query_reason)
            try:
                answer = self._shared.ask(text, threshold)
            except ValueError as failure:
                error = str(failure)
        with self._lock:
            if self._asked != wanted:
                return  # another question came meanwhile
            self._answer, self._error = answer, error

    def _say(self) -> None:
        """The panel's words: verdict, objects, history."""
        answer, error = self._answer, self._complaint or self._error
        shown, mode = self._shown, self._mode.value
        self._verdict.content = panel.verdict(
            answer, error, mode, self._pictures.ends(shown, mode), panel.level(shown, self._full)
        )
        self._clear.visible = self._text is not None
        if tuple(self._history) != tuple(self._past.options) and self._history:
            self._past.options = tuple(self._history)
        self._past.visible = bool(self._history)
        for button in self._buttons:
            button.remove()
        self._buttons = []
        with self._objects:
            for number, thing in enumerate(answer.objects[:LISTED] if answer else (), 1):
                button = self.client.gui.add_button(
                    panel.object_line(number, thing, answer.shown), color='gray', hint='Fly there'
                )
                button.on_click(lambda _, thing=thing: self._guarded(lambda: self.fly_to(thing)))
                self._buttons.append(button)
        shot = answer.picture if answer else None
        if shot is not None:
            if self._picture is None:
                self._picture = self.client.gui.add_image(shot, label='Newest image', format='jpeg')
            self._picture.image, self._picture.visible = shot, True
        elif self._picture is not None:
            self._picture.visible = False

    # the picture

    def _look(self, shown: ShownScene) -> None:
        """The first sight of a scene, or of another frame: stand where it is seen best."""
        before_, self._shown = self._shown, shown
        if before_ is None or before_.frame != shown.frame or before_.up != shown.up:
            self.client.scene.set_up_direction(np.asarray(shown.up))
            self._camera.stand(shown.position, shown.look_at)

    def _draw(self, state: ViewState) -> None:
        shown, answer, mode = state.shown, self._answer, self._mode.value
        if answer is not None and answer.shown is not shown:  # a newer scene came, and nobody answered since
            answer = self._answer = carried_over(answer, shown)
        full = self._full
        splats = shown, mode, answer, full
        if self._drawn is None or self._drawn[0] != splats:
            self._overlay.show_splats(self._pictures.of(shown, mode, answer, state.semantic_colors, full))
            self._drawn = splats, None, None
        marks = answer if self._show_boxes.value else None
        cameras = shown.cameras if self._show_cameras.value else ()
        if self._drawn[1:] != (marks, cameras):
            self._overlay.show_marks(marks, cameras, shown)
            self._drawn = splats, marks, cameras
        if self._fast is None:
            self._fast = False
            if len(shown.light[0]) < len(shown.rows):
                threading.Thread(target=self._guarded, args=(self._probe,), name='probe', daemon=True).start()

    @property
    def _full(self) -> bool:
        detail = self._detail.value
        return detail == 'Full' or (detail == 'Automatic' and bool(self._fast))

    def _probe(self) -> None:
        """See whether the browser can take the full level."""
        self._fast = self._camera.draws_fast()
        if self._fast:
            self.refresh()

    # moving, taking away

    def _on_click(self, event) -> None:
        answer = self._answer
        if answer is None or not self._show_boxes.value:
            return
        number = object_hit(event.ray_origin, event.ray_direction, answer.objects)
        if number is not None:
            self._guarded(lambda: self.fly_to(answer.objects[number]))

    def fly_to(self, thing) -> None:
        """Move the visitor's camera before an object."""
        if self._shown is not None:
            self._camera.fly(*viewpoint_before(self._shown, thing, self._camera.position))

    def home(self) -> None:
        """Move it back to where it began."""
        if self._shown is not None:
            self._camera.fly(self._shown.position, self._shown.look_at)

    def download(self) -> None:
        """The Gaussians as a PLY file for splat viewers, all of them, in their own colours."""
        if self._shown is None:
            raise ValueError('there is nothing to download yet')
        self.client.send_file_download(
            'gsemsplat.ply', self._pictures.ply(self._shown), save_immediately=True
        )

    def film(self) -> None:
        """A flight from where the visitor stands, in the colours that the page shows, as an MP4 file."""
        shown, camera = self._shown, self._camera
        if shown is None:
            raise ValueError('there is nothing to film yet')
        path = camera_path(self._path.value, float(np.linalg.norm(camera.look_at - camera.position)))
        colors = self._pictures.colors(shown, self._mode.value, self._answer, self._state.semantic_colors)
        self._notify(f'drawing {len(path)} pictures along the path {path.name}')
        video = film(shown, colors, path, camera.world_from_camera, *camera.lens)
        self.client.send_file_download('gsemsplat.mp4', video, save_immediately=True)
