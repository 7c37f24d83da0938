"""Floating-point operations of the two paths of the bench, counted on tensors without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat

T = TypeVar('T')


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one stage on each path; 0 if not counted."""

    plain: float = 0.0
    fast: float = 0.0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.plain + other.plain, self.fast + other.fast)


NOT_COUNTED = Flops()


def network_flops(config: NetworkConfig, height: int, width: int) -> dict[str, Flops]:
    """Operations of the stages encode, decode and heads for a pair of that size [px]: the plain path encodes
    both images and runs all heads, the fast one encodes only the newer image and skips the descriptors."""
    with torch.device('meta'):
        model = GSemSplat(config).eval()
    images = torch.zeros(2, 3, height, width, device='meta')
    both, encodings = _count(lambda: model.encode(images).split())
    one, _ = _count(lambda: model.encode(images[:1]))
    decode, tokens = _count(lambda: model.decode(*encodings))
    heads = {True: 0.0, False: 0.0}  # with descriptors, if the network has any, and without
    for head, encoding, own in zip((model.downstream_head1, model.downstream_head2), encodings, tokens):
        for descriptors in heads:
            wanted = descriptors and config.descriptors
            heads[descriptors] += _count(partial(model.predict, head, encoding, own, wanted))[0]
    return {
        'encode': Flops(both, one),
        'decode': Flops(decode, decode),
        'heads': Flops(heads[True], heads[False]),
    }


def _count(work: Callable[[], T]) -> tuple[float, T]:
    """Number of operations of `work`, and its result."""
    with FlopCounterMode(display=False) as counter:
        result = work()
    return float(counter.get_total_flops()), result
