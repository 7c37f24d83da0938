"""A map prepared for queries: the mean codes of its cells are decoded, those of Gaussians where they matter.

Ten million Gaussians are some 300,000 cells. So a question is compared with the cells, and with each Gaussian
only in those cells that matter to its answer (ask_map.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.device import download
from gsemsplat_ros.mapping.decoded_codes import (
    Decoded,
    DecodedBranch,
    DecodedCells,
    DecodedStore,
    Decoding,
    contrasts,
)
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_cells import TileCells, cells_of, members, spread
from gsemsplat_ros.mapping.tile import Tile
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import Mixture

KEPT = 1 << 18  # Gaussians whose decoded codes are kept for later questions: 260 MB of the shipped decoders


class Place(NamedTuple):
    """A tile in the order of the map: its cells, and the numbers of its first Gaussian and its first cell."""

    tile: Tile
    cells: TileCells
    row: int
    cell: int

    @property
    def span(self) -> slice:
        """The cells of the tile among those of the map."""
        return slice(self.cell, self.cell + len(self.cells))


class Members(NamedTuple):
    """M Gaussians of some cells, cell by cell: rows (M,) int64 in the map; cells (M,) int64: the cell of
    each; means (M, 3) [m]; opacities (M,); scenes (M,) int32: number of those that showed it."""

    rows: np.ndarray
    cells: np.ndarray
    means: np.ndarray
    opacities: np.ndarray
    scenes: np.ndarray


NOBODY = Members(
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros((0, 3), np.float32),
    np.zeros(0, np.float32),
    np.zeros(0, np.int32),
)


@dataclass(frozen=True, eq=False)
class MapIndex:
    """The codes of a map prepared for queries, as `HiddenCodes` for a picture; threads may share it.

    A picture's codes are sums weighted by alpha, and alpha is near 1 on surfaces. So a Gaussian's code is
    used as it is, not multiplied by its opacity: a surface of such Gaussians would be rendered with this
    code. (Measured on rooms: relevancy follows the rendered one with a correlation of 0.99; multiplied by
    opacity, errors grow by a fifth.) Opacity is the weight where Gaussians are averaged: in merging, cells
    and boxes.

    places: the tiles; coarse: the decoded mean codes of the C cells of all tiles, in order; fine: those of
    Gaussians, as far as they were needed; mixture: of the decoders.
    """

    map: Map
    places: tuple[Place, ...]
    coarse: Decoded
    fine: DecodedCells
    mixture: Mixture | None

    @classmethod
    def prepare(
        cls, map_: Map, decoders: Decoders, canonical: np.ndarray | Tensor, before: MapIndex | None = None
    ) -> MapIndex:
        """Decode the mean codes of the map's cells; those of tiles that are in `before` are taken from there.

        canonical (M, C): unit embeddings of the canonical phrases. Raises ValueError for decoders that read a
        pixel's neighbours, which a Gaussian does not have.
        """
        if any(getattr(layer, 'kernel_size', (1, 1)) != (1, 1) for layer in decoders.modules()):
            raise ValueError(
                'the decoders of this checkpoint look at neighbouring pixels, so a map cannot be asked'
            )

        decoding = Decoding(decoders, canonical)
        known = {} if before is None else {id(place.cells.gaussians): place for place in before.places}
        fresh = [tile for tile in map_.tiles.values() if id(tile.gaussians) not in known]
        made = dict(zip(map(id, fresh), cells_of(fresh)))
        mean_codes = [codes for _, codes in made.values()] or [np.zeros((0, decoding.width), np.float32)]
        codes = torch.from_numpy(np.concatenate(mean_codes))
        new = decoding.write(codes, decoding.room(len(codes)))
        places, parts, row, cell, taken = [], [], 0, 0, 0
        for tile in map_.tiles.values():
            old = known.get(id(tile.gaussians))
            cells = old.cells if old else made[id(tile)][0]
            places.append(Place(tile, cells, row, cell))
            row, cell = row + len(tile), cell + len(cells)
            if before is not None and old is not None:
                parts.append(tuple(branch.rows(old.span) for branch in before.coarse))
            else:
                parts.append(tuple(branch.rows(slice(taken, taken + len(cells))) for branch in new))
                taken += len(cells)
        coarse = new if len(fresh) == len(places) else tuple(map(DecodedBranch.joined, zip(*parts)))
        counts = np.concatenate([np.zeros(0, np.int32), *(place.cells.counts for place in places)])
        fine = DecodedCells(before.fine.store if before else DecodedStore(KEPT, decoding), counts)
        if before is not None:
            for place in places:
                if (old := known.get(id(place.tile.gaussians))) is not None:
                    fine.first[place.span] = before.fine.first[old.span]
        return cls(map_, tuple(places), coarse, fine, decoders.mixture)

    @property
    def counts(self) -> np.ndarray:
        """(C,) Gaussians of each cell."""
        return self.fine.counts

    def contrasts(self, phrase: Tensor) -> Tensor:
        """Unit embedding (1, C) -> contrasts (2, C) of the cells, on the CPU."""
        return torch.from_numpy(download([contrasts(self.coarse, phrase)[:, 0]])[0])

    def members(self, chosen: np.ndarray) -> Members:
        """The Gaussians of the `chosen` (C,) bool cells."""
        parts = [NOBODY]
        for place, rows, cells in self._in(chosen):
            arrays = place.tile.arrays
            parts.append(
                Members(
                    rows + place.row, cells, arrays.means[rows], arrays.opacities[rows], arrays.counts[rows]
                )
            )
        return Members(*map(np.concatenate, zip(*parts)))

    def fine_contrasts(self, phrase: Tensor, chosen: np.ndarray) -> Tensor:
        """Unit embedding (1, C) -> contrasts (2, M) of the `members`, on the CPU."""
        found = self.fine.contrasts(np.flatnonzero(chosen), self._codes, phrase)
        return torch.from_numpy(download([found[:, 0]])[0])

    def of_gaussians(self, values: np.ndarray, nothing: np.generic) -> np.ndarray:
        """Values (C,) of cells -> those of their Gaussians (N,); `nothing` for strays."""
        out = np.full(len(self.map), nothing)
        for place in self.places:
            spread(place.cells.cell, values[place.span], out[place.row : place.row + len(place.tile)])
        return out

    def _in(self, chosen: np.ndarray) -> Iterator[tuple[Place, np.ndarray, np.ndarray]]:
        """Of each tile with `chosen` (C,) bool cells: the rows in the tile of their Gaussians, cell by cell,
        and the cell of each."""
        for place in self.places:
            mine = chosen[place.span]
            if mine.any():
                cells, counts = place.cells.cell, place.cells.counts
                of_rows = np.repeat(np.flatnonzero(mine) + place.cell, counts[mine])
                yield place, members(cells, counts, mine), of_rows

    def _codes(self, cells: np.ndarray) -> Tensor:
        """The codes of the Gaussians of these cells, cell by cell."""
        chosen = np.zeros(len(self.counts), bool)
        chosen[cells] = True
        codes = [place.tile.arrays.codes[rows] for place, rows, _ in self._in(chosen)]
        return torch.from_numpy(np.concatenate(codes))


class IndexCache:
    """The index of the map queried last, for any thread; a new map decodes only what changed since then."""

    def __init__(self, index: Callable[[Map, MapIndex | None], MapIndex]):
        """`index`: makes a map's index, reusing another map's if there is one, as Pipeline.index does."""
        self._index = index
        self._newest: MapIndex | None = None
        self._lock = threading.Lock()  # held while decoding too: a second thread would do the same work twice

    def of(self, map_: Map) -> MapIndex:
        """The index of `map_`."""
        with self._lock:
            if self._newest is None or self._newest.map.tiles is not map_.tiles:
                self._newest = self._index(map_, self._newest)
            return self._newest
