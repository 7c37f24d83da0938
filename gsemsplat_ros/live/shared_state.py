"""What all pages of the live page share: the scene to show, how its source is, and the answers. Free of ROS
and viser.

A source writes the state: the scene to show, its own condition in words, and how to ask. Pages read it, each
in its own time; what they ask goes through here too, so that twenty pages that ask the same word ask once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gsemsplat_ros.live.page_answer import PageAnswer
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.semantics.answer import Question

REMEMBERED = 64  # answers that are kept

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
