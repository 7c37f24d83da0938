"""A map prepared for queries: decoded codes, and the cells over which relevancy is smoothed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.device import download
from gsemsplat_ros.scene.map import Map, unchanged_rows
from gsemsplat_ros.scene.voxels import voxel_keys
from gsemsplat_ros.semantics.decoder import Decoders, HiddenBranch
from gsemsplat_ros.semantics.relevancy import Mixture, relevancy

# edge of the cells over which relevancy is smoothed: with voxels of 3 cm, the published box at 2 m
SMOOTHING_VOXELS = 5
MIN_IN_CELL = 3  # Gaussians in a cell of the map: fewer are strays
CHUNK = 1 << 15  # Gaussians decoded together: 16 MB, which the process keeps (keep_memory)


@dataclass(frozen=True, eq=False)
class BranchIndex:
    """One branch of a MapIndex, as HiddenBranch is of HiddenCodes, on the device of the decoders.

    hidden (N, D) float16, scale (N,), weight (C, D), bias (C,) and part: see HiddenBranch; best_negative
    (N,): the largest similarity with a canonical phrase.
    """

    hidden: Tensor
    scale: Tensor
    best_negative: Tensor
    weight: Tensor
    bias: Tensor
    part: slice

    @classmethod
    def unwritten(cls, count: int, branch: HiddenBranch) -> BranchIndex:
        """Room for `count` Gaussians, with the last layer of `branch`."""
        return cls(
            branch.hidden.new_empty(count, branch.hidden.shape[1], dtype=torch.float16),
            branch.scale.new_empty(count),
            branch.scale.new_empty(count),
            branch.weight,
            branch.bias,
            branch.part,
        )

    def updated(self, row_before: Tensor, changed: Tensor, fresh: BranchIndex) -> BranchIndex:
        """The index of N Gaussians: rows row_before (N,) of this one, `changed` (M,) ones from `fresh`."""

        def joined(before: Tensor, values: Tensor) -> Tensor:
            return before.index_select(0, row_before).index_copy_(0, changed, values)

        return BranchIndex(
            joined(self.hidden, fresh.hidden),
            joined(self.scale, fresh.scale),
            joined(self.best_negative, fresh.best_negative),
            fresh.weight,
            fresh.bias,
            fresh.part,
        )

    def similarities(self, phrases: Tensor) -> Tensor:
        """Unit embeddings (K, C) -> cosines (K, N)."""
        parts = [
            HiddenBranch(hidden.float(), scale, self.weight, self.bias, self.part).similarities(phrases)
            for hidden, scale in zip(self.hidden.split(CHUNK), self.scale.split(CHUNK))
        ]
        return torch.cat(parts, 1)


@dataclass(frozen=True, eq=False)
class MapIndex:
    """The codes of a map prepared for queries, as `HiddenCodes` for a picture; read only, so thread-safe.

    A picture's codes are sums weighted by alpha, and alpha is near 1 on surfaces. So a Gaussian's code is
    used as it is, not multiplied by its opacity: a surface of such Gaussians would be rendered with this
    code. (Measured on rooms: relevancy follows the rendered one with a correlation of 0.99; multiplied by
    opacity, errors grow by a fifth.) Opacity is the weight where Gaussians are averaged: in merging,
    smoothing and boxes.

    branches: region-specific, context-aware; cells (N,): number of smoothing cell; mixture: of the decoders.
    """

    map: Map
    branches: tuple[BranchIndex, ...]
    cells: np.ndarray
    mixture: Mixture | None

    @classmethod
    @torch.inference_mode()
    def prepare(
        cls, map_: Map, decoders: Decoders, canonical: np.ndarray | Tensor, before: MapIndex | None = None
    ) -> MapIndex:
        """Decode the map's codes; those that did not change since `before` are taken from there.

        canonical (M, C): unit embeddings of the canonical phrases. Raises ValueError for decoders that read a
        pixel's neighbours, which a Gaussian does not have.
        """
        if any(getattr(layer, 'kernel_size', (1, 1)) != (1, 1) for layer in decoders.modules()):
            raise ValueError(
                'the decoders of this checkpoint look at neighbouring pixels, so a map cannot be asked'
            )
        row_before = np.full(len(map_), -1) if before is None else unchanged_rows(map_, before.map)
        changed = torch.from_numpy(np.flatnonzero(row_before < 0))
        if before is None or len(changed) == len(map_):
            codes = map_.gaussians.codes
            branches = decoded(
                codes if len(map_) else codes.new_zeros(0, decoders.code_dim), decoders, canonical
            )
        else:
            fresh = decoded(map_.gaussians.codes.index_select(0, changed), decoders, canonical)
            device = fresh[0].hidden.device
            kept, changed = torch.from_numpy(row_before.clip(min=0)).to(device), changed.to(device)
            branches = tuple(old.updated(kept, changed, new) for old, new in zip(before.branches, fresh))
        smoothing_keys, _ = voxel_keys(map_.gaussians.means.numpy(), SMOOTHING_VOXELS * map_.voxel)
        return cls(map_, branches, np.unique(smoothing_keys, return_inverse=True)[1], decoders.mixture)

    @torch.inference_mode()
    def relevancy(self, phrases: np.ndarray | Tensor) -> Tensor:
        """Embeddings (K, C) -> smoothed relevancy (2, K, N) in (0, 1), on the CPU; mixed: (1, K, N)."""
        like = self.branches[0].scale
        phrases = torch.as_tensor(phrases, dtype=like.dtype, device=like.device)
        contrasts = torch.stack(
            [branch.similarities(phrases) - branch.best_negative for branch in self.branches]
        )
        (contrasts,) = map(
            torch.from_numpy, download([contrasts])
        )  # the cells are on the host, as the map is
        return relevancy(contrasts, self.mixture, self.smooth, torch.from_numpy(self.support >= MIN_IN_CELL))

    def smooth(self, values: Tensor) -> Tensor:
        """Half the values (..., N) plus half their mean, weighted by opacity, over the Gaussian's cell."""
        cells, weights = self.cells, self.map.gaussians.opacities.numpy()
        total = np.bincount(cells, weights)
        rows = values.flatten(0, -2).numpy()
        means = np.stack([(np.bincount(cells, weights * row) / total)[cells] for row in rows])
        return ((values + torch.from_numpy(means).reshape(values.shape)) / 2).float()

    @cached_property
    def support(self) -> np.ndarray:
        """(N,) the number of Gaussians in the cell of each."""
        return np.bincount(self.cells)[self.cells]


def decoded(codes: Tensor, decoders: Decoders, canonical: np.ndarray | Tensor) -> tuple[BranchIndex, ...]:
    """The branches of the codes (N, code_dim) of Gaussians, decoded a chunk at a time."""
    device = next(decoders.parameters()).device
    branches: tuple[BranchIndex, ...] = ()
    for start in range(0, max(len(codes), 1), CHUNK):
        rows = slice(start, start + CHUNK)
        part = decoders.prepare(codes[rows, None].to(device), canonical)
        hidden = [branch for branch in part.branches if isinstance(branch, HiddenBranch)]  # both: no Counts
        branches = branches or tuple(BranchIndex.unwritten(len(codes), branch) for branch in hidden)
        for index, branch, best_negative in zip(branches, hidden, part.best_negative, strict=True):
            index.hidden[rows], index.scale[rows] = branch.hidden, branch.scale
            index.best_negative[rows] = best_negative[:, 0]
    return branches


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
