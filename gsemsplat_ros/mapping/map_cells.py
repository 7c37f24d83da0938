"""The cells of a map, cubes of CELL voxels along each edge, by tile: which Gaussians each holds, and means.

A cell ends at the side of its tile, so that the cells of a tile depend on nothing else and last as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.mapping.tile import Tile
from gsemsplat_ros.mapping.voxels import SIDE, SIDE_BITS

CELL = 5  # voxels along an edge: with voxels of 3 cm, the published smoothing box at 2 m
MIN_IN_CELL = 3  # Gaussians: fewer are strays and have no cell
ACROSS = -(-SIDE // CELL)  # cells along the side of a tile; the last is narrower


@dataclass(frozen=True, eq=False)
class TileCells:
    """The C cells of one tile of N Gaussians.

    gaussians: those of the tile. cell (N,) int16: the number of its cell, -1 for a stray. counts (C,) int32:
    Gaussians in each cell.
    """

    gaussians: Gaussians
    cell: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)


def cells_of(tiles: Sequence[Tile]) -> list[tuple[TileCells, np.ndarray]]:
    """The cells of each tile, and the mean codes (C, D) float32 of its cells, weighted by opacity; on as many
    threads as PyTorch has."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(_cells_of, tiles))


def _cells_of(tile: Tile) -> tuple[TileCells, np.ndarray]:
    arrays = tile.arrays
    cell, counts = _numbered(arrays.keys)
    return TileCells(tile.gaussians, cell, counts), _means(cell, counts, arrays.opacities, arrays.codes)


@njit(nogil=True, cache=True)
def _numbered(keys):
    """Keys (N,) of one tile's voxels -> the cell (N,) int16 of each, and the counts (C,) int32 of cells."""
    within = (1 << SIDE_BITS) - 1
    place = np.empty(len(keys), np.int16)
    counts = np.zeros(ACROSS**3, np.int32)
    for n in range(len(keys)):
        x, y, z = keys[n] >> 2 * SIDE_BITS & within, keys[n] >> SIDE_BITS & within, keys[n] & within
        place[n] = (x // CELL * ACROSS + y // CELL) * ACROSS + z // CELL
        counts[place[n]] += 1
    number, count = np.full(ACROSS**3, -1, np.int16), 0
    for c in range(ACROSS**3):
        if counts[c] >= MIN_IN_CELL:
            number[c], counts[count] = count, counts[c]
            count += 1
    for n in range(len(keys)):
        place[n] = number[place[n]]
    return place, counts[:count].copy()


@njit(nogil=True, cache=True, error_model='numpy')
def _means(cell, counts, opacities, codes):
    """Mean codes (C, D), weighted by opacity, of the Gaussians of each cell."""
    channels, weights = codes.shape[1], np.zeros(len(counts), np.float32)
    means = np.zeros((len(counts), channels), np.float32)
    for n in range(len(cell)):
        c, weight = cell[n], opacities[n]
        if c >= 0:
            weights[c] += weight
            for k in range(channels):
                means[c, k] += weight * codes[n, k]
    for c in range(len(counts)):
        means[c] /= weights[c]
    return means


@njit(nogil=True, cache=True)
def spread(cell, values, out):
    """Write the values (C,) of a tile's cells to its Gaussians `out` (N,); strays keep theirs."""
    for n in range(len(cell)):
        if cell[n] >= 0:
            out[n] = values[cell[n]]


@njit(nogil=True, cache=True)
def members(cell, counts, chosen):
    """The Gaussians (M,) int64 of a tile that lie in its `chosen` (C,) bool cells, cell by cell."""
    place, count = np.full(len(counts), -1), 0
    for c in range(len(counts)):
        if chosen[c]:
            place[c] = count
            count += counts[c]
    rows = np.empty(count, np.int64)
    for n in range(len(cell)):
        c = cell[n]
        if c >= 0 and chosen[c]:
            rows[place[c]] = n
            place[c] += 1
    return rows
