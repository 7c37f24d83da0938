"""A job requested more often than it can run: requests during a run cause one more run after it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class RepeatedJob:
    """Runs `work`, which must not raise, through `submit`, which calls a function in a thread pool."""

    def __init__(self, work: Callable[[], None], submit: Callable[[Callable[[], None]], None]):
        self._work, self._submit = work, submit
        self._lock = threading.Lock()
        self._running = self._requested = self._closed = False

    def request(self) -> None:
        """Run the job soon; if it is running, once more afterwards."""
        with self._lock:
            if self._closed:
                return
            self._requested = True
            if self._running:
                return
            self._running = True
        self._submit(self._run)

    def close(self) -> None:
        """Start no further runs."""
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
