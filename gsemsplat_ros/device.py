"""The choice of the device for the network."""

from __future__ import annotations

import torch

NAMES = ('auto', 'cpu', 'cuda')


def choose(name: str) -> torch.device:
    """The device called `name`; 'auto' is CUDA if there is one, else the CPU.

    Raises ValueError for another name, and for 'cuda' where PyTorch has none.
    """
    if name not in NAMES:
        raise ValueError(f"device {name!r}: wanted 'auto', 'cpu' or 'cuda'")
    if name == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' is not available to PyTorch here: use 'cpu' or install the CUDA build"
        )
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    return torch.device(name)
