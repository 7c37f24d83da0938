"""`gsemsplat bench`: the public algorithm and the fast path, stage by stage, in alternation in one process.

Both have the same weights and the same images. `small` has the shipped weights, `large` random ones by the
rule of checkpoints/parity.py, because the public ones cannot be shipped: times do not depend on the weights,
but the differences between the paths do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gsemsplat_ros.bench.stages import DRAWN, HEIGHT, WIDTH, Stage, Workload, network_stages, scene_stages
from gsemsplat_ros.bench.tools import Memory, Times, machine, peak_product
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.inference import keep_memory

REPEATS = {'large': 3, 'small': 7}
# on a GPU, whichever ends first: a stage takes a thousandth of the time, so its clock needs more repeats
GPU_REPEATS, GPU_SECONDS = 100, 20.0
# largest and mean difference of an output from the plain path, relative to the output's range, bfloat16
TOLERANCE, MEAN_TOLERANCE = 0.15, 0.015
Step = Callable[[str], None]  # called with a description before each measurement


@dataclass(frozen=True)
class Comparison:
    """Measurements. plain, fast: stage -> times; peaks: type -> FLOP/s of matrix products; differences:
    output -> largest and mean difference of the paths; memory: path -> MB besides the weights or None."""

    stages: Sequence[Stage]
    plain: dict[str, Times]
    fast: dict[str, Times]
    peaks: dict[torch.dtype, float]
    differences: dict[str, dict[str, float]]
    memory: dict[str, float | None]


def bench(
    size: str,
    device: torch.device,
    repeats: int = 0,
    more: Iterable[Callable[[Gaussians], Stage]] = (),
    step: Step = lambda text: None,
) -> dict[str, Any]:
    """Measure; returns the output of `gsemsplat bench --json`.

    repeats: of each stage (0: REPEATS, on a GPU as many as GPU_SECONDS allow); more: functions that make
    further stages from the rendered Gaussians.
    """
    keep_memory()
    where = machine(device)
    with torch.inference_mode(), public_precision():
        return bench_workload(Workload.of_size(size, device), where, repeats, more, step)


def bench_workload(
    work: Workload,
    where: str,
    repeats: int = 0,
    more: Iterable[Callable[[Gaussians], Stage]] = (),
    step: Step = lambda text: None,
) -> dict[str, Any]:
    """`bench` of a workload that was made; where: what `machine` says of its device."""
    seconds = float('inf')
    if not repeats:
        repeats = REPEATS[work.size]
        if work.device.type == 'cuda':
            repeats, seconds = GPU_REPEATS, GPU_SECONDS
    stages = [*network_stages(work), *scene_stages(work), *(make(work.gaussians) for make in more)]
    compared = compare(stages, work, repeats, seconds, step)
    return {
        'size': work.size,
        'device': where,
        'pictures': f'{WIDTH}x{HEIGHT}',
        'drawn': 'x'.join(map(str, DRAWN[work.size])),
        'gaussians': len(work.gaussians),
        'weights': work.weights,
        'repeats': len(compared.fast[stages[0].name].seconds),
        **summary(compared, work),
    }


def compare(stages: Sequence[Stage], work: Workload, repeats: int, seconds: float, step: Step) -> Comparison:
    """Run the stages on both paths, alternating, `repeats` times; none is begun after `seconds`."""
    for stage in stages:  # libraries choose kernels, compiled code is loaded
        step(f'{stage.name}, warming up')
        if stage.network:
            stage.plain()
        stage.fast()
    plain = {stage.name: Times() for stage in stages}
    fast = {stage.name: Times() for stage in stages}
    made: dict[str, tuple[Any, Any]] = {}  # stage -> newest outputs, if they are compared
    peaks = {torch.float32: 0.0, fast_type(work): 0.0}
    end = time.monotonic() + seconds
    for repeat in range(repeats):
        if repeat and time.monotonic() > end:
            break
        for kind in peaks:
            step('matrix products')
            peaks[kind] = max(peaks[kind], peak_product(work.device, kind))
        for stage in stages:
            step(stage.name)
            theirs, ours = made.get(stage.name, (None, None))
            # dense compositing is the slowest step: twice is enough
            if stage.name != 'render' or repeat < 2:
                theirs = plain[stage.name].of(stage.plain, work.device)
            ours = fast[stage.name].of(stage.fast, work.device)
            if stage.outputs:
                made[stage.name] = theirs, ours
            del theirs, ours  # a gigabyte at 512 x 512
    memory = {}
    for path in ('plain', 'fast'):
        step(f'memory of the {path} path')
        with Memory(work.device) as used:
            for stage in stages:
                if stage.network:
                    getattr(stage, path)()
        memory[path] = used.megabytes
    differences = {}
    for stage in stages:
        if stage.outputs:
            wanted, found = (stage.outputs(result) for result in made[stage.name])
            differences.update(
                {name: difference(found[name], wanted[name]) for name in wanted if name in found}
            )
    return Comparison(stages, plain, fast, peaks, differences, memory)


def summary(compared: Comparison, work: Workload) -> dict[str, Any]:
    """The measurements in the form of `gsemsplat bench --json`."""
    rows = {stage.name: row(stage, compared) for stage in compared.stages}
    network = [stage.name for stage in compared.stages if stage.network]
    plain_seconds = sum(rows[name]['plain_seconds'] for name in network)
    fast_seconds = sum(rows[name]['fast_seconds'] for name in network)
    counted = [stage for stage in compared.stages if stage.flops.fast]
    speed = sum(stage.flops.fast for stage in counted) / sum(compared.fast[s.name].median for s in counted)
    peak = compared.peaks[fast_type(work)]
    largest = max(difference['largest'] for difference in compared.differences.values())
    mean = max(difference['mean'] for difference in compared.differences.values())
    return {
        'plain_seconds': plain_seconds,
        'fast_seconds': fast_seconds,
        'ratio': plain_seconds / fast_seconds,
        'fast_type': str(fast_type(work)).removeprefix('torch.'),
        'fast_flops_per_second': speed,
        'peak_flops_per_second': peak,
        'peak_float32_flops_per_second': compared.peaks[torch.float32],
        'peak_fraction': speed / peak,
        'max_relative_difference': largest,
        'mean_relative_difference': mean,
        'tolerance': TOLERANCE,
        'mean_tolerance': MEAN_TOLERANCE,
        'within_tolerance': largest <= TOLERANCE and mean <= MEAN_TOLERANCE,
        'differences': compared.differences,
        'peak_memory_megabytes': compared.memory,
        'weights_megabytes': {'plain': megabytes(work.model), 'fast': megabytes(work.fast.model)},
        'gaussians_per_second': len(work.gaussians) / rows['render']['fast_seconds'],
        'stages': rows,
    }


def row(stage: Stage, compared: Comparison) -> dict[str, float]:
    """The numbers of one stage."""
    plain, fast = compared.plain[stage.name], compared.fast[stage.name]
    out = {
        'plain_seconds': plain.median,
        'plain_iqr_seconds': plain.spread,
        'fast_seconds': fast.median,
        'fast_iqr_seconds': fast.spread,
        'ratio': plain.median / fast.median,
    }
    if stage.flops.fast:
        out.update(
            plain_flops_per_second=stage.flops.plain / plain.median,
            fast_flops_per_second=stage.flops.fast / fast.median,
            plain_flops=stage.flops.plain,
            fast_flops=stage.flops.fast,
        )
    return out


def difference(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Largest and mean difference relative to the range of `theirs`, where both are finite."""
    ours, theirs = ours.float(), theirs.float()
    known = torch.isfinite(theirs) & torch.isfinite(ours)
    ours, theirs = ours[known], theirs[known]
    span = (theirs.max() - theirs.min()).clamp(min=1e-12)
    error = (ours - theirs).abs() / span
    return {'largest': float(error.max()), 'mean': float(error.mean())}


def fast_type(work: Workload) -> torch.dtype:
    """The type in which the fast path multiplies."""
    return torch.bfloat16 if work.fast.bf16 else torch.float32


def megabytes(model: torch.nn.Module) -> float:
    """Size of a model's weights [MB]."""
    return sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20


@contextmanager
def public_precision() -> Iterator[None]:
    """Inside, float32 products on a GPU use TF32, as in the public code."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
