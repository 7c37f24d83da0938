"""Where the live page gets its Gaussians and answers from, and the shared on which it finds them. Free of ROS
and of viser.

A source writes on the shared: the worlds that there are, its state in words, and how to ask. Pages read it,
each in its own time; what they ask goes through the shared too, so that twenty pages that ask the same word
ask once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.flight.flight import semantic_colors
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.map_index import MapIndex
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import THRESHOLD, Answer, Question
from gsemsplat_ros.semantics.objects import inside_any

REMEMBERED = 64  # answers that the shared keeps


@dataclass(frozen=True, eq=False)
class PageAnswer:
    """An answer as a page shows it, in the frame of `shown`.

    relevancy (M,) float32 of what is shown, NaN where unknown, or None when the source cannot tell; lit (M,)
    bool: what the phrase names. picture (H, W, 3) uint8 RGB: relevancy over the newest image, or None. note:
    what a person should know besides.
    """

    answer: Answer
    shown: ShownScene
    relevancy: np.ndarray | None
    lit: np.ndarray
    seconds: float
    picture: np.ndarray | None = None
    note: str = ''


Ask = Callable[[str, float | None], PageAnswer]  # phrase, threshold (None: the source's own)
SemanticColors = Callable[[ShownScene], np.ndarray | None]  # (M, 3) in [0, 1] of what is shown, if known


@dataclass(frozen=True, eq=False)
class ViewState:
    """What the pages show at one time.

    shown: the scene; None: nothing yet. status: in words, '' when there is nothing to say; is_trouble: it
    is a fault. ask: None while words cannot be asked, for `no_query_reason`. semantic_colors: a scene to its
    semantic colours (M, 3) in [0, 1], None where they are unknown. version: counts the scenes.
    """

    shown: ShownScene | None = None
    status: str = ''
    is_trouble: bool = False
    ask: Ask | None = None
    no_query_reason: str = 'still loading'
    semantic_colors: SemanticColors = lambda shown: None
    version: int = 0


class SharedState:
    """The newest ViewState, for any thread; `listeners` are called, without arguments, after each change."""

    def __init__(self, workers: int = 1):
        """workers: questions that are answered at once."""
        self._state, self._lock = ViewState(), threading.Lock()
        self._pool = ThreadPoolExecutor(workers, 'ask')
        self._answers: OrderedDict[tuple, Future] = OrderedDict()
        self.listeners: list[Callable[[], None]] = []

    @property
    def state(self) -> ViewState:
        """What is shown now."""
        return self._state

    def write(self, **changes: Any) -> None:
        """Change parts of the state; a new `shown` counts a version up, and what was answered before it is
        forgotten.
        """
        with self._lock:
            newer = ('shown' in changes and changes['shown'] is not self._state.shown) or 'ask' in changes
            self._state = replace(self._state, **changes, version=self._state.version + newer)
            if newer:
                self._answers.clear()
        for listener in tuple(self.listeners):
            listener()

    def ask(self, text: str, threshold: float | None = None) -> PageAnswer:
        """The answer to a phrase; the same question to the same scene is asked once, whoever asks. Raises
        ValueError.
        """
        with self._lock:
            state = self._state
            if state.ask is None:
                raise ValueError(f'words cannot be asked: {state.no_query_reason}')
            key = state.version, text, threshold
            future = self._answers.get(key)
            if future is None:
                future = self._answers[key] = self._pool.submit(state.ask, text, threshold)
                while len(self._answers) > REMEMBERED:
                    self._answers.popitem(last=False)
        try:
            return future.result()
        except BaseException:
            with self._lock:
                if self._answers.get(key) is future:  # what failed may be asked again
                    del self._answers[key]
            raise

    def close(self) -> None:
        """Answer no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def question(text: object) -> str:
    """What a visitor typed as one line of plain text. Raises ValueError when it is none that can be asked."""
    words = ' '.join(''.join(c if c.isprintable() else ' ' for c in str(text)).split())
    return Question(words).text


def asks(pipeline: Pipeline, target: Scene | MapIndex, shown: ShownScene) -> Ask:
    """The way to ask a scene or a map, of which `shown` is made."""

    def ask(text: str, threshold: float | None) -> PageAnswer:
        start = time.perf_counter()
        answer = pipeline.query(target, Question(text, threshold or THRESHOLD))
        assert answer.relevancy is not None and answer.lit is not None  # asked here, not of a node
        return PageAnswer(
            answer, shown, answer.relevancy[shown.rows], answer.lit[shown.rows], time.perf_counter() - start
        )

    return ask


def answered_by_boxes(
    answer: Answer, shown: ShownScene, seconds: float, picture: np.ndarray | None = None, note: str = ''
) -> PageAnswer:
    """The answer of a node, which tells boxes alone: what lies in one of them lights up."""
    return PageAnswer(answer, shown, None, inside_any(answer.objects, shown.means), seconds, picture, note)


def carried_over(answer: PageAnswer, shown: ShownScene) -> PageAnswer | None:
    """The answer for a newer scene of the same frame, where its boxes still hold; None for any other."""
    if answer.relevancy is not None or answer.shown.frame != shown.frame:
        return None
    return replace(answer, shown=shown, lit=inside_any(answer.answer.objects, shown.means))


def semantic_colors_by(pipeline: Pipeline) -> SemanticColors:
    """Semantic colours as the videos have them: of what the pipeline's decoder reads from the codes."""

    def colors(shown: ShownScene) -> np.ndarray | None:
        gaussians = shown.gaussians.select(torch.from_numpy(shown.rows)).to(pipeline.device)
        return semantic_colors(gaussians, pipeline.decoders).cpu().numpy()

    return colors
