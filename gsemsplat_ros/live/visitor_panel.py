"""The panel of one visitor: controls, their values, and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gsemsplat_ros.flight.paths import PRESETS
from gsemsplat_ros.live import panel_text
from gsemsplat_ros.live.page_answer import PageAnswer
from gsemsplat_ros.live.shared_state import ViewState
from gsemsplat_ros.live.splat_cache import MODES
from gsemsplat_ros.semantics.objects import Object

if TYPE_CHECKING:
    import viser

DETAILS = 'Automatic', 'Light', 'Full'
THRESHOLDS = 0.05, 0.95  # range of the slider
OBJECTS = 5  # listed


@dataclass(frozen=True)
class PanelActions:
    """Callbacks of the controls; each runs in a thread of the web server.

    typed: the text in the box has changed. choose: query this phrase, or clear it (None). redraw: a setting
    of the picture has changed. set_threshold: the slider has moved. fly_to: move in front of this object.
    """

    typed: Callable[[], None]
    choose: Callable[[str | None], None]
    redraw: Callable[[], None]
    set_threshold: Callable[[], None]
    fly_to: Callable[[Object], None]
    start_view: Callable[[], None]
    screenshot: Callable[[], None]
    download_ply: Callable[[], None]
    download_video: Callable[[], None]


class VisitorPanel:
    """`client`: viser's handle of the browser; is_narrow: its window is higher than wide, as of a phone: only
    what is needed to ask a word is open."""

    def __init__(self, client: viser.ClientHandle, actions: PanelActions, is_narrow: bool = False):
        self._gui, self._actions = client.gui, actions
        gui = client.gui
        self._source = gui.add_html('')
        # no form and no button: viser 1.1 keeps only the newest message within 50 ms, so an Enter right after
        # a word would replace the message with its last letters
        self._text = gui.add_text('Find', '', hint='a thing, such as: chair')
        self._text.on_update(lambda _: actions.typed())
        self._history = gui.add_button_group('Asked', ('',), visible=False)
        self._history.on_click(lambda event: actions.choose(event.target.value))
        self._verdict = gui.add_html('')
        self._objects = gui.add_folder(None)
        self._object_buttons: list[viser.GuiButtonHandle] = []
        self._gone = gui.add_html('')
        self._clear = gui.add_button('Clear', visible=False, color='gray')
        self._clear.on_click(lambda _: actions.choose(None))
        self._image: viser.GuiImageHandle | None = None
        with gui.add_folder('Picture', expand_by_default=not is_narrow):
            self._mode = gui.add_dropdown('Show', MODES)
            self._detail = gui.add_dropdown(
                'Detail', DETAILS, hint='Light: fewer Gaussians, for a browser that draws slowly'
            )
            self._threshold = gui.add_slider(
                'Threshold', *THRESHOLDS, 0.01, 0.5, hint='relevancy from which a word counts as found'
            )
            # of the visitor only: what show_threshold sets comes from no browser
            self._threshold.on_update(
                lambda event: actions.set_threshold() if event.client is not None else None
            )
            self._boxes = gui.add_checkbox('Boxes', True)
            self._cameras = gui.add_checkbox('Cameras', True)
            self._mode.on_update(lambda _: actions.redraw())
            self._detail.on_update(lambda _: actions.redraw())
            self._boxes.on_update(lambda _: actions.redraw())
            self._cameras.on_update(lambda _: actions.redraw())
            self._add_button('Start view', 'HOME', actions.start_view)
            self._add_button('Screenshot', 'CAMERA', actions.screenshot)
            self._add_button('Download PLY', 'DOWNLOAD', actions.download_ply)
            self._add_button('Download video', 'MOVIE', actions.download_video)
            self._path = gui.add_dropdown(
                'Video path', tuple(PRESETS), hint='how the camera moves, from where it stands'
            )

    def _add_button(self, label: str, icon: str, action: Callable[[], None]) -> None:
        import viser

        button = self._gui.add_button(label, icon=getattr(viser.Icon, icon), color='gray')
        button.on_click(lambda _: action())

    # values of the controls

    @property
    def text(self) -> str:
        """The text in the box."""
        return self._text.value

    @text.setter
    def text(self, text: str) -> None:
        self._text.value = text  # type: ignore[misc]  # it has a setter

    @property
    def mode(self) -> str:
        """One of splat_cache.MODES, unless the browser sent something else."""
        return self._mode.value

    @property
    def detail(self) -> str:
        """One of DETAILS, unless the browser sent something else."""
        return self._detail.value

    @property
    def path(self) -> str:
        """One of flight.paths.PRESETS, unless the browser sent something else."""
        return self._path.value

    @property
    def threshold(self) -> float | None:
        """Within THRESHOLDS; None for NaN."""
        value = float(self._threshold.value)
        return min(max(value, THRESHOLDS[0]), THRESHOLDS[1]) if value == value else None

    def show_threshold(self, threshold: float) -> None:
        """Move the slider to the threshold of an answer for which the visitor set none."""
        value = min(max(threshold, THRESHOLDS[0]), THRESHOLDS[1])
        self._threshold.value = value  # type: ignore[misc]  # it has a setter

    @property
    def shows_boxes(self) -> bool:
        """Whether to draw the boxes of the answer."""
        return self._boxes.value

    @property
    def shows_cameras(self) -> bool:
        """Whether to draw the cameras that saw the scene."""
        return self._cameras.value

    # texts

    def show_source(self, state: ViewState) -> None:
        """Show the scene's title and the status of its source."""
        self._source.content = panel_text.head(state)

    def show_verdict(self, html: str) -> None:
        """Show the result of the query."""
        self._verdict.content = html

    def show_history(self, texts: Sequence[str], asked: bool) -> None:
        """Show buttons of the earlier queries (newest first), and `Clear` if one is `asked`."""
        self._clear.visible = asked
        if texts and tuple(texts) != tuple(self._history.options):
            self._history.options = tuple(texts)
        self._history.visible = bool(texts)

    def show_objects(self, answer: PageAnswer | None) -> None:
        """Show the answer's objects, best first, as buttons that fly there, and what has gone."""
        for button in self._object_buttons:
            button.remove()
        self._object_buttons = []
        self._gone.content = panel_text.gone(answer)
        if answer is None:
            return
        with self._objects:
            for number, thing in enumerate(answer.answer.objects[:OBJECTS], 1):
                button = self._gui.add_button(
                    panel_text.object_line(number, thing, answer.shown),
                    color='gray',
                    hint=panel_text.object_hint(thing, answer.stamp_ns),
                )
                button.on_click(partial(self._fly, thing))
                self._object_buttons.append(button)

    def _fly(self, thing: Object, event: object) -> None:
        self._actions.fly_to(thing)

    def show_image(self, image: np.ndarray | None) -> None:
        """Show the newest image overlaid with relevancy, (H, W, 3) uint8 RGB; None hides it."""
        if image is None:
            if self._image is not None:
                self._image.visible = False
            return
        if self._image is None:
            self._image = self._gui.add_image(image, label='Newest image', format='jpeg')
        self._image.image, self._image.visible = image, True
