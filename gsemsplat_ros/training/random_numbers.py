"""Random numbers that depend on a pair's seed alone: the same in any batch, process and on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GOLDEN, MIX_1, MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # as signed 64 bits


def pair_seed(seed: int, step: int, number: int) -> int:
    """The seed of a pair of a step, a signed number of 64 bits."""
    return int(np.random.SeedSequence((seed, step, number)).generate_state(1, np.uint64).view(np.int64)[0])


def uniforms(seeds: Tensor, stream: int, count: int) -> Tensor:
    """(B, count) float32 in [0, 1) for seeds (B,) int64; a `stream` for each purpose.

    SplitMix64 of a counter (Steele et al. 2014): integers only, so that all devices agree to the last bit.
    """
    counters = torch.arange(1, count + 1, device=seeds.device) + (stream << 32)
    x = seeds[:, None] + counters * GOLDEN  # wraps
    x = (x ^ _right(x, 30)) * MIX_1
    x = (x ^ _right(x, 27)) * MIX_2
    return _right(x ^ _right(x, 31), 40).float() / 2**24


def _right(x: Tensor, bits: int) -> Tensor:
    """A right shift that fills with zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def pick(chances: Tensor, numbers: Tensor) -> Tensor:
    """Indices (V, P) int64, drawn with replacement with `chances` (V, M) >= 0 by uniform `numbers` (V, P).

    Rows without any chance give the last index.
    """
    sums = chances.double().cumsum(1)
    found = torch.searchsorted(sums, numbers.double() * sums[:, -1:], right=True)
    return found.clamp(max=chances.shape[1] - 1)
