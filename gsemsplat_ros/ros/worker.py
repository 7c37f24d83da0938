"""One thread for the heavy work, with a mailbox: only the newest input is used, every job is done."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar('Item')
Job = Callable[[], None]


class Mailbox(Generic[Item]):
    """Holds one input and a queue of jobs, which come first. `put` replaces an input that was not taken, and
    counts it in `dropped`.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: Item | None = None
        self._jobs: list[Job] = []
        self._closed = False
        self.dropped = 0

    def put(self, item: Item) -> None:
        """Leave `item` for the worker. Returns at once."""
        with self._condition:
            self.dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def request(self, job: Job) -> None:
        """Do `job` before the next input; a job that waits already is not added again. Returns at once."""
        with self._condition:
            if job not in self._jobs:
                self._jobs.append(job)
            self._condition.notify()

    def take(self, work: Callable[[Item], None]) -> Job | None:
        """Wait for the next thing to do: a job, or `work` on the input. None once the mailbox is closed."""
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
        """Discard the waiting input."""
        with self._condition:
            self._item = None

    def close(self) -> None:
        """End the worker: `take` returns None from now on."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class Worker(Generic[Item]):
    """Calls `work(input)` for each input and does the jobs, in one thread; `failed(error)` on exceptions.

    Nothing that they raise ends the thread, or the node would go on without ever making a scene.
    """

    def __init__(self, work: Callable[[Item], None], failed: Callable[[BaseException], None]):
        self.mailbox: Mailbox[Item] = Mailbox()
        self._work, self._failed = work, failed
        # daemon: a forward pass cannot be interrupted, and a process that was told to stop must stop
        self._thread = threading.Thread(target=self._run, name='gsemsplat worker', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self.mailbox.take(self._work)) is not None:
            try:
                job()
            except BaseException as error:  # a panic of a library in Rust is no Exception
                try:
                    self._failed(error)
                except Exception:
                    traceback.print_exc()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish the work in hand, take no other. Returns whether the thread has ended within `timeout_s`."""
        self.mailbox.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
