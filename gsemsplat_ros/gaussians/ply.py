"""Gaussians as PLY files that standard splat viewers show correctly.

The 17 float32 properties of 3DGS (docs/published.md 23), to which viewers apply their activations: opacity as
logit, scales as logarithms, rotation w x y z, colour as the degree-0 coefficient. Codes follow as code_0 ...;
viewers skip them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.files import write_whole
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.config import SH_C0

MEANS, NORMALS = ['x', 'y', 'z'], ['nx', 'ny', 'nz']
COLORS = [f'f_dc_{i}' for i in range(3)]
SCALES = [f'scale_{i}' for i in range(3)]
QUATS = [f'rot_{i}' for i in range(4)]
NUMBERS = {
    'char': 'i1',
    'uchar': 'u1',
    'short': '<i2',
    'ushort': '<u2',
    'int': '<i4',
    'uint': '<u4',
    'int8': 'i1',
    'uint8': 'u1',
    'int16': '<i2',
    'uint16': '<u2',
    'int32': '<i4',
    'uint32': '<u4',
    'float': '<f4',
    'float32': '<f4',
    'double': '<f8',
    'float64': '<f8',
}
MAX_HEADER = 1 << 16


def write_ply(path: str | Path, gaussians: Gaussians) -> None:
    """Write `gaussians` in their frame, little endian. A reader sees the old file or the whole new one.

    Opacities 0 and 1 have no finite logit and are stored one float32 step inside.
    """
    codes = [f'code_{i}' for i in range(gaussians.codes.shape[1])]
    names = [*MEANS, *NORMALS, *COLORS, 'opacity', *SCALES, *QUATS, *codes]
    limits = np.finfo(np.float32)
    opacities = _numpy(gaussians.opacities).astype(np.float64).clip(limits.tiny, 1 - limits.epsneg)
    vertices = np.zeros((len(gaussians), len(names)), '<f4')  # all float32: a row is a record
    vertices[:, 0:3] = _numpy(gaussians.means)
    vertices[:, 6:9] = (_numpy(gaussians.colors) - 0.5) / SH_C0
    vertices[:, 9] = np.log(opacities) - np.log1p(-opacities)
    vertices[:, 10:13] = np.log(_numpy(gaussians.scales).clip(limits.tiny))
    vertices[:, 13:17] = _numpy(gaussians.quats)
    vertices[:, 17:] = _numpy(gaussians.codes)
    header = '\n'.join(
        [
            'ply',
            'format binary_little_endian 1.0',
            f'element vertex {len(gaussians)}',
            *(f'property float {name}' for name in names),
            'end_header',
            '',
        ]
    )
    with write_whole(path) as part, open(part, 'wb') as file:
        file.write(header.encode('ascii'))
        vertices.tofile(file)


def read_ply(path: str | Path, frame: str) -> Gaussians:
    """Gaussians of a 3DGS PLY file (ours or another's, little endian) in `frame`, on the CPU.

    Higher SH degrees and unknown properties are left out; quaternions are normalised.
    Raises ValueError for a missing, foreign or truncated file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no PLY file at {path}')
    with open(path, 'rb') as file:
        head = file.read(MAX_HEADER)
        count, record, offset = _parse_header(path, head)
        size = os.fstat(file.fileno()).st_size
        wanted = offset + count * record.itemsize
        if size != wanted:
            raise ValueError(
                f'{path} has {size} bytes, its header announces {wanted}: '
                'the file is damaged; write or download it again'
            )
        file.seek(offset)
        vertices = np.fromfile(file, dtype=record, count=count)

    def columns(names: list[str]) -> np.ndarray:
        return np.stack([vertices[name] for name in names], axis=-1).astype(np.float64)

    codes = [name for name in record.names or () if re.fullmatch(r'code_\d+', name)]
    codes.sort(key=lambda name: int(name[5:]))
    quats = columns(QUATS)
    tensors = {
        'means': columns(MEANS),
        'quats': quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12),
        'scales': np.exp(columns(SCALES)),
        'opacities': 1 / (1 + np.exp(-columns(['opacity'])[:, 0])),
        'colors': 0.5 + SH_C0 * columns(COLORS),
        'codes': columns(codes) if codes else np.zeros((count, 0)),
    }
    tensors = {name: torch.from_numpy(array.astype(np.float32)) for name, array in tensors.items()}
    return Gaussians(**tensors, frame=frame)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _parse_header(path: Path, head: bytes) -> tuple[int, np.dtype, int]:
    """(number of vertices, NumPy type of one, offset of the first [bytes])."""
    wanted = 'wanted the little-endian binary PLY of 3D Gaussian splatting'
    match = re.match(rb'ply\r?\n(.*?)end_header\r?\n', head, flags=re.DOTALL)
    if not match:
        raise ValueError(f'{path} has no PLY header: {wanted}')
    lines = [line.split() for line in match[1].decode('ascii', 'replace').splitlines()]
    lines = [line for line in lines if line and line[0] not in ('comment', 'obj_info')]
    if lines[:1] != [['format', 'binary_little_endian', '1.0']]:
        raise ValueError(f'{path} is PLY in {" ".join(lines[0]) if lines else "no format"}: {wanted}')
    element = lines[1] if len(lines) > 1 else []
    if element[:2] != ['element', 'vertex'] or len(element) != 3 or not element[2].isdigit():
        raise ValueError(f'{path} does not start with vertices: {wanted}')
    properties = lines[2:]
    if any(len(line) != 3 or line[0] != 'property' or line[1] not in NUMBERS for line in properties):
        raise ValueError(f'{path} holds more than one list of plain vertices: {wanted}')
    names = [line[2] for line in properties]
    missing = [name for name in [*MEANS, *COLORS, 'opacity', *SCALES, *QUATS] if name not in names]
    if missing or len(set(names)) != len(names):
        raise ValueError(f'{path} lacks or repeats properties ({", ".join(missing) or "repeated"}): {wanted}')
    return int(element[2]), np.dtype([(line[2], NUMBERS[line[1]]) for line in properties]), match.end()
