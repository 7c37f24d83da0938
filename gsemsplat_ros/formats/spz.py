"""Gaussians to SPZ (Niantic, MIT; github.com/nianticlabs/spz, README.md of v4): 20 bytes each, compressed.

Right-handed, x right, y up, z backward. Positions are 24-bit fixed-point numbers, scales logarithms in steps
of 1/16 (6 %), opacities and colours bytes, rotations the three smaller components of a quaternion in ten bits
each. Codes are left out: a byte has no room to say what reads them.

Version 3, a stream of gzip, is what nearly every reader takes; those of version 4 take it too. Readers of
version 3 alone stop at MOST Gaussians, so that nobody loses by version 4, with streams of Zstandard that are
read in parallel, where a file has more. Hence there is nothing to choose.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.files import write_whole
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.config import SH_C0

MAGIC = 0x5053474E  # 'NGSP'
MOST = 10_000_000  # Gaussians that a reader of version 3 took at most, until version 4
FRACTION = 12  # bits of a position after the point, where 23 bits hold what is before: a quarter of a mm
COLOR = 0.15  # of a coefficient of degree 0: a byte holds -3.3 to 3.3 of it
SMALLEST_THREE = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # x y z w, by the largest


def write_spz(path: Path, splats: Splats, version: int | None = None) -> None:
    """Write Gaussians, x right, y up, z backward. version: 3 or 4, None: by their number.

    Raises ValueError for none; ModuleNotFoundError for version 4 without Zstandard, which Python has from
    3.14 and backports.zstd before; OSError.
    """
    count = len(splats)
    if not count:
        raise ValueError(f'cannot write {path}: there are no Gaussians, and an SPZ holds one at least')
    version = version or (3 if count <= MOST else 4)
    fraction = fraction_of(max(float(part.means.abs().max()) for part in splats.parts if len(part)))
    columns = [b''.join(column) for column in zip(*(packed(part, fraction) for part in splats.parts))]
    numbers = MAGIC, version, count, 0, fraction, 0  # colours alone, no flags
    if version == 3:
        blocks = [gzip.compress(struct.pack('<IIIBBBB', *numbers, 0) + b''.join(columns), 6, mtime=0)]
    else:
        streams = [compressed(column) for column in columns]
        sizes = [(len(stream), len(column)) for stream, column in zip(streams, columns)]
        header = struct.pack('<IIIBBBBI12x', *numbers, len(streams), 32)
        blocks = [header, *(struct.pack('<QQ', *pair) for pair in sizes), *streams]
    with write_whole(path) as new, open(new, 'wb') as file:
        file.writelines(blocks)


def compressed(data: bytes) -> bytes:
    """One frame of Zstandard (RFC 8878)."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd.compress(data, level=6)


def fraction_of(largest: float) -> int:
    """The bits after the point, so that coordinates of this size fit."""
    fraction = FRACTION
    while fraction and largest * 2**fraction >= 2**23 - 1:
        fraction -= 1
    return fraction


def packed(gaussians: Gaussians, fraction: int) -> tuple[bytes, ...]:
    """Positions, opacities, colours, scales and rotations, as the file has them."""
    means, opacities, colors, scales = (
        tensor.detach().cpu().double().numpy()
        for tensor in (gaussians.means, gaussians.opacities, gaussians.colors, gaussians.scales)
    )
    fixed = np.rint(means * 2**fraction).clip(-(2**23), 2**23 - 1).astype('<i4')
    places = np.ascontiguousarray(fixed).view(np.uint8).reshape(*fixed.shape, 4)[..., :3]
    wide = (colors - 0.5) / SH_C0 * COLOR + 0.5
    return (
        places.tobytes(),
        in_byte((opacities * 255).clip(1, 254)),  # of 0 and 255 readers make infinite logits
        in_byte(wide * 255),
        in_byte((np.log(scales.clip(1e-30)) + 10) * 16),
        turns(gaussians.quats).tobytes(),
    )


def in_byte(values: np.ndarray) -> bytes:
    """The nearest of 0 to 255."""
    return np.rint(values).clip(0, 255).astype(np.uint8).tobytes()


def turns(quats: torch.Tensor) -> np.ndarray:
    """Unit quaternions (N, 4) w x y z -> (N,) uint32: two bits say which of x y z w is the largest, then come
    a sign and nine bits of size of each other, in that order."""
    xyzw = quats.detach().cpu().double().roll(-1, dims=-1).numpy()
    largest = np.abs(xyzw).argmax(1)
    rows = np.arange(len(xyzw))
    upright = xyzw * np.where(xyzw[rows, largest] < 0, -1.0, 1.0)[:, None]
    others = upright[rows[:, None], SMALLEST_THREE[largest]]
    sizes = np.rint(np.abs(others) * (511 * np.sqrt(2))).clip(0, 511).astype(np.uint32)
    fields = (others < 0).astype(np.uint32) << 9 | sizes
    return (largest.astype(np.uint32) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]).astype(
        '<u4'
    )
