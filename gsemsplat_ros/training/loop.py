"""The loop of `gsemsplat train`: the small network from packed rooms and a packaged ImageNet classifier.

One folder holds a run: `state/` (all that it needs to go on, in small files), `log.jsonl`, TensorBoard
events, and `small.safetensors`, the checkpoint with its card. The same seed and rooms give the same losses on
any number of processes.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gsemsplat_ros.datasets.packed_rooms import PackedRooms
from gsemsplat_ros.rooms.stream import pack
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.small_network import SmallNetworkTrainer
from gsemsplat_ros.training.trainer import Trainer

AHEAD = 2  # steps whose pairs are being loaded
LOG_EVERY = 20  # steps; the first ones are logged singly
LOG_SINGLY = 10  # steps


def make_rooms(args: argparse.Namespace) -> None:
    """Render those of the `args.rooms` rooms that `args.data` lacks."""
    if not all((args.data / f'train_{number:06d}.npz').exists() for number in range(args.rooms)):
        pack(args.data, args.height, args.width, 'train', range(args.rooms))


@contextmanager
def stop_asked() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM, which so never come in the middle of a step; the second one ends at
    once.
    """
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


class ProgressLog:
    """What the first process says: a bar on stderr, log.jsonl, TensorBoard; means since the last line."""

    def __init__(self, training: Trainer, quiet: bool):
        self.training, args = training, training.args
        self.since: list[dict[str, float]] = []
        self.losses: dict[str, float] = {}
        self.log = (args.out / 'log.jsonl').open('a')
        self.board = SummaryWriter(str(args.out), purge_step=training.step + 1)
        # pairs, not steps: the bar then says pairs a second and the time left by itself
        self.bar = tqdm(
            total=args.steps * args.batch,
            initial=training.step * args.batch,
            unit='pair',
            disable=True if quiet else None,
        )

    def step(self, values: dict[str, float]) -> None:
        self.since.append(values)
        self.bar.update(self.training.args.batch)
        step = self.training.step
        if step > LOG_SINGLY and step % LOG_EVERY:
            return
        means = {name: [v[name] for v in self.since if not math.isnan(v[name])] for name in values}
        self.losses = {name: sum(some) / len(some) for name, some in means.items() if some}
        self.since = []
        self.bar.set_postfix(
            {name: f'{self.losses[name]:.3f}' for name in self.training.shown if name in self.losses}
        )
        facts = self.training.facts
        line = {
            'step': step,
            'pairs': facts['pairs'],
            'seconds': 3600 * sum(facts['hours'].values()),
            **self.losses,
        }
        self.log.write(json.dumps({name: round(value, 6) for name, value in line.items()}) + '\n')
        self.log.flush()
        for name, value in self.losses.items():
            self.board.add_scalar(name, value, step)

    def save(self) -> None:
        self.board.add_image('first pair', self.training.save(), self.training.step, dataformats='HWC')

    def close(self) -> None:
        self.bar.close()
        self.board.close()
        self.log.close()


def run(args: argparse.Namespace, quiet: bool = False) -> dict | None:
    """Train until `args.steps`, `args.minutes` or Ctrl-C. The first process returns {'steps', 'checkpoint',
    'losses'}.

    Raises ValueError for what the user can mend.
    """
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else float('inf')
    processes = Processes(args.device)
    if args.batch % processes.count:
        raise ValueError(
            f'{args.batch} pairs a step for {processes.count} processes: give a --batch that '
            f'{processes.count} divides'
        )
    if args.rooms and processes.first:
        make_rooms(args)
    with processes, stop_asked() as asked:
        rooms = PackedRooms(args.data)
        size = rooms[0].images.shape[1:3]
        if args.rooms and size != (args.height, args.width):
            raise ValueError(
                f'{args.data} has rooms of {size[0]}x{size[1]} px, wanted {args.height}x{args.width}: '
                'give their --height and --width, or another --data'
            )
        return go(SmallNetworkTrainer(args, rooms, processes), asked, deadline, quiet)


def go(training: Trainer, asked: threading.Event, deadline: float, quiet: bool) -> dict | None:
    """`train`, with the first process's report, and what `run` returns."""
    if not training.processes.first:
        train(training, None, asked, deadline)
        return None
    out = training.args.out
    out.mkdir(parents=True, exist_ok=True)
    report = ProgressLog(training, quiet)
    try:
        train(training, report, asked, deadline)
    finally:
        report.close()
    return {'steps': training.step, 'checkpoint': str(out / training.checkpoint), 'losses': report.losses}


def train(training: Trainer, report: ProgressLog | None, asked: threading.Event, deadline: float) -> None:
    """Steps until the last, until any process is `asked` to stop, or until `deadline` [s, time.monotonic]."""
    args, processes = training.args, training.processes
    done = training.step >= args.steps
    if report and done and not (args.out / training.checkpoint).exists():
        report.save()
    with ThreadPoolExecutor(processes.threads, initializer=processes.take_device) as pool:

        def load(step: int) -> list[Future]:
            return [
                pool.submit(training.pair, step, number) for number in training.share if step < args.steps
            ]

        coming = deque(load(training.step + i) for i in range(AHEAD))
        while not done:
            start = time.monotonic()
            coming.append(load(training.step + AHEAD))
            values = training.train_step([pair.result() for pair in coming.popleft()])
            wanted = asked.is_set() or time.monotonic() > deadline
            *values, stop = processes.mean(torch.cat((values, values.new_tensor([wanted]))))
            training.spend(time.monotonic() - start)
            done = stop > 0 or training.step >= args.steps
            if report:
                report.step(
                    dict(zip((*training.terms, 'gradient_norm'), values))
                    | {'lr': training.optimizer.param_groups[0]['lr']}
                )
            if done or training.step % training.save_every == 0:
                training.refresh()
                if report:
                    report.save()
