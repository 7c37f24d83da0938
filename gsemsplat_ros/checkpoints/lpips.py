"""LPIPS (Zhang et al. 2018) on VGG-16: a map of the perceptual difference of two images.

Its weights are not ours to ship. The public Splatt3R and GSemSplat files hold them (docs/published.md 20,
`lpips_criterion.*`), so the user's file suffices.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.checkpoints.state_dict import entries, split
from gsemsplat_ros.checkpoints.weight_files import read_weight_file

PREFIX = 'lpips_criterion.'
SLICES = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
EPS = 1e-10
SMALLEST = 16  # px: four halvings


class ScalingLayer(nn.Module):
    """Shifts and scales the colours of a picture to the network's range."""

    shift: Tensor
    scale: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer('shift', torch.ones(1, 3, 1, 1))
        self.register_buffer('scale', torch.ones(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale


class LPIPS(nn.Module):
    """Frozen. Names of the parameters are those of lpips 0.1.4, duplicates left out."""

    def __init__(self):
        super().__init__()
        self.scaling_layer = ScalingLayer()
        self.net = nn.Module()
        for number, layers in enumerate(SLICES):
            convolutions = {str(i): nn.Conv2d(a, b, 3, padding=1) for i, a, b in layers}
            self.net.add_module(f'slice{number + 1}', nn.ModuleDict(convolutions))
            last = nn.ModuleDict({'model': nn.ModuleDict({'1': nn.Conv2d(layers[-1][2], 1, 1, bias=False)})})
            self.add_module(f'lin{number}', last)
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path) -> LPIPS:
        """From a public Splatt3R or GSemSplat file; no code in it is run. Raises ValueError without LPIPS."""
        named = (
            (split(entry.path, {PREFIX.rstrip('.')}), entry.value)
            for entry in entries(read_weight_file(path).tree)
            if entry.is_tensor
        )
        tensors = {parts[1].removeprefix(PREFIX): value for parts, value in named if parts}
        module = cls()
        expected = module.state_dict()
        missing = [name for name in expected if name not in tensors]
        if missing:
            raise ValueError(
                f'{path} holds no whole LPIPS ({PREFIX}{missing[0]} is missing): wanted a public Splatt3R or '
                'GSemSplat checkpoint'
            )
        try:
            module.load_state_dict({name: tensors[name].read() for name in expected})
        except RuntimeError as error:
            raise ValueError(f'{path}: {str(error).splitlines()[-1].strip()}') from None
        return module.eval()

    def levels(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) in [0, 1] to the features of each slice, unit vectors."""
        x = self.scaling_layer(2 * x - 1)
        out = []
        for number in range(len(SLICES)):
            x = F.max_pool2d(x, 2) if number else x
            for layer in getattr(self.net, f'slice{number + 1}').values():
                x = F.relu(layer(x))
            out.append(x / (x.norm(dim=1, keepdim=True) + EPS))
        return out

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two batches (B, 3, H, W) in [0, 1], sides >= 16 px, to the difference of every pixel (B, H, W)."""
        assert a.shape == b.shape and min(a.shape[-2:]) >= SMALLEST, (a.shape, b.shape)
        total = a.new_zeros(())
        for number, (x, y) in enumerate(zip(self.levels(a), self.levels(b))):
            level = getattr(self, f'lin{number}')['model']['1']((x - y).square())
            total = total + F.interpolate(level, a.shape[-2:], mode='bilinear', align_corners=False)
        return total[:, 0]
