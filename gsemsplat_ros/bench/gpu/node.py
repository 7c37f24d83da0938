"""The part of a run on a GPU that does the work of the node without ROS: images to rows of a message."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.bench.gpu.parts import Result, Task
from gsemsplat_ros.bench.gpu.profile import profiled
from gsemsplat_ros.bench.stages import INPUT
from gsemsplat_ros.bench.tools import Times, picture, synchronize, unit_phrases
from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.rows import FIELDS, columns_of, fill_rows
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.semantics.class_words import NAME as TEXT_SPACE
from gsemsplat_ros.semantics.decoder import Decoders

PAIRS = 100
BASELINE, DISPARITY = 0.1, 12  # of the pair [m], [px]
WORD = 'chair'


class RandomWords:
    """A text encoder for timing where the package of the real one is missing: unit vectors."""

    name = TEXT_SPACE

    def __init__(self, dim: int):
        self.dim = dim

    def encode(self, phrases: Sequence[str]) -> np.ndarray:
        """K phrases -> (K, dim) float32."""
        return unit_phrases(len(phrases), self.dim).numpy()

    def knows(self, word: str) -> bool:
        """Every word."""
        return True


def timed_pipeline(device: torch.device) -> tuple[Pipeline, str]:
    """The shipped network on `device`, and what its words are."""
    try:
        return Pipeline.load(device=device.type), 'the shipped text encoder'
    except ValueError as error:
        if 'needs the package' not in str(error):
            raise
        checkpoint = weights.load(device=device)
        dim = Decoders.from_state_dict(checkpoint.decoders).dim
        return Pipeline(checkpoint, RandomWords(dim), device), f'random vectors ({error})'


def rows_of(gaussians: Gaussians) -> np.ndarray:
    """(N, 12) float32 on the host, as the node publishes them."""
    rows = np.empty((len(gaussians), len(FIELDS)), np.float32)
    columns = columns_of(gaussians, np.arange(len(gaussians)), codes=False)
    return rows[: fill_rows(rows, rows.view(np.uint32), *columns)]


def stereo_pair() -> Pair:
    """A wall with a texture in front of a stereo camera; fresh arrays, so that no encoding is kept."""
    width, height = INPUT
    wide, camera = picture(width + DISPARITY, height, 0), Camera.centred(width, height, 0.9 * width)
    first, second = (np.ascontiguousarray(wide[:, x : x + width]) for x in (0, DISPARITY))
    return Pair(View(first, camera, 'left'), View(second, camera), BASELINE)


def node_part(task: Task) -> Result:
    """Laps of `Pipeline.build`, a query and the rows of the cloud; memory; copies between host and device."""
    device = task.device
    pipeline, words = timed_pipeline(device)
    result: dict[str, Any] = {'pictures': '2 x {}x{}'.format(*INPUT), 'words': words}

    def frame() -> dict[str, float]:
        pair, start = stereo_pair(), time.perf_counter()
        scene = pipeline.build(pair)
        synchronize(device)
        built = time.perf_counter()
        pipeline.query(scene, WORD)
        asked = time.perf_counter()
        rows_of(scene.gaussians)
        end = time.perf_counter()
        laps = {'build': built - start, 'query': asked - built, 'rows': end - asked, 'whole': end - start}
        return {**{f'build: {name}': seconds for name, seconds in scene.timings.items()}, **laps}

    for _ in range(3):
        frame()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    laps: dict[str, Times] = {}
    end = time.monotonic() + task.seconds / 3
    for number in range(PAIRS):
        if number and time.monotonic() > end:
            break
        for name, seconds in frame().items():
            laps.setdefault(name, Times()).seconds.append(seconds)
    result['laps'] = {name: times.row() for name, times in laps.items()}
    if device.type == 'cuda':
        result['peak memory, allocated [MB]'] = torch.cuda.max_memory_allocated() / 2**20
        result['peak memory, reserved [MB]'] = torch.cuda.max_memory_reserved() / 2**20
    yield result
    kinds = Counter(span.name for span in profiled(frame, device) if span.name.startswith('Memcpy'))
    yield result | {'copies': {kind: {'a frame': count} for kind, count in kinds.items()}}
