"""The loop of every training.

One folder holds a run: `state/` (everything to resume it, in small files), `log.jsonl`, TensorBoard events,
and the checkpoint with its card. Losses depend on seed and data, not on the number of processes.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.loading import Loader
from gsemsplat_ros.training.options import TrainingOptions
from gsemsplat_ros.training.progress import ProgressLog, has_line
from gsemsplat_ros.training.trainer import Trainer

Options = TypeVar('Options', bound=TrainingOptions)


@dataclass(frozen=True)
class TrainingResult:
    """steps: in all, earlier runs included; checkpoint: the file; losses: means of the last log line."""

    steps: int
    checkpoint: Path
    losses: dict[str, float]


def run(kind: type[Trainer[Options]], options: Options, quiet: bool = False) -> TrainingResult | None:
    """Train until `options.steps`, `options.minutes` or Ctrl-C. Only the first process returns a result.

    Raises ValueError for errors of the user.
    """
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else float('inf')
    processes = Processes(options.device)
    options.check(processes.count)
    if processes.first:
        kind.make_data(options)
    with processes, stop_asked() as asked:
        training = kind(options, processes)
        if not processes.first:
            train(training, None, asked, deadline)
            return None
        options.out.mkdir(parents=True, exist_ok=True)
        log = ProgressLog(training, quiet)
        try:
            train(training, log, asked, deadline)
        finally:
            log.close()
        return TrainingResult(training.step, options.out / training.checkpoint, log.losses)


@contextmanager
def stop_asked() -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C or SIGTERM, so that no step is interrupted; a second ends at once."""
    event = threading.Event()

    def stop(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(training: Trainer[Any], log: ProgressLog | None, asked: threading.Event, deadline: float) -> None:
    """Run steps to the last, until any process is `asked` to stop, or to `deadline` [s, time.monotonic]."""
    options, processes = training.options, training.processes
    done = training.step >= options.steps
    if log and done and not (options.out / training.checkpoint).exists():
        log.save()
    tasks = sum(map(len, training.turns))
    since: list[Tensor] = []  # of the steps after the last line of the log: reading them waits for the device
    with Loader(training.load, processes.workers, processes.device.type == 'cuda') as loader:
        if not done:
            loader.begin(training.plans(training.step))
        while not done:
            start = time.monotonic()
            since.append(training.train_step(loader.take(tasks)))
            done = processes.any(asked.is_set() or time.monotonic() > deadline)
            done = done or training.step >= options.steps
            rows = processes.means(since) if has_line(training.step) else []
            training.spend(time.monotonic() - start)
            if log:
                log.step(rows)
            if rows:
                since = []
            if done or training.step % training.save_every == 0:
                added = training.refresh()
                if log:
                    log.save()
                if added and not done:  # used from now on, whatever was loaded ahead
                    loader.begin(training.plans(training.step))
