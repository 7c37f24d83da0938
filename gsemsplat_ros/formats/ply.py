"""Gaussians as PLY files that standard splat viewers show correctly.

The 17 float32 properties of 3DGS (docs/published.md 23), to which viewers apply their activations: opacity as
logit, scales as logarithms, rotation w x y z, colour as the degree-0 coefficient. Codes follow as code_0 ...;
viewers skip them.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.files import write_whole
from gsemsplat_ros.formats.ply_vertices import read_vertices
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.config import SH_C0

MEANS, NORMALS = ['x', 'y', 'z'], ['nx', 'ny', 'nz']
COLORS = [f'f_dc_{i}' for i in range(3)]
SCALES = [f'scale_{i}' for i in range(3)]
QUATS = [f'rot_{i}' for i in range(4)]
LARGEST = 1e15  # of a position or scale: its square is a float32 too
log = logging.getLogger(__name__)


def write_ply(path: str | Path, *parts: Gaussians) -> None:
    """Write Gaussians in their frame, one part after the other, little endian. A reader sees the old file or
    the whole new one.

    Opacities 0 and 1 have no finite logit and are stored one float32 step inside.
    """
    codes = [f'code_{i}' for i in range(parts[0].codes.shape[1])]
    names = [*MEANS, *NORMALS, *COLORS, 'opacity', *SCALES, *QUATS, *codes]
    header = '\n'.join(
        [
            'ply',
            'format binary_little_endian 1.0',
            f'element vertex {sum(map(len, parts))}',
            *(f'property float {name}' for name in names),
            'end_header',
            '',
        ]
    )
    with write_whole(path) as new, open(new, 'wb') as file:
        file.write(header.encode('ascii'))
        for part in parts:
            _vertices(part, len(names)).tofile(file)


def _vertices(gaussians: Gaussians, width: int) -> np.ndarray:
    """The vertices (N, width) of Gaussians: all float32, so a row is a record."""
    limits = np.finfo(np.float32)
    opacities = _numpy(gaussians.opacities).astype(np.float64).clip(limits.tiny, 1 - limits.epsneg)
    vertices = np.zeros((len(gaussians), width), '<f4')
    vertices[:, 0:3] = _numpy(gaussians.means)
    vertices[:, 6:9] = (_numpy(gaussians.colors) - 0.5) / SH_C0
    vertices[:, 9] = np.log(opacities) - np.log1p(-opacities)
    vertices[:, 10:13] = np.log(_numpy(gaussians.scales).clip(limits.tiny))
    vertices[:, 13:17] = _numpy(gaussians.quats)
    vertices[:, 17:] = _numpy(gaussians.codes)
    return vertices


def read_ply(path: str | Path, frame: str) -> Gaussians:
    """Gaussians of a 3DGS PLY file, ours or another's, in `frame`, on the CPU.

    Higher SH degrees and unknown properties are left out; quaternions are normalised. Gaussians with a
    number that is not finite, or beyond LARGEST, are left out, which the log says.
    Raises ValueError for a missing, foreign or truncated file.
    """
    path = Path(path)
    vertices = read_vertices(path)
    names = vertices.dtype.names or ()
    missing = [name for name in [*MEANS, *COLORS, 'opacity', *SCALES, *QUATS] if name not in names]
    if missing:
        raise ValueError(
            f'{path} has vertices without {", ".join(missing)}: wanted the PLY of 3D Gaussian splatting, not '
            'a mesh, a point cloud or a compressed file'
        )

    def columns(names: list[str]) -> np.ndarray:
        return np.stack([vertices[name] for name in names], axis=-1).astype(np.float64)

    codes = [name for name in names if re.fullmatch(r'code_\d{1,6}', name)]
    codes.sort(key=lambda name: int(name[5:]))
    quats = columns(QUATS)
    with np.errstate(all='ignore'):  # what comes out not finite is left out
        arrays = {
            'means': columns(MEANS),
            'quats': quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12),
            'scales': np.exp(columns(SCALES)),
            'opacities': 1 / (1 + np.exp(-columns(['opacity'])[:, 0])),
            'colors': 0.5 + SH_C0 * columns(COLORS),
            'codes': columns(codes) if codes else np.zeros((len(vertices), 0)),
        }
        sound = np.ones(len(vertices), bool)
        for array in arrays.values():
            sound &= (np.abs(array) < LARGEST).all(tuple(range(1, array.ndim)))  # NaN fails
    if not sound.all():
        log.warning(
            f'{path}: {(~sound).sum():,} of {len(sound):,} Gaussians are left out: their numbers are not '
            'finite'
        )
    tensors = {name: torch.from_numpy(array[sound].astype(np.float32)) for name, array in arrays.items()}
    return Gaussians(**tensors, frame=frame)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
