"""`gsemsplat train prepare`: the target features of every frame, on independent processes and machines.

A frame is one piece of work and one file, made if the file is missing, so a stopped run continues. Shard I/N
of a machine is the pieces I, I + N, I + 2N, ... Machines exchange nothing, so no scheduler is needed.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.datasets.frames import Frame, Source
from gsemsplat_ros.datasets.sources import SceneSampler, open_source
from gsemsplat_ros.supervision.encoders import ImageEncoder, load_image_encoder, masked_crop
from gsemsplat_ros.supervision.features import Features, Space, Supervision
from gsemsplat_ros.supervision.masks import MaskFolder, Masks, SegmentAnything, instances, without_small

COVERAGE = ''  # instead of a frame's name: the coverage of the scene
WAITING = 4  # pieces of work queued per process


@dataclass(frozen=True)
class Recipe:
    """The settings of a run, for its processes. masks: a folder; sam: a checkpoint of Segment Anything;
    device: 'cpu', or 'cuda' with the processes spread over the GPUs."""

    source: Path
    out: Path
    split: str
    height: int
    width: int
    encoder: str
    checkpoint: Path | None
    masks: Path | None
    sam: Path | None
    sam_model: str
    device: str

    def __post_init__(self) -> None:
        """Raises ValueError if both sources of masks are given."""
        if self.masks and self.sam:
            raise ValueError('masks from a folder or from Segment Anything? give --masks or --sam')

    def open(self) -> Source:
        """The scenes. Raises ValueError."""
        return open_source(self.source, self.split, self.height, self.width)

    @property
    def regions(self) -> str:
        """Description of the source of the masks."""
        if self.sam:
            return f'segment anything, {self.sam_model}, {self.sam.name}'
        return 'mask folder' if self.masks else 'instances'

    def masks_of(self, source: Source, device: str) -> Masks:
        """The source of the masks; Segment Anything is loaded onto the device."""
        if self.sam:
            return SegmentAnything(self.sam, self.sam_model, device)
        return MaskFolder(self.masks, source) if self.masks else instances


def supervise(frame: Frame, masks: Masks, encoder: ImageEncoder) -> Supervision:
    """The region-specific features of a frame's masks and the context-aware map of the whole image.

    The feature of an object is its encoded name, if frame and encoder support names, else its encoded crop.
    """
    ids = without_small(masks(frame))
    found = np.unique(ids[ids > 0])
    known = encoder.words([frame.names[i] for i in found]) if frame.names is not None and len(found) else None
    if len(found) and known is None:
        known = encoder.crops([masked_crop(frame.image, ids == i) for i in found])
    rows = np.searchsorted(found, ids) + 1
    return Supervision(
        np.where(ids > 0, rows, 0).astype(np.uint16),
        np.zeros((0, encoder.dim), np.float32) if known is None else known,
        encoder.dense(frame.image),
    )


class Supervisor:
    """Encoder and masks of process `number` of `count`; a call makes one piece of work."""

    def __init__(self, recipe: Recipe, number: int = 0, count: int = 1):
        gpus = torch.cuda.device_count()
        device = f'cuda:{number % gpus}' if recipe.device == 'cuda' else 'cpu'
        if count > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
        self.source = recipe.open()
        self.features, self.samples = Features(recipe.out), SceneSampler(self.source, recipe.out)
        self.masks = recipe.masks_of(self.source, device)
        self.encoder = load_image_encoder(recipe.encoder, recipe.checkpoint, device)

    def __call__(self, scene: str, name: str) -> None:
        if name == COVERAGE:
            self.samples.coverage(scene)
        else:
            frame = self.source.frame(scene, name)
            self.features.save(scene, name, supervise(frame, self.masks, self.encoder))


def work_of(source: Source) -> list[tuple[str, str]]:
    """All pieces of work (scene, frame), done or not; the coverage of a scene comes before its frames."""
    return [(scene, name) for scene in source.scenes for name in (COVERAGE, *source.frames(scene))]


def done(source: Source, features: Features, scene: str, name: str) -> bool:
    """Whether a piece of work is done."""
    if name != COVERAGE:
        return features.has(scene, name)
    return (features.folder / scene / 'coverage.npy').is_file() or source.published_coverage(
        scene
    ) is not None


def prepare(
    recipe: Recipe, shard: tuple[int, int], workers: int, report: Callable[[int, int, float], None]
) -> dict:
    """Make the missing features of a shard (number, count); returns a summary.

    `report` is called after every piece with: pieces done, pieces to do, seconds since the start. Raises
    ValueError for errors of the user; files made until then are kept.
    """
    worker = Supervisor(recipe)  # even with several processes: errors appear before anything is written
    source, features, encoder = worker.source, worker.features, worker.encoder
    if recipe.regions == 'instances':
        instances(source.frame(source.scenes[0], source.frames(source.scenes[0])[0]))
    features.begin(
        Space(
            encoder.name,
            encoder.dim,
            None if encoder.text_mean is None else encoder.text_mean.tolist(),
            source.kind,
            recipe.split,
            source.height,
            source.width,
            recipe.regions,
        )
    )
    number, count = shard
    mine = work_of(source)[number::count]
    missing = [piece for piece in mine if not done(source, features, *piece)]
    start = time.monotonic()

    def made(count: int) -> None:
        report(count, len(missing), time.monotonic() - start)

    workers = min(workers, len(missing))
    if workers > 1:
        del worker, encoder
        _in_processes(recipe, missing, workers, made)
    else:
        for i, piece in enumerate(missing):
            worker(*piece)
            made(i + 1)
    return {
        'shard': f'{number}/{count}',
        'scenes': len(source.scenes),
        'pieces': len(mine),
        'made': len(missing),
        'seconds': round(time.monotonic() - start, 1),
        'encoder': recipe.encoder,
        'regions': recipe.regions,
    }


_worker: Supervisor | ValueError


def _begin(recipe: Recipe, numbers: SimpleQueue, count: int) -> None:
    global _worker
    try:
        _worker = Supervisor(recipe, numbers.get(), count)
    except ValueError as error:
        _worker = error  # an error raised in an initializer is lost


def _do(scene: str, name: str) -> None:
    if isinstance(_worker, ValueError):
        raise _worker
    _worker(scene, name)


def _in_processes(
    recipe: Recipe, missing: list[tuple[str, str]], workers: int, report: Callable[[int], None]
) -> None:
    """Make the missing pieces; `report` is called with the number of pieces made."""
    context = multiprocessing.get_context('spawn')  # CUDA and threads do not survive a fork
    numbers = context.SimpleQueue()
    for i in range(workers):
        numbers.put(i)
    coming, made = iter(missing), 0
    running: set[Future[None]] = set()
    with ProcessPoolExecutor(workers, context, _begin, (recipe, numbers, workers)) as pool:
        try:
            while True:
                running |= {
                    pool.submit(_do, *piece)
                    for _, piece in zip(range(WAITING * workers - len(running)), coming)
                }
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    made += 1
                    report(made)
        except BrokenProcessPool:
            raise ValueError(
                'a worker process ended by itself (out of memory?): give fewer --workers; what was made stays'
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
