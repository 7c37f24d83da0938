"""Rotations: unit quaternions (w, x, y, z) and matrices, as NumPy arrays or torch tensors.

ROS messages hold quaternions as x, y, z, w; their readers and writers reorder them.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar('Array', np.ndarray, Tensor)


def quats_to_rotations(quats: Array) -> Array:
    """Unit quaternions (..., 4), w x y z, to rotation matrices (..., 3, 3)."""
    w, x, y, z = _parts(quats)
    rows = _stack(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y - w * z),
            2 * (x * z + w * y),
            2 * (x * y + w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z - w * x),
            2 * (x * z - w * y),
            2 * (y * z + w * x),
            1 - 2 * (x * x + y * y),
        ]
    )
    return rows.reshape((*quats.shape[:-1], 3, 3))


def rotation_to_quat(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) to unit quaternions (..., 4) w x y z, w >= 0, in float64.

    4 q q^T is linear in the matrix; its column with the largest diagonal entry gives q without cancellation.
    """
    matrix = np.asarray(rotation, dtype=np.float64)
    a, b, c, d, e, f, g, h, i = np.moveaxis(matrix.reshape(*matrix.shape[:-2], 9), -1, 0)
    columns = np.stack(
        [
            np.stack([1 + a + e + i, h - f, c - g, d - b], -1),
            np.stack([h - f, 1 + a - e - i, b + d, c + g], -1),
            np.stack([c - g, b + d, 1 - a + e - i, f + h], -1),
            np.stack([d - b, c + g, f + h, 1 - a - e + i], -1),
        ],
        -2,
    )
    largest = np.argmax(np.diagonal(columns, axis1=-2, axis2=-1), -1)
    quat = np.take_along_axis(columns, largest[..., None, None], -2)[..., 0, :]
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    return np.where(quat[..., :1] < 0, -quat, quat)


def multiply_quats(p: Array, q: Array) -> Array:
    """Hamilton product (..., 4), w x y z: the rotation `p` after the rotation `q`."""
    pw, px, py, pz = _parts(p)
    qw, qx, qy, qz = _parts(q)
    return _stack(
        [
            pw * qw - px * qx - py * qy - pz * qz,
            pw * qx + px * qw + py * qz - pz * qy,
            pw * qy - px * qz + py * qw + pz * qx,
            pw * qz + px * qy - py * qx + pz * qw,
        ]
    )


def _parts(quats: Array) -> tuple[Array, Array, Array, Array]:
    return quats[..., 0], quats[..., 1], quats[..., 2], quats[..., 3]


def _stack(parts: list[Array]) -> Array:
    """Along a new last axis."""
    first = parts[0]
    return torch.stack(parts, -1) if isinstance(first, Tensor) else np.stack(parts, -1)
