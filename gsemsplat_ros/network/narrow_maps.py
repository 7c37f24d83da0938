"""Convolutions in bfloat16 of maps that are few pixels wide, which a CPU may compute wrongly.

oneDNN's kernels for bfloat16 are wrong at some small sizes (pytorch/pytorch issue 163347: 2 x 2 ones give 1
instead of 4), silently and on some CPUs only. Narrow images, and coarse maps of all images, come that small.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

NARROW = 16  # pixels of the shorter side, in or out: of such small maps, trying and float32 cost little
AGREE = 1 / 32  # of the largest value: bfloat16 rounds to 1/256 of each


def compute_right(model: nn.Module) -> None:
    """Make the bfloat16 convolutions of `model`, on a CPU, compute in float32 the narrow maps that they would
    get wrong.

    Each size is tried once by each layer, on noise: a constant image could hide the fault.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            _watch(layer)


def _watch(layer: nn.Module) -> None:
    twins: dict[torch.Size, nn.Module | None] = {}  # of each size, None where the layer itself is right

    def correct(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        [x] = inputs
        if x.dtype != torch.bfloat16 or min(*x.shape[-2:], *output.shape[-2:]) > NARROW:
            return None
        if x.shape not in twins:
            twin = copy.deepcopy(layer).float()
            twins[x.shape] = None if agree(layer, twin, x) else twin
        right = twins[x.shape]
        return None if right is None else right.forward(x.float()).to(output.dtype)

    layer.register_forward_hook(correct)


def agree(layer: nn.Module, twin: nn.Module, x: Tensor) -> bool:
    """Whether `layer`, in bfloat16, and its `twin` in float32 agree on noise of the shape of `x`."""
    noise = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(0))
    got, wanted = layer.forward(noise).float(), twin.forward(noise.float())
    return bool((got - wanted).abs().max() <= AGREE * wanted.abs().max())
