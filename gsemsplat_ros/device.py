"""The choice of the device for the network, and the ways to it and back."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)
OLDEST = '2.10'  # of PyTorch: earlier ones run code in files that torch.load promised to read as data
NAMES = ('auto', 'cpu', 'cuda')


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
