"""State shared by all visitors: the shown scene, the status of its source, and the answers. No ROS, no viser.

A source writes the state; pages read it, each in its own time. Queries go through here too, so that the same
query from twenty pages is computed once.
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

REMEMBERED = 64  # answers kept

Ask = Callable[[str, float | None], PageAnswer]  # phrase, threshold (None: the source's default)
SemanticColors = Callable[[ShownScene], np.ndarray | None]  # (M, 3) in [0, 1], None if unknown


@dataclass(frozen=True, eq=False)
class ViewState:
    """What the pages show at one time.

    shown: None before the first scene. status: text about the source, or ''; is_trouble: it reports a fault.
    ask: None while queries are impossible, because of `no_query_reason`. semantic_colors: function of a
    scene. version: grows with each new scene or `ask`.
    """

    shown: ShownScene | None = None
    status: str = ''
    is_trouble: bool = False
    ask: Ask | None = None
    no_query_reason: str = 'still loading'
    semantic_colors: SemanticColors = lambda shown: None
    version: int = 0


class SharedState:
    """The newest ViewState, for any thread; `listeners` are called, without arguments, after each change.
    filming is held while a film is drawn: one at a time, for all visitors."""

    def __init__(self, workers: int = 1):
        """workers: queries answered at the same time."""
        self._state, self._lock = ViewState(), threading.Lock()
        self._pool = ThreadPoolExecutor(workers, 'ask')
        self._answers: OrderedDict[tuple, Future] = OrderedDict()
        self.filming = threading.Lock()
        self.listeners: list[Callable[[], None]] = []

    @property
    def state(self) -> ViewState:
        """The current state."""
        return self._state

    def write(self, **changes: Any) -> None:
        """Change fields of the state. A new `shown` or `ask` raises the version and drops kept answers."""
        with self._lock:
            newer = ('shown' in changes and changes['shown'] is not self._state.shown) or 'ask' in changes
            self._state = replace(self._state, **changes, version=self._state.version + newer)
            if newer:
                self._answers.clear()
        for listener in tuple(self.listeners):
            listener()

    def ask(self, text: str, threshold: float | None = None) -> PageAnswer:
        """The answer to a phrase; the same query on the same scene is computed once for all visitors.

        Raises ValueError while queries are impossible, and what the source raises.
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
                if self._answers.get(key) is future:  # a failed query may be repeated
                    del self._answers[key]
            raise

    def close(self) -> None:
        """Answer no further queries."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def question(text: object) -> str:
    """A visitor's input as one line of plain text. Raises ValueError if it is not a valid query."""
    return Question(str(text)).text
