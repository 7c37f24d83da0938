"""One thread for the heavy work, with a mailbox: of the inputs the newest is used, every job is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar('Item')
Job = Callable[[], None]


class Mailbox(Generic[Item]):
    """One place for an input: `put` replaces one that was not taken yet and counts it in `dropped`. And a
    line of jobs, which come first.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: Item | None = None
        self._jobs: list[Job] = []
        self._closed = False
        self.dropped = 0

    def put(self, item: Item) -> None:
        """Leave `item` for the taker. Returns at once."""
        with self._condition:
            self.dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def request(self, job: Job) -> None:
        """Have `job` done before the next input; one that waits already is done once. Returns at once."""
        with self._condition:
            if job not in self._jobs:
                self._jobs.append(job)
            self._condition.notify()

    def take(self, work: Callable[[Item], None]) -> Job | None:
        """Wait for what is to be done: a job, or `work` on the input. None once the mailbox is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._jobs or self._item is not None)
            if self._closed:
                return None
            if self._jobs:
                return self._jobs.pop(0)
            assert self._item is not None
            item, self._item = self._item, None
            return partial(work, item)

    def clear(self) -> None:
        """Forget the input that lies there."""
        with self._condition:
            self._item = None

    def close(self) -> None:
        """Wake the taker for the last time."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class Worker(Generic[Item]):
    """Calls `work(input)` for each input of its mailbox and does its jobs, in one thread; `failed(error)` for
    each exception.
    """

    def __init__(self, work: Callable[[Item], None], failed: Callable[[Exception], None]):
        self.mailbox: Mailbox[Item] = Mailbox()
        self._work, self._failed = work, failed
        # daemon: a forward pass cannot be interrupted, and a process that was told to stop must stop
        self._thread = threading.Thread(target=self._run, name='gsemsplat worker', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self.mailbox.take(self._work)) is not None:
            try:
                job()
            except Exception as error:
                self._failed(error)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish the work in hand, take no other. Returns whether the thread has ended within `timeout_s`."""
        self.mailbox.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
