"""The choice of the device for the network, the ways to it and back, and what happens when it is full."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)
OLDEST = '2.10'  # of PyTorch: earlier ones run code in files that torch.load promised to read as data
NAMES = ('auto', 'cpu', 'cuda')
# of CUDA's libraries, which raise no torch.OutOfMemoryError
FULL = 'CUDA error: out of memory', 'CUBLAS_STATUS_ALLOC_FAILED', 'CUDNN_STATUS_ALLOC_FAILED'
Result = TypeVar('Result')


class NoGpuMemory(ValueError):
    """A GPU has no memory for what was asked, also without what was held for reuse."""


def choose(name: str) -> torch.device:
    """The device called `name`; 'auto' is CUDA if there is one, else the CPU.

    Warns of a PyTorch older than OLDEST. Raises ValueError for another name, and for 'cuda' where PyTorch has
    none.
    """
    if torch.__version__ < OLDEST:
        log.warning(
            f'PyTorch {torch.__version__} is older than {OLDEST}, which mends '
            'CVE-2025-32434 and CVE-2026-24747: update it. Nothing here calls torch.load, other programs may'
        )
    if name not in NAMES:
        raise ValueError(f"device {name!r}: wanted 'auto', 'cpu' or 'cuda'")
    if name == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' is not available to PyTorch here: use 'cpu' or install the CUDA build"
        )
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    return torch.device(name)


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` on the device, of its type; to a GPU from pinned memory, so that the host does not wait."""
    tensor = torch.from_numpy(array)
    if device.type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def download(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """The values of tensors of one type and device: from a GPU in one copy, for which the host waits; on the
    CPU they share the tensors' memory."""
    tensors = [tensor.detach() for tensor in tensors]
    if tensors[0].device.type != 'cuda':
        return [tensor.cpu().numpy() for tensor in tensors]
    together = torch.cat([tensor.flatten() for tensor in tensors])
    held = torch.empty(together.shape, dtype=together.dtype, pin_memory=True)
    held.copy_(together, non_blocking=True)
    torch.cuda.current_stream(together.device).synchronize()
    ends = np.cumsum([tensor.numel() for tensor in tensors])[:-1]
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(held.numpy(), ends), tensors)]


def within_gpu_memory(
    work: Callable[[], Result], what: str, forget: Callable[[], object] = lambda: None
) -> Result:
    """The result of `work`; where a GPU has no memory for it, of a second try after `forget` has dropped what
    is held for reuse. Raises NoGpuMemory, in one line that says for what, if that fails too."""
    for _ in range(2):
        try:
            return work()
        except Exception as error:
            if not lacks_memory(error):
                raise
        # not in the handler: the frames of the error hold tensors
        forget()
        torch.cuda.empty_cache()
    free, total = (bytes_ / 1e9 for bytes_ in torch.cuda.mem_get_info())
    raise NoGpuMemory(
        f'the GPU has no memory for {what}, {free:.1f} of its {total:.1f} GB are free: '
        "stop other programs on it, or use device 'cpu'"
    )


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, says that a GPU has no memory left."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in FULL):
            return True
        error = error.__cause__ or error.__context__  # a capture that failed ends with another error
    return False
