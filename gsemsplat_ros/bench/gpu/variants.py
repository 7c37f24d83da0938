"""The part of a run on a GPU that tries what could make a network faster, one change at a time.

What is faster here, with outputs that stay, is to be built into network/inference.py.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gsemsplat_ros.bench.compare import difference, public_precision
from gsemsplat_ros.bench.gpu.parts import Result, Task, timed
from gsemsplat_ros.bench.stages import Workload, encode_new_keyframe, fitted, prediction_outputs
from gsemsplat_ros.network.inference import Inference
from gsemsplat_ros.network.model import Result as ViewResult

Change = Callable[[Inference], AbstractContextManager[Any]]


class SideBySide:
    """A Runner on a GPU: the work of both views at once, on two streams."""

    def __init__(self) -> None:
        self._side = torch.cuda.Stream()

    def __call__(
        self, first: Callable[[], ViewResult], second: Callable[[], ViewResult]
    ) -> tuple[ViewResult, ViewResult]:
        here = torch.cuda.current_stream()
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            theirs = second()
        ours = first()
        here.wait_stream(self._side)
        return ours, theirs


@contextmanager
def two_streams(fast: Inference) -> Iterator[None]:
    fast.run = SideBySide()
    yield


def chosen_convolutions(fast: Inference) -> AbstractContextManager[None]:
    """cuDNN measures its algorithms for each shape, instead of guessing."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True)


def attention(backend: SDPBackend, fast: Inference) -> AbstractContextManager[None]:
    return sdpa_kernel([backend])


@contextmanager
def compiled(mode: str, fast: Inference) -> Iterator[None]:
    """Blocks and heads through torch.compile, each kind once: rotary positions, norms and activations become
    part of few kernels."""
    model = fast.model
    for blocks in (model.enc_blocks, model.dec_blocks, model.dec_blocks2):
        for block in blocks:
            block.compile(mode=mode)
    for head in (model.downstream_head1, model.downstream_head2):
        head.compile(mode=mode)
    try:
        yield
    finally:
        torch.compiler.reset()


def unchanged(fast: Inference) -> AbstractContextManager[None]:
    return nullcontext()


VARIANTS: dict[str, Change] = {  # the long ones last: time may run out
    'as it is': unchanged,
    'convolutions chosen by measuring': chosen_convolutions,
    'views on two streams': two_streams,
    "cuDNN's attention": partial(attention, SDPBackend.CUDNN_ATTENTION),
    'FlashAttention': partial(attention, SDPBackend.FLASH_ATTENTION),
    'efficient attention': partial(attention, SDPBackend.EFFICIENT_ATTENTION),
    'compiled': partial(compiled, 'default'),
    'compiled, tuned': partial(compiled, 'max-autotune-no-cudagraphs'),
}


def variants_part(task: Task, names: Sequence[str] = tuple(VARIANTS), size: str = 'large') -> Result:
    """Kept and first pairs with each change alone, and how far the outputs are from those without."""
    rows: dict[str, dict[str, Any]] = {}
    with torch.inference_mode(), public_precision():
        work = Workload.of_size(size, task.device)
        images, wanted = fitted(work.views), None
        for name in names:
            fast = Inference(copy.deepcopy(work.model), task.device)
            kept = partial(kept_pair, fast, images)
            try:
                with VARIANTS[name](fast):
                    row = timed(name, kept, task.device)
                    first = timed(name, partial(first_pair, fast, images), task.device)
                    found = prediction_outputs(kept())
            except Exception as error:  # a kernel that this GPU lacks
                rows[name] = {'failed': f'{type(error).__name__}: {str(error).splitlines()[:1]}'}
            else:
                wanted = wanted or found
                apart = [difference(found[key], wanted[key])['mean'] for key in wanted]
                rows[name] = {**row, 'first pair [ms]': first['median [ms]'], 'apart, mean': max(apart)}
            del fast, kept
            gc.collect()
            yield {'network': size, 'kept pairs': rows}


def kept_pair(fast: Inference, images: Sequence[Any]) -> Any:
    return fast.predict(*encode_new_keyframe(fast, images))


def first_pair(fast: Inference, images: Sequence[Any]) -> Any:
    one, other = fast.encode([image.copy() for image in images])
    return fast.predict(one, other)
