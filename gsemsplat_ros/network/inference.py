"""The network on one device: its precision, the encodings that it reuses, and CUDA graphs.

Only `wait` blocks: images are uploaded asynchronously, and outputs stay on the device until they are read. On
a CPU, images are encoded one by one, so that a kept encoding equals a new one bit for bit.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gsemsplat_ros.device import upload
from gsemsplat_ros.network.model import Encoding, GSemSplat, Prediction, Result, Runner, run_serial
from gsemsplat_ros.network.narrow_maps import compute_right
from gsemsplat_ros.network.pixels import to_tensor
from gsemsplat_ros.network.tensors import encoding_from, encoding_tensors, prediction_from, prediction_tensors

KEPT = 2  # encodings of the last two images: each keyframe of a sequence is in two pairs
RECORDED = 6  # passes kept at most: two batches to encode and one to predict, for two sizes of image


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it is only emulated."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, 'get_capabilities'):  # PyTorch before 2.8
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ('avx512_bf16', 'amx_bf16', 'amx_tile', 'bf16'))


def keep_memory() -> None:
    """Make glibc keep the process's freed memory, up to half a gigabyte, instead of returning it each time.

    A pass makes and drops hundreds of tensors of megabytes; getting fresh pages for them costs more than the
    work on them (a pass of the small network: 0.58 s with fresh pages, 0.36 s without, one core). Other C
    libraries have no mallopt and are left alone.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: the largest that glibc allows
        libc.mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD


