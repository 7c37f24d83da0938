"""Loading and steps of the training of the small network, on packed rooms."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.bench.tools import Times, machine, synchronize
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.loading import AHEAD, Loader
from gsemsplat_ros.training.options import SmallNetworkOptions
from gsemsplat_ros.training.room_batches import RoomArrays, RoomPlan, load_rooms
from gsemsplat_ros.training.small_network import DRAW_EVERY, SmallNetworkTrainer

BATCHES = {'cpu': (2, 4), 'cuda': (16, 32, 64)}  # pairs in a step
LOADED = 40  # steps whose loading is timed
LOAD_BATCH = 4  # pairs in them
ROOMS, HEIGHT, WIDTH = 4, 384, 512  # that are rendered where none are given


@dataclass(frozen=True)
class Timed:
    """Arrays, the process that loaded them, and its processor time [s] before and after."""

    arrays: RoomArrays
    process: int
    before: float
    after: float

    def pin_memory(self) -> Timed:
        return replace(self, arrays=self.arrays.pin_memory())


def load_timed(plan: RoomPlan) -> Timed:
    """`load_rooms`, timed."""
    before = time.process_time()
    arrays = load_rooms(plan)
    return Timed(arrays, os.getpid(), before, time.process_time())


def bench_training(
    data: Path | None, device: torch.device, workers: int | None, repeats: int, step: Callable[[str], None]
) -> dict[str, Any]:
    """Rates of loading with `workers` processes (None: as many as a training has), and the parts of a step by
    number of pairs, over `repeats` rounds of DRAW_EVERY steps, of which one draws.

    data: packed rooms, None to render some. Raises ValueError without them.
    """
    processes = Processes(device.type)
    with tempfile.TemporaryDirectory() as folder:
        options = SmallNetworkOptions(
            out=Path(folder) / 'run',
            steps=10**6,
            batch=LOAD_BATCH,
            lr=1e-6,
            data=data or Path(folder) / 'rooms',
            rooms=None if data else ROOMS,
            height=HEIGHT,
            width=WIDTH,
        )
        if data is None:
            step('rendering rooms')
        SmallNetworkTrainer.make_data(options)
        training = SmallNetworkTrainer(options, processes)
        height, width = training.sample.depth.shape[1:]
        step('loading')
        loading = bench_loading(training, workers or processes.workers)
        rows = []
        for batch in BATCHES[device.type]:
            step(f'steps of {batch} pairs')
            rows.append(bench_steps(SmallNetworkTrainer(replace(options, batch=batch), processes), repeats))
    fastest = max(row['pairs_per_second'] for row in rows)
    share = loading['pairs_per_second'] / fastest
    return {
        'machine': machine(device),
        'height': height,
        'width': width,
        'loading': loading,
        'steps': rows,
        'bound': f'the steps: loading alone is {share:.1f} times as fast'
        if share > 1
        else f'loading: the steps alone are {1 / share:.1f} times as fast',
    }


def bench_loading(training: SmallNetworkTrainer, workers: int) -> dict[str, Any]:
    """Pairs loaded a second with nothing else to do, and processor time a pair."""
    with Loader(load_timed, workers, training.processes.device.type == 'cuda') as loader:
        loader.begin(training.plans(0))
        ahead = 1 + AHEAD * workers  # loaded while the processes start
        first = loader.take(ahead)
        start, own = time.perf_counter(), time.process_time()
        last = loader.take(LOADED)
        seconds, own = time.perf_counter() - start, time.process_time() - own
    decoding = [one.after - one.before for one in last]
    used = 0.0  # by the loading processes, also outside of `load_rooms`: in between, results are handed over
    for process in {one.process for one in last}:
        ends = [one.after for one in (*first, *last) if one.process == process]
        used += (ends[-1] - ends[0]) / (len(ends) - 1) * len(ends)
    per_pair = used / ((len(first) + LOADED) * LOAD_BATCH)
    own /= LOADED * LOAD_BATCH
    arrays = [one.arrays.to(training.processes.device) for one in last]
    start = clock(training.processes.device)
    for one in arrays:
        training.batch([one])
    device_part = (clock(training.processes.device) - start) / (LOADED * LOAD_BATCH)
    return {
        'processes': workers,
        'pairs_per_second': LOADED * LOAD_BATCH / seconds,
        'milliseconds_of_processor_a_pair': 1e3 * (per_pair + own),
        'of_these_decoding': 1e3 * float(np.mean(decoding)) / LOAD_BATCH,
        'of_these_the_training_process': 1e3 * own,
        'pairs_per_second_and_core': 1 / (per_pair + own),
        'milliseconds_of_the_device_a_pair': 1e3 * device_part,
    }


def clock(device: torch.device) -> float:
    """Seconds: on the CPU of processor time, on a GPU of time, when it has finished."""
    synchronize(device)
    return time.process_time() if device.type == 'cpu' else time.perf_counter()


def bench_steps(training: SmallNetworkTrainer, repeats: int) -> dict[str, Any]:
    """Mean times [s] of the parts of a step, over `repeats` rounds of DRAW_EVERY steps, after one step to
    warm up."""
    device = training.processes.device
    parts = {name: Times() for name in ('device_part', 'forward', 'backward', 'optimiser')}
    for number in range(-1, repeats * DRAW_EVERY):
        tasks = [numbers for turn in training.turns for numbers in turn]
        loaded = [load_rooms(plan).to(device) for plan in training.plan(max(number, 0), tasks)]
        batch = parts['device_part'].of(partial(training.batch, loaded), device)
        training.optimizer.zero_grad(set_to_none=True)
        total = parts['forward'].of(partial(training.parallel, batch), device)[0]
        parts['backward'].of(total.backward, device)
        parts['optimiser'].of(training.update, device)
    row = {name: float(np.mean(times.seconds[1:])) for name, times in parts.items()}
    whole = sum(row.values())
    batch_size = training.options.batch
    return {'batch': batch_size, **row, 'step': whole, 'pairs_per_second': batch_size / whole}
