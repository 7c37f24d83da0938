"""The voxels of a map as keys, in cubes of SIDE voxels along each edge: its tiles.

The upper bits of a voxel's key are its tile's key, so the voxels of a tile follow one another in the order of
their keys.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SIDE_BITS = 6
SIDE = 1 << SIDE_BITS  # voxels of a tile along each axis
KEY_BITS = 21  # of a voxel's index along one axis: 2^20 voxels to either side of the origin
TILE_BITS = KEY_BITS - SIDE_BITS  # of a tile's
HALF = 1 << KEY_BITS - 1


def voxel_keys(means: np.ndarray, voxel: float) -> tuple[np.ndarray, np.ndarray]:
    """Means (N, 3) to the keys (N,) int64 of their voxels, and which (N,) bool lie in the grid."""
    keys, inside = np.empty(len(means), np.int64), np.empty(len(means), bool)
    _voxel_keys(means, voxel, keys, inside)
    return keys, inside


@njit(nogil=True, cache=True)
def _voxel_keys(means, voxel, keys, inside):
    """Fill `keys` (N,) and `inside` (N,); what is not inside has the key of the origin."""
    for i in range(len(means)):
        tile, within, inside[i] = 0, 0, True
        for c in range(3):
            cell = np.floor(np.float64(means[i, c]) / voxel)
            if not abs(cell + 0.5) < HALF:  # true for NaN
                inside[i], cell = False, 0.0
            index = int(cell) + HALF
            tile = tile << TILE_BITS | index >> SIDE_BITS
            within = within << SIDE_BITS | index & SIDE - 1
        keys[i] = tile << 3 * SIDE_BITS | within


def keys_of(cells: np.ndarray) -> np.ndarray:
    """Cells (N, 3) int64 in the grid to the keys (N,) of their voxels: that of the tile, then x, y and z."""
    tiles, within = cells + HALF >> SIDE_BITS, cells & SIDE - 1
    return packed(tiles, TILE_BITS) << 3 * SIDE_BITS | packed(within, SIDE_BITS)


def voxel_cells(keys: np.ndarray) -> np.ndarray:
    """Keys (N,) of voxels to their cells (N, 3) int64: a voxel begins at its cell times its edge."""
    return tile_cells(tiles_of(keys)) + unpacked(keys, SIDE_BITS)


def tiles_of(keys: np.ndarray) -> np.ndarray:
    """Keys (N,) of voxels to those of their tiles."""
    return keys >> 3 * SIDE_BITS


def tile_cells(tiles: np.ndarray) -> np.ndarray:
    """Keys (T,) of tiles to the first cells (T, 3) in them."""
    return (unpacked(tiles, TILE_BITS) << SIDE_BITS) - HALF


def packed(indices: np.ndarray, bits: int) -> np.ndarray:
    """Indices (N, 3) of so many bits each as one number (N,)."""
    x, y, z = indices.T
    return x << 2 * bits | y << bits | z


def unpacked(numbers: np.ndarray, bits: int) -> np.ndarray:
    """The inverse of `packed`: (N, 3)."""
    one = (1 << bits) - 1
    return np.stack((numbers >> 2 * bits & one, numbers >> bits & one, numbers & one), -1)


def runs(keys: np.ndarray) -> list[tuple[int, slice]]:
    """Of keys (N,) of voxels, where those of a tile follow one another: each tile's key, and its rows."""
    tiles = tiles_of(keys)
    first = np.flatnonzero(np.diff(tiles, prepend=tiles[:1] - 1))
    return [(int(tiles[a]), slice(int(a), int(b))) for a, b in zip(first, [*first[1:], len(keys)])]
