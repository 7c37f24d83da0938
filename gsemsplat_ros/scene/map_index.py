"""A map prepared for queries: decoded codes, and the cells over which relevancy is smoothed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.scene.map import Map, unchanged_rows, voxel_keys
from gsemsplat_ros.semantics.decoder import Decoders, HiddenBranch
from gsemsplat_ros.semantics.relevancy import Mixture, relevancy

# edge of the cells over which relevancy is smoothed: with 3 cm, the published box 2 m away
SMOOTHING_VOXELS = 5
CHUNK = 1 << 15  # Gaussians whose codes are decoded together: 16 MB, which the process keeps (keep_memory)


@dataclass(frozen=True, eq=False)
class MapIndex:
    """The codes of a map made ready for words, as `HiddenCodes` is for a picture; read only, so threads may
    share it.

    A picture's codes are sums weighted by alpha, and alpha is near 1 where there is something to see. So a
    Gaussian's code is read as it is, not multiplied by its opacity: it is what a picture would show of a
    surface of such Gaussians. (Measured on rooms: relevancy follows the rendered one with a correlation of
    0.99; multiplied by opacity, errors grow by a fifth.) Opacity weighs in where Gaussians are averaged: in
    merging, smoothing and boxes.

    hidden (2, N, D) float16 and scales (2, N): of the branches, see HiddenBranch; best_negative (2, N): the
    largest similarity with a canonical phrase; last: weight and bias of each branch's last layer; cells
    (N,): number of the smoothing cell; all on the device of the decoders but the cells, which stay on the
    CPU as the map does.
    """

    map: Map
    hidden: tuple[Tensor, Tensor]
    scales: Tensor
    best_negative: Tensor
    last: tuple[tuple[Tensor, Tensor], ...]
    cells: Tensor
    mixture: Mixture | None

    @classmethod
    @torch.inference_mode()
    def prepare(
        cls, map_: Map, decoders: Decoders, canonical: np.ndarray, before: MapIndex | None = None
    ) -> MapIndex:
        """Decode the map's codes; those that did not change since `before` are taken from there.

        canonical (M, C): unit embeddings of the canonical phrases. Raises ValueError for decoders that look
        at a pixel's neighbours: a Gaussian has none.
        """
        if any(getattr(layer, 'kernel_size', (1, 1)) != (1, 1) for layer in decoders.modules()):
            raise ValueError(
                'the decoders of this checkpoint look at neighbouring pixels, so a map cannot be asked'
            )
        device = next(decoders.parameters()).device
        source = np.full(len(map_), -1)
        if before is not None:
            source = unchanged_rows(map_, before.map)
        made, old = (
            torch.from_numpy(rows).to(device) for rows in (np.flatnonzero(source < 0), source.clip(min=0))
        )
        codes = (
            map_.gaussians.codes.index_select(0, made.cpu())
            if len(made) < len(map_)
            else map_.gaussians.codes
        )
        fresh: list[
            Tensor
        ] = []  # hidden of both branches, scales and best_negative of both; filled chunk by chunk
        for start in range(0, max(len(codes), 1), CHUNK):
            part = decoders.prepare(codes[start : start + CHUNK, None].to(device), canonical)
            values = [value for branch in part.branches for value in (branch.hidden.half(), branch.scale)] + [
                *part.best_negative[:, :, 0]
            ]
            fresh = fresh or [value.new_empty(len(codes), *value.shape[1:]) for value in values]
            for whole, value in zip(fresh, values):
                whole[start : start + CHUNK] = value
        hidden, scales, best_negative = fresh[0:4:2], fresh[1:4:2], fresh[4:]

        def joined(values: Tensor, previous: Tensor | None) -> Tensor:
            return (
                values
                if len(made) == len(map_)
                else previous.index_select(0, old).index_copy_(0, made, values)
            )

        branches = range(2)
        _, cells = np.unique(
            voxel_keys(map_.gaussians.means.numpy(), SMOOTHING_VOXELS * map_.voxel)[0], return_inverse=True
        )
        return cls(
            map_,
            tuple(joined(hidden[h], before and before.hidden[h]) for h in branches),
            torch.stack([joined(scales[h], before and before.scales[h]) for h in branches]),
            torch.stack([joined(best_negative[h], before and before.best_negative[h]) for h in branches]),
            tuple((part.branches[h].weight, part.branches[h].bias) for h in branches),
            torch.from_numpy(cells),
            decoders.mixture,
        )

    @torch.inference_mode()
    def relevancy(self, phrases: np.ndarray) -> Tensor:
        """Unit embeddings (K, C) -> relevancy (2, K, N) in (0, 1) of every Gaussian, before smoothing;
        (1, K, N) of a mixture."""
        chunks = [slice(start, start + CHUNK) for start in range(0, len(self.map), CHUNK)]
        similarities = [
            [
                HiddenBranch(hidden[chunk].float(), scale[chunk], *last).similarities(phrases)
                for chunk in chunks
            ]
            for hidden, scale, last in zip(self.hidden, self.scales, self.last)
        ]
        return relevancy(
            torch.stack([torch.cat(parts, 1) for parts in similarities]),
            self.best_negative[:, None],
            self.mixture,
        )

    def smooth(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half the values (..., N) plus half their mean, weighted by opacity, over the Gaussian's cell; and
        how many Gaussians (N,) lie in that cell."""
        cells, weights = self.cells.numpy(), self.map.gaussians.opacities.numpy()
        total = np.bincount(cells, weights)
        means = [np.bincount(cells, weights * row) / total for row in values.reshape(-1, len(cells))]
        means = np.stack([mean[cells] for mean in means]).reshape(values.shape)
        return ((values + means) / 2).astype(np.float32), np.bincount(cells)[cells]


class IndexCache:
    """The index of the map that was asked last, for any thread: decoded when a map is first asked, and then
    only what changed since the one before.
    """

    def __init__(self, index: Callable[[Map, MapIndex | None], MapIndex]):
        """`index`: makes a map's index, from another map's where there is one, as Pipeline.index does."""
        self._index = index
        self._newest: MapIndex | None = None
        self._lock = threading.Lock()  # held while decoding too: a second thread would do the same work twice

    def of(self, map_: Map) -> MapIndex:
        """The index of `map_`."""
        with self._lock:
            if self._newest is None or self._newest.map is not map_:
                self._newest = self._index(map_, self._newest)
            return self._newest
