"""The part of a run on a GPU that says which kernels take its time, and where it waits between them."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gsemsplat_ros.bench.compare import public_precision
from gsemsplat_ros.bench.gpu.parts import Result, Task
from gsemsplat_ros.bench.stages import Workload, encode_new_keyframe, fitted
from gsemsplat_ros.bench.tools import synchronize
from gsemsplat_ros.files import write_whole

PAIRS = 10
LONGEST = 10  # kernels, and gaps, that are named
NAMED = 70  # characters of the name of a kernel
LARGEST_TRACE = 12 * 2**20  # bytes
ON_DEVICE = 'kernel', 'gpu_memcpy', 'gpu_memset'


@dataclass(frozen=True)
class Span:
    """Work of the device: name, start and length [us]."""

    name: str
    start: float
    length: float


def profiled(work: Callable[[], object], device: torch.device, trace: Path | None = None) -> list[Span]:
    """What the device did for `work`, by start; nothing on a CPU. `trace`: a file that is to hold it, in
    Chrome's format, if it is not too large."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == 'cuda' else [])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        with profile(activities=activities) as recorded:
            work()
            synchronize(device)
        recorded.export_chrome_trace(str(path))
        text = path.read_bytes()
    packed = gzip.compress(text, 6) if trace else b''
    if trace and len(packed) <= LARGEST_TRACE:
        with write_whole(trace) as unfinished:
            unfinished.write_bytes(packed)
    return spans_of(json.loads(text))


def spans_of(trace: dict[str, Any]) -> list[Span]:
    """The device's work of a trace in Chrome's format, by start."""
    events = [event for event in trace['traceEvents'] if event.get('cat') in ON_DEVICE]
    return sorted(
        (Span(event['name'][:NAMED], event['ts'], event.get('dur', 0)) for event in events),
        key=lambda s: s.start,
    )


def account(name: str, spans: Sequence[Span]) -> dict[str, Any]:
    """Where the time went: from the first work to the end of the last, how much of it the device was busy,
    the longest kernels by the sum of their runs, and the longest gaps with what is around them."""
    totals: dict[str, list[float]] = defaultdict(list)
    gaps: list[tuple[float, str, str]] = []
    busy, last, end = 0.0, '', spans[0].start if spans else 0.0
    for span in spans:
        totals[span.name].append(span.length)
        if span.start > end:
            gaps.append((span.start - end, last, span.name))
        if span.start + span.length > end:
            busy += span.start + span.length - max(span.start, end)
            last, end = span.name, span.start + span.length
    longest = sorted(totals.items(), key=lambda item: -sum(item[1]))[:LONGEST]
    return {
        f'{name}: from first to last [ms]': (end - spans[0].start) / 1e3 if spans else 0.0,
        f'{name}: busy [ms]': busy / 1e3,
        f'kernels of {name}': {
            kernel: {'sum [ms]': sum(runs) / 1e3, 'runs': len(runs)} for kernel, runs in longest
        },
        f'gaps of {name}': {
            f'{number + 1}': {'[us]': length, 'after': before, 'before': after}
            for number, (length, before, after) in enumerate(sorted(gaps, reverse=True)[:LONGEST])
        },
    }


def profile_part(task: Task, sizes: Sequence[str] = ('large', 'small')) -> Result:
    """Kept pairs of both networks; what the host did meanwhile is in the trace of the first."""
    result: dict[str, Any] = {'pairs': PAIRS}
    for size in sizes:
        with torch.inference_mode(), public_precision():
            work = Workload.of_size(size, task.device)
            images = fitted(work.views)

            def pairs(work: Workload = work, images: Sequence[Any] = images) -> None:
                for _ in range(PAIRS):
                    work.fast.predict(*encode_new_keyframe(work.fast, images))

            pairs()
            spans = profiled(pairs, task.device, task.out / 'trace.json.gz' if size == sizes[0] else None)
        result |= account(size, spans)
        yield result
