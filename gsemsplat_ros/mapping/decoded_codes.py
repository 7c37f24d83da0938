"""Decoded codes of Gaussians or of cells of a map, as questions compare them; and a store of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.semantics.decoder import Decoders, HiddenBranch

CHUNK = 1 << 15  # codes decoded together: 16 MB, which the process keeps (keep_memory)


@dataclass(frozen=True, eq=False)
class DecodedBranch:
    """One branch of N decoded codes, as HiddenBranch is of a picture's, on the device of the decoders.

    hidden (N, D), scale (N,), weight (C, D), bias (C,) and part: see HiddenBranch; best_negative
    (N,): the largest similarity with a canonical phrase.
    """

    hidden: Tensor
    scale: Tensor
    best_negative: Tensor
    weight: Tensor
    bias: Tensor
    part: slice

    @classmethod
    def unwritten(cls, count: int, like: HiddenBranch | DecodedBranch) -> DecodedBranch:
        """Room for `count` codes, with the last layer of `like`."""
        hidden, scale = like.hidden.new_empty(count, like.hidden.shape[1]), like.scale.new_empty(count)
        return cls(hidden, scale, torch.empty_like(scale), like.weight, like.bias, like.part)

    @classmethod
    def joined(cls, parts: Sequence[DecodedBranch]) -> DecodedBranch:
        """At least one, one after the other."""
        return replace(
            parts[0],
            hidden=torch.cat([part.hidden for part in parts]),
            scale=torch.cat([part.scale for part in parts]),
            best_negative=torch.cat([part.best_negative for part in parts]),
        )

    def rows(self, index: Tensor | slice) -> DecodedBranch:
        """Those that `index` picks: integers (M,), or a slice of the same memory."""
        return replace(
            self, hidden=self.hidden[index], scale=self.scale[index], best_negative=self.best_negative[index]
        )

    def contrasts(self, phrases: Tensor) -> Tensor:
        """Unit embeddings (K, C) -> (K, N): similarity less the largest with a canonical phrase."""
        branch = HiddenBranch(self.hidden, self.scale, self.weight, self.bias, self.part)
        return branch.similarities(phrases) - self.best_negative


Decoded = tuple[DecodedBranch, ...]  # region-specific, context-aware


class Decoding:
    """How codes are decoded: by `decoders`, for the unit embeddings `canonical` (M, C)."""

    def __init__(self, decoders: Decoders, canonical: np.ndarray | Tensor) -> None:
        self.decoders, self.canonical = decoders, canonical
        self.device = next(decoders.parameters()).device

    def room(self, count: int) -> Decoded:
        """Room for `count` decoded codes."""
        return tuple(
            DecodedBranch.unwritten(count, branch) for branch, _ in self._branches(torch.zeros(0, self.width))
        )

    @property
    def width(self) -> int:
        """Of a code."""
        return self.decoders.code_dim

    @torch.inference_mode()
    def write(self, codes: Tensor, out: Decoded) -> Decoded:
        """Decode codes (N, width), a chunk at a time, into `out`, which is returned."""
        for start in range(0, len(codes), CHUNK):
            rows = slice(start, start + CHUNK)
            for branch, (new, best_negative) in zip(out, self._branches(codes[rows]), strict=True):
                branch.hidden[rows], branch.scale[rows] = new.hidden, new.scale
                branch.best_negative[rows] = best_negative[:, 0]
        return out

    def _branches(self, codes: Tensor) -> Iterator[tuple[HiddenBranch, Tensor]]:
        part = self.decoders.prepare(codes[:, None].to(self.device), self.canonical)
        for branch, best_negative in zip(part.branches, part.best_negative, strict=True):
            assert isinstance(branch, HiddenBranch)  # no Counts of a picture
            yield branch, best_negative


@torch.inference_mode()
def contrasts(decoded: Decoded, phrases: np.ndarray | Tensor) -> Tensor:
    """Embeddings (K, C) -> (2, K, N) of both branches, on their device."""
    like = decoded[0].scale
    phrases = torch.as_tensor(phrases, dtype=like.dtype, device=like.device)
    return torch.stack([branch.contrasts(phrases) for branch in decoded])


class DecodedStore:
    """Decoded codes of Gaussians, for all indexes of one growing map; when it is full, it begins anew.

    era: number of the beginning; used: rows written in it, which do not change until the next. lock: held by
    whoever reads or writes.
    """

    def __init__(self, most: int, decoding: Decoding) -> None:
        self.decoding, self.lock = decoding, threading.Lock()
        self.era, self.used, self.room = 0, 0, decoding.room(most)

    @property
    def free(self) -> int:
        """Codes that still fit."""
        return len(self.room[0].scale) - self.used

    def begin_anew(self, most: int) -> None:
        """Forget everything, and have room for `most` at least."""
        self.era, self.used = self.era + 1, 0
        if self.free < most:
            self.room = self.decoding.room(most)

    def add(self, codes: Tensor) -> int:
        """Decode these codes, for which there must be room; the row of the first."""
        start = self.used
        self.used += len(codes)
        rows = slice(start, self.used)
        self.decoding.write(codes, tuple(branch.rows(rows) for branch in self.room))
        return start


class DecodedCells:
    """The cells of one index whose Gaussians are in a store.

    counts (C,): Gaussians of each cell. first (C,) int64: the row of the first of them in the store, as of
    its `era`, -1: they are not there.
    """

    def __init__(self, store: DecodedStore, counts: np.ndarray) -> None:
        self.store, self.counts = store, counts
        self.era, self.first = store.era, np.full(len(counts), -1)

    def contrasts(self, cells: np.ndarray, codes: Callable[[np.ndarray], Tensor], phrase: Tensor) -> Tensor:
        """Of the Gaussians of these cells (M,), cell by cell, with a phrase, as of `contrasts`; `codes` gives
        the codes of those of cells that are not in the store."""
        counts = self.counts[cells]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        with self.store.lock:
            self._fill(cells, codes)
            rows = torch.from_numpy(np.repeat(self.first[cells], counts) + within)
            rows = rows.to(self.store.decoding.device)
            return contrasts(tuple(branch.rows(rows) for branch in self.store.room), phrase)

    def _fill(self, cells: np.ndarray, codes: Callable[[np.ndarray], Tensor]) -> None:
        missing = cells if self.era != self.store.era else cells[self.first[cells] < 0]
        if self.counts[missing].sum() > self.store.free:
            self.store.begin_anew(int(self.counts[cells].sum()))
        if self.era != self.store.era:
            self.era, missing = self.store.era, cells
            self.first[:] = -1
        if len(missing):
            sizes = self.counts[missing]
            self.first[missing] = self.store.add(codes(missing)) + np.cumsum(sizes) - sizes
