"""Rooms packed into files (datasets/packed_rooms.py), rendered by as many processes as there are cores.

A room depends on its number alone, so the files are the same for any number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gsemsplat_ros.datasets.packed_rooms import VOCABULARY, encode
from gsemsplat_ros.files import write_whole
from gsemsplat_ros.rooms.furniture import load_furniture
from gsemsplat_ros.rooms.stream import RoomStream, vocabulary

_device = 0  # of a process that renders: the GPU, where there are several
_stream: RoomStream | None = None  # of a process that renders


def pack(
    folder: Path, height: int, width: int, numbers: range, split: str = 'train', processes: int | None = None
) -> None:
    """Render the rooms with these `numbers` into `folder`, one file each; existing files are kept.

    processes: None for one a core. Raises ValueError without furniture or EGL.
    """
    paths = {number: folder / f'{split}_{number:06d}.npz' for number in numbers}
    missing = {number: path for number, path in paths.items() if not path.exists()}
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary(load_furniture(), split)
    with write_whole(folder / VOCABULARY) as part:
        part.write_text(json.dumps(words, indent=0))
    context = multiprocessing.get_context('spawn')  # OpenGL and threads do not survive a fork
    count = min(processes or os.cpu_count() or 1, len(missing))
    pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=(context.Value('i', 0),))
    try:
        jobs = [pool.submit(_pack_one, *item, height, width, split) for item in missing.items()]
        for job in tqdm(jobs, unit='room', disable=None):
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start(started: Synchronized[int]) -> None:
    """Settle a process: `started` counts them."""
    global _device
    with started.get_lock():
        _device = started.value
        started.value += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends them
    os.environ['LP_NUM_THREADS'] = '1'  # of Mesa's software renderer; the processes share the cores
    cv2.setNumThreads(1)


def _pack_one(number: int, path: Path, height: int, width: int, split: str) -> None:
    """Render one room into its file; no file if no camera poses fit."""
    global _stream
    if _stream is None:
        _stream = RoomStream(height, width, split, device=_device)
    samples = _stream.room(number)
    if samples:
        with write_whole(path) as part, part.open('wb') as file:
            np.savez(file, **encode(samples))  # type: ignore[arg-type]  # the stub's other keyword is a bool
