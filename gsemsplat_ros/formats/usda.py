"""Gaussians to OpenUSD as text: a `ParticleField3DGaussianSplat` of OpenUSD 26.03 (schema UsdVol).

z up, metres. Scales and opacities are linear, quaternions w x y z, colours coefficients of degree 0,
display-referred sRGB. Numbers have seven significant digits. The codes are left out: as text they would take
a kilobyte a Gaussian, and only this project reads them (a GLB keeps them).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.files import write_whole
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.config import SH_C0

HEADER = """#usda 1.0
(
    defaultPrim = "Gaussians"
    doc = "3D Gaussians, written by gsemsplat"
    metersPerUnit = 1
    upAxis = "Z"
)

def ParticleField3DGaussianSplat "Gaussians"
{{
    float3[] extent = [{}]
    uniform token projectionModeHint = "perspective"
    uniform token sortingModeHint = "zDepth"
    uniform int radiance:sphericalHarmonicsDegree = 0
"""
SIGMAS = 3  # standard deviations that the extent holds of each Gaussian
AT_ONCE = 1 << 14  # rows that become text together
COLUMNS: tuple[tuple[str, Callable[[Gaussians], Tensor]], ...] = (
    ('point3f[] positions', lambda part: part.means),
    ('quatf[] orientations', lambda part: part.quats),
    ('float3[] scales', lambda part: part.scales),
    ('float[] opacities', lambda part: part.opacities),
    ('float3[] radiance:sphericalHarmonicsCoefficients', lambda part: (part.colors - 0.5) / SH_C0),
)


def write_usda(path: Path, splats: Splats) -> None:
    """Write Gaussians, which lie in `Axes.Z_UP`. Raises OSError."""
    with write_whole(path) as new, open(new, 'w', encoding='ascii', newline='\n') as file:
        file.write(HEADER.format(text_of(extent(splats))))
        for name, column in COLUMNS:
            file.write(f'    {name} = [')
            separator = ''
            for some in (some for part in splats.parts for some in column(part).split(AT_ONCE)):
                if len(some):
                    file.write(separator + text_of(some.cpu().numpy()))
                    separator = ', '
            file.write(']\n')
        file.write('}\n')


def extent(splats: Splats) -> np.ndarray:
    """The corners (2, 3) of the box around all Gaussians, SIGMAS standard deviations wide; zeros for none."""
    corners = []
    for part in splats.parts:
        if len(part):
            reach = SIGMAS * part.covariances().diagonal(dim1=1, dim2=2).sqrt()
            corners.append(torch.stack([(part.means - reach).amin(0), (part.means + reach).amax(0)]))
    if not corners:
        return np.zeros((2, 3))
    both = torch.stack(corners)
    return torch.stack([both[:, 0].amin(0), both[:, 1].amax(0)]).cpu().numpy()


def text_of(values: np.ndarray) -> str:
    """Values (N,) as a list of numbers, (N, C) as one of tuples."""
    form = '%.7g' if values.ndim == 1 else '(' + ', '.join(['%.7g'] * values.shape[1]) + ')'
    return ', '.join([form] * len(values)) % tuple(values.ravel().tolist())
