"""Loading ahead by processes, in the order of the steps."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

import cv2
from torch.utils.data import DataLoader, Dataset

from gsemsplat_ros.network.inference import keep_memory

AHEAD = 2  # tasks that each process loads in advance
Plan = TypeVar('Plan')
Loaded = TypeVar('Loaded')


class Refusal:
    """The message of a ValueError in a loading process: exceptions come back with a traceback."""

    def __init__(self, said: str):
        self.said = said


class Task(Dataset, Generic[Plan, Loaded]):
    """`load` as a data set whose indices are plans."""

    def __init__(self, load: Callable[[Plan], Loaded]):
        self.load = load

    def __getitem__(self, plan: Plan) -> Loaded | Refusal:
        try:
            return self.load(plan)
        except ValueError as error:
            return Refusal(str(error))


class Plans(Generic[Plan]):
    """The plans that are still to load: replaced while the processes live on."""

    coming: Iterator[Plan] = iter(())

    def __iter__(self) -> Iterator[Plan]:
        return self.coming


class Loader(Generic[Plan, Loaded]):
    """Loads plans ahead and in order, for use in a `with`: `workers` processes run `load`, or this one if
    there are none.

    load: called in other processes, so it and its plans are pickled; raises ValueError for errors of the
    user; pinned: results are copied to pinned memory, from which transfers to a GPU overlap computation. What
    comes depends on the plans alone, not on the number of processes.
    """

    def __init__(self, load: Callable[[Plan], Loaded], workers: int, pinned: bool):
        self.plans: Plans[Plan] = Plans()
        self.loader: DataLoader | None = DataLoader(
            Task(load),
            batch_size=None,
            sampler=self.plans,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pinned,
            multiprocessing_context='spawn' if workers else None,  # a fork would inherit locked locks
            worker_init_fn=prepare_worker,
        )
        self.coming: Iterator[Any] = iter(())

    def begin(self, plans: Iterator[Plan]) -> None:
        """Load these from now on, and drop what was loaded ahead."""
        assert self.loader is not None, 'a closed loader'
        self.plans.coming = plans
        with signals_later():
            self.coming = iter(self.loader)

    def take(self, count: int) -> list[Loaded]:
        """The next `count`. Raises ValueError as `load` did."""
        taken = [next(self.coming) for _ in range(count)]
        for one in taken:
            if isinstance(one, Refusal):
                raise ValueError(one.said)
        return taken

    def __enter__(self) -> Loader[Plan, Loaded]:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the processes. Raises ValueError if one of them was lost, instead of PyTorch's error, which
        comes at any time."""
        end = getattr(self.coming, '_shutdown_workers', None)
        if end:  # not left to its destructor: a traceback may keep it alive, and with it the wait for a loss
            with suppress(RuntimeError):
                end()
        self.loader, self.coming = None, iter(())
        said = str(error).strip()
        named = isinstance(error, RuntimeError) and said.startswith('DataLoader worker (pid')
        if named or isinstance(error, (EOFError, ConnectionError)):  # while it was handing over
            raise ValueError(
                f'a process that loads pairs is lost ({said or type(error).__name__}): see whether memory or '
                'shared memory (/dev/shm) ran out, and start again'
            ) from None


def prepare_worker(number: int) -> None:
    """Called first in every loading process."""
    cv2.setNumThreads(1)
    keep_memory()
    # the interpreter's own end would abort a thread that is just handing a result over
    atexit.register(os._exit, 0)


@contextmanager
def signals_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM arrive after the `with`; processes started inside never see them, for they end with
    this one."""
    resource_tracker.ensure_running()  # it would unblock them
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
