"""A job that is requested more often than it can run: one at a time, and then once for the newest request."""

from __future__ import annotations

import threading
from collections.abc import Callable


class RepeatedJob:
    """Runs `work`, which raises nothing, by `submit`, which calls a function in a thread of a pool."""

    def __init__(self, work: Callable[[], None], submit: Callable[[Callable[[], None]], None]):
        self._work, self._submit = work, submit
        self._lock = threading.Lock()
        self._running = self._requested = self._closed = False

    def request(self) -> None:
        """Run the job soon; while it runs, run it once more after that."""
        with self._lock:
            if self._closed:
                return
            self._requested = True
            if self._running:
                return
            self._running = True
        self._submit(self._run)

    def close(self) -> None:
        """Run it no more."""
        with self._lock:
            self._closed = True

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closed or not self._requested:
                    self._running = False
                    return
                self._requested = False
            self._work()
