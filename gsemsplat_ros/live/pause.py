"""Something to be done once nothing has happened for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pause:
    """Calls `work`, in a thread of its own, once `seconds` have passed since the last `restart`."""

    def __init__(self, seconds: float, work: Callable[[], None]):
        self._seconds, self._work = seconds, work
        self._lock = threading.Lock()
        self._restarted = 0.0  # [s, time.monotonic]
        self._timer: threading.Timer | None = None
        self._closed = False

    def restart(self) -> None:
        """Something has happened: wait anew."""
        with self._lock:
            self._restarted = time.monotonic()
            if self._timer is None and not self._closed:
                self._wait(self._seconds)

    def close(self) -> None:
        """Wait no longer."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    def _wait(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._lock:
            if self._closed:
                return
            left = self._restarted + self._seconds - time.monotonic()
            if left > 0:  # restarted meanwhile: one timer serves many restarts
                self._wait(left)
                return
            self._timer = None
        self._work()
