"""The choice of the device for the network."""

from __future__ import annotations

import logging

import torch

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
