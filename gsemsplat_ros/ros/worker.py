"""One thread that owns the heavy work, fed through a mailbox with one place: the newest input wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Mailbox:
    """One place: `put` replaces what was not taken yet and counts it in `dropped`."""

    def __init__(self):
        self._condition = threading.Condition()
        self._item: Any = None
        self._closed = False
        self.dropped = 0

    def put(self, item: Any) -> None:
        """Leave `item` (not None) for the taker. Returns at once."""
        with self._condition:
            self.dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def take(self) -> Any:
        """Wait for an item and empty the place; None once the mailbox is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._item is not None)
            item, self._item = (None if self._closed else self._item), None
            return item

    def clear(self) -> None:
        """Forget what lies there."""
        with self._condition:
            self._item = None

    def close(self) -> None:
        """Wake the taker for the last time."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class Worker:
    """Calls `work(item)` for each item of its mailbox, in one thread; `failed(error)` for each exception of
    `work`.
    """

    def __init__(self, work: Callable[[Any], None], failed: Callable[[Exception], None]):
        self.mailbox = Mailbox()
        self._work, self._failed = work, failed
        # daemon: a forward pass cannot be interrupted, and a process that was told to stop must stop
        self._thread = threading.Thread(target=self._run, name='gsemsplat worker', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self.mailbox.take()) is not None:
            try:
                self._work(item)
            except Exception as error:
                self._failed(error)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish the item in hand, take no other. Returns whether the thread has ended within `timeout_s`."""
        self.mailbox.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