def channels_last(model: nn.Module) -> None:
    """Use the memory layout in which these convolutions are fastest."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack it


class ParallelRunner:
    """A Runner on a CPU: the work of both views at once, each with half of PyTorch's threads.

    The two views interact in cross attention only, so splitting by view is faster than splitting each tensor:
    a pass of the small network takes two thirds of the time on two cores.
    """

    def __init__(self):
        threads = torch.get_num_threads()
        self._pool = (
            ThreadPoolExecutor(2, 'view', torch.set_num_threads, (max(1, threads // 2),))
            if threads > 1
            else None
        )
        if self._pool:  # the number is per thread; new threads inherit the one set last, so set ours again
            barrier = threading.Barrier(3)
            for _ in range(2):
                self._pool.submit(barrier.wait)
            barrier.wait()
            torch.set_num_threads(threads)

    def __call__(self, first: Callable[[], Result], second: Callable[[], Result]) -> tuple[Result, Result]:
        if not self._pool:
            return run_serial(first, second)
        futures = [self._pool.submit(torch.inference_mode()(work)) for work in (first, second)]
        wait(futures)  # both have ended before the error of one is raised
        return futures[0].result(), futures[1].result()


class Inference:
    """A network prepared for pairs of images; for use by one thread.

    Changes `model`: where the device has units for bfloat16, and unless `exact`, its weights become bfloat16
    (`bf16` is then True); its convolutions become channels-last then, those of the small network always.
    `run` runs the work of the two views.
    """

    def __init__(self, model: GSemSplat, device: torch.device, exact: bool = False):
        self.model, self.device = model, device
        self.bf16 = not exact and has_bfloat16(device)
        if self.bf16:
            model.to(torch.bfloat16)
            if device.type == 'cpu':
                compute_right(model)
        # depthwise convolutions take half the time with channels last, and heads four fifths, also in float32
        if self.bf16 or model.config.stem:
            channels_last(model)
        self.run: Runner = ParallelRunner() if device.type == 'cpu' else run_serial
        self._kept: list[tuple[np.ndarray, Encoding]] = []
        self._recorded: dict[tuple, Recording] = {}
        self._pool: Any = None  # the memory of the recorded passes

    def upload(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 to (1, 3, H, W) in [-1, 1] on the device; the copy to a GPU is asynchronous."""
        return to_tensor(upload(image, self.device))[None].contiguous()

    @torch.inference_mode()
    def encode(
        self, images: Sequence[np.ndarray], keys: Sequence[np.ndarray] | None = None
    ) -> list[Encoding]:
        """The encodings of `images` (H, W, 3) uint8, all of one size.

        keys: the arrays that the images were made from (None: the images themselves). The encodings of the
        last two keys are kept, and reused for the same array object at the same size.
        """
        keys = images if keys is None else keys
        known = [self._kept_encoding(key, image) for key, image in zip(keys, images)]
        made = self._encode([image for image, encoding in zip(images, known) if encoding is None])
        encodings = [made.pop(0) if encoding is None else encoding for encoding in known]
        self._kept = list(zip(keys, encodings))[-KEPT:]
        return encodings

    @torch.inference_mode()
    def predict(self, first: Encoding, second: Encoding, descriptors: bool = False) -> Prediction:
        """The network's output for a pair; `descriptors`: with these, if it has any."""
        descriptors = descriptors and self.model.config.descriptors
        if self.device.type != 'cuda':
            return self.model.forward_encoded(first, second, descriptors, self.run)
        names = encoding_tensors(first).keys()
        tensors = (*encoding_tensors(first).values(), *encoding_tensors(second).values())

        def forward(*tensors: Tensor) -> dict[str, Tensor]:
            halves = tensors[: len(names)], tensors[len(names) :]
            first, second = (encoding_from(dict(zip(names, half, strict=True))) for half in halves)
            return prediction_tensors(self.model.forward_encoded(first, second, descriptors, self.run))

        name = 'describe' if descriptors else 'predict'
        return prediction_from(self._replay(name, forward, tensors))

    def forget(self) -> None:
        """Drop what is kept for reuse: encodings and recorded passes."""
        self._kept.clear()
        self._recorded.clear()

    def wait(self) -> None:
        """Block until the device has finished all its work."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)

    def _kept_encoding(self, key: np.ndarray, image: np.ndarray) -> Encoding | None:
        for mine, encoding in self._kept:
            if mine is key and tuple(encoding.images.shape[-2:]) == image.shape[:2]:
                return encoding
        return None

    def _encode(self, images: Sequence[np.ndarray]) -> list[Encoding]:
        uploaded = [self.upload(image) for image in images]
        if self.device.type == 'cuda' and uploaded:
            return self._encode_batch(torch.cat(uploaded))
        if len(uploaded) == 2:
            first, second = uploaded
            return list(self.run(partial(self.model.encode, first), partial(self.model.encode, second)))
        return [self.model.encode(image) for image in uploaded]

    def _encode_batch(self, images: Tensor) -> list[Encoding]:
        def forward(batch: Tensor) -> dict[str, Tensor]:
            made = encoding_tensors(self.model.encode(batch))
            del made['images']  # they are there already
            return made

        batch = encoding_from({'images': images, **self._replay('encode', forward, (images,))})
        return [batch.part(slice(i, i + 1)) for i in range(len(images))]

    def _replay(
        self, name: str, forward: Callable[..., dict[str, Tensor]], tensors: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        """`forward(*tensors)`, recorded at the first call with these shapes."""
        key = (name, *(tuple(t.shape) for t in tensors))
        if key not in self._recorded:
            if len(self._recorded) > RECORDED:
                self._recorded.clear()
            if not self._recorded:
                self._pool = torch.cuda.graph_pool_handle()
            self._recorded[key] = Recording(forward, tensors, self._pool)
        return self._recorded[key](tensors)


class Recording:
    """A function of tensors on a GPU as a CUDA graph, replayed without Python or launching single kernels.

    pool: memory that it shares with others, of which one runs at a time."""

    def __init__(self, function: Callable[..., dict[str, Tensor]], inputs: tuple[Tensor, ...], pool: Any):
        self.inputs = tuple(x.clone(memory_format=torch.preserve_format) for x in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # warm-up: libraries choose their kernels, tables are built
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # a query may use the GPU from its own thread meanwhile
        with torch.cuda.graph(self.graph, pool, capture_error_mode='thread_local'):
            self.outputs = function(*self.inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The outputs, copied: the next replay, of this or of another pass of the pool, overwrites them."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self.graph.replay()
        return {name: output.clone() for name, output in self.outputs.items()}
