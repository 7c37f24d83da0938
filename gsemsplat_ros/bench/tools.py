"""Shared parts of the benches: device clock, statistics, memory, the machine's peak, a test scene."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera

T = TypeVar('T')
PEAK_SIDE = {'cpu': 2048, 'cuda': 8192}  # of the square matrices for the peak


@dataclass
class Times:
    """Repeated measurements of one duration [s]."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median [s]."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """Interquartile range [s]."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(high - low)

    def of(self, work: Callable[[], T], device: torch.device) -> T:
        """Run `work`, record the time until the device has finished, and return its result."""
        synchronize(device)
        start = time.perf_counter()
        result = work()
        synchronize(device)
        self.seconds.append(time.perf_counter() - start)
        return result

    @classmethod
    def within(cls, seconds: float, work: Callable[[], object], device: torch.device) -> Times:
        """Times of `work`, after two calls to warm up: as many as begin within `seconds`, at least 3 and at
        most 200."""
        times = cls()
        for _ in range(2):
            work()
        end = time.monotonic() + seconds
        while len(times.seconds) < 3 or (len(times.seconds) < 200 and time.monotonic() < end):
            times.of(work, device)
        return times

    def row(self) -> dict[str, float]:
        """A row of a table: median, interquartile range, maximum, and how many there are."""
        return {
            'median [ms]': 1e3 * self.median,
            'spread [ms]': 1e3 * self.spread,
            'worst [ms]': 1e3 * max(self.seconds),
            'repeats': len(self.seconds),
        }


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == 'cuda':
        torch.cuda.synchronize()


def peak_product(device: torch.device, dtype: torch.dtype, repeats: int = 3) -> float:
    """FLOP/s of the fastest of `repeats` square matrix products."""
    side = PEAK_SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    times, out = Times(), torch.empty_like(a)
    torch.mm(a, b, out=out)
    for _ in range(repeats):
        times.of(lambda: torch.mm(a, b, out=out), device)
    return 2 * side**3 / min(times.seconds)


class Memory:
    """A `with` that measures `megabytes`: the peak memory above that at its start, None if not on Linux."""

    def __init__(self, device: torch.device):
        self.device = device
        self.megabytes: float | None = None
        self._before: float | None = None

    def __enter__(self) -> Memory:
        gc.collect()
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return self
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
        if trim:
            trim(0)
        with contextlib.suppress(OSError):
            Path('/proc/self/clear_refs').write_text('5')  # resets the peak, VmHWM
        self._before = _resident('VmRSS')
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is None:
            return
        if self.device.type == 'cuda':
            self.megabytes = (torch.cuda.max_memory_allocated() - self._before) / 2**20
            return
        peak = _resident('VmHWM')
        self.megabytes = None if peak is None else (peak - self._before) / 2**10


def _resident(name: str) -> float | None:
    """A value of /proc/self/status [kB], None if unknown."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith(name + ':')), None)


def available_megabytes() -> float:
    """Memory available without swapping; infinite if unknown."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError:
        return float('inf')
    return next(
        (float(line.split()[1]) / 1024 for line in lines if line.startswith('MemAvailable:')), float('inf')
    )


def machine(device: torch.device) -> str:
    """Description of the device."""
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name()} (PyTorch {torch.__version__})'
    name = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), name)
    except OSError:
        pass
    load = f', load {os.getloadavg()[0]:.1f} when it began' if hasattr(os, 'getloadavg') else ''
    return f'{name}, {torch.get_num_threads()} threads (PyTorch {torch.__version__}){load}'


def wall(width: int, height: int, channels: int, seed: int = 0) -> tuple[Gaussians, Camera]:
    """Two Gaussians per pixel, as from a pair: a wavy wall seen twice, and the camera that sees all of it.

    Sizes are about a pixel, opacities and colours random, codes smooth over the wall with some noise.
    """
    rng = np.random.default_rng(seed)
    camera = Camera.centred(width, height, 0.9 * width)
    v, u = np.mgrid[:height, :width].reshape(2, -1)
    parts = []
    for shift in (0.0, 0.3):  # those of the second view are between the pixels
        z = 2.5 + 0.7 * np.sin(u / width * 9) * np.cos(v / height * 7) + rng.normal(0, 0.01, u.shape)
        parts.append(camera.rays(np.stack((u + shift, v + shift), -1)) * z[:, None])
    means = np.concatenate(parts).astype(np.float32)
    n = len(means)
    scales = means[:, 2:] * camera.length(1) * np.exp(rng.normal(-0.2, 0.4, (n, 3)))
    quats = rng.normal(size=(n, 4))
    basis = rng.normal(size=(3, channels))
    codes = np.sin(means @ basis) + rng.normal(0, 0.1, (n, channels))
    values = dict(
        means=means,
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True),
        scales=scales,
        opacities=rng.uniform(0.05, 0.98, n),
        colors=rng.uniform(0, 1, (n, 3)),
        codes=codes,
    )
    return Gaussians(
        **{k: torch.from_numpy(np.ascontiguousarray(x, np.float32)) for k, x in values.items()},
        frame='camera',
    ), camera


def unit_phrases(count: int, dim: int, seed: int = 0) -> Tensor:
    """Random unit vectors (count, dim), instead of embedded phrases."""
    phrases = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(phrases, dim=1)


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """An image (height, width, 3) uint8 of smooth texture with some noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, height // 16 + 2, width // 16 + 2)))
    smooth = (
        torch.nn.functional.interpolate(coarse, (height, width), mode='bicubic')[0].permute(1, 2, 0).numpy()
    )
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
