"""Gaussians with codes as the tensors of a file, one a property."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians

# half precision keeps 3 digits: enough for all but positions, with scales as logarithms
DTYPES = {
    'means': torch.float32,
    'quats': torch.float16,
    'log_scales': torch.float16,
    'opacities': torch.float16,
    'colors': torch.float16,
    'codes': torch.float16,
}
ANY = -1  # of a side: the decoders fix the width of the codes, and a file names its decoders
SHAPES: dict[str, tuple[int, ...] | None] = {
    'means': (3,),
    'quats': (4,),
    'log_scales': (3,),
    'opacities': (),
    'colors': (3,),
    'codes': (ANY,),
}
SMALLEST, LARGEST = 1e-38, 1e6  # m: of a scale, and of a coordinate; squares stay finite


def column(name: str, gaussians: Gaussians) -> Tensor:
    """The tensor of this name in a file, on the CPU, of Gaussians."""
    if name == 'log_scales':
        values = gaussians.scales.clamp(SMALLEST, LARGEST).log()
    else:
        values = getattr(gaussians, name)
    return values.detach().cpu().to(DTYPES[name])


COLUMNS: dict[str, Callable[[Gaussians], Tensor]] = {name: partial(column, name) for name in DTYPES}


def gaussians_of(columns: Mapping[str, Tensor], frame: str) -> Gaussians:
    """The Gaussians of checked tensors, on the CPU."""
    values = {name: columns[name].float() for name in DTYPES}
    return Gaussians(
        values['means'],
        torch.nn.functional.normalize(values['quats'], dim=1),
        values['log_scales'].exp(),
        values['opacities'],
        values['colors'],
        values['codes'],
        frame,
    )


def out_of_range(columns: Mapping[str, Tensor]) -> str:
    """What is wrong with the finite numbers of some Gaussians, in words; '' for nothing."""
    small, large = math.log(SMALLEST), math.log(LARGEST)
    ranges = {
        'means': (-LARGEST, LARGEST),
        'log_scales': (small * 1.001, large * 1.001),  # the margin is that of half precision
        'opacities': (0.0, 1.0),
    }
    for name, (low, high) in ranges.items():
        values = columns[name]
        if len(values) and not (values.min() >= low and values.max() <= high):
            return f'{name} are out of their range, {low:.4g} to {high:.4g}'
    if len(columns['quats']) and (columns['quats'].float().norm(dim=1) - 1).abs().max() > 0.01:
        return 'quats are not of unit length'
    return ''
