"""The answer of a map to a question: of its cells first, then of the Gaussians in those that matter.

A Gaussian that is compared itself has half its own relevancy and half the mean of its cell, as pixels are
smoothed; any other has that of the mean code of its cell. The answer differs from that of a map whose
Gaussians were all compared (test/support/plain_map.py) where

- the likeliest Gaussian lies in a cell that, as a whole, is less likely than those of the FIRST Gaussians;
- more than MOST Gaussians may belong to the phrase: what is least in doubt is then told by cells.

How often that is so was measured on maps of a million Gaussians (docs/measurements.md, Questions to a map).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.mapping.map_cells import MIN_IN_CELL
from gsemsplat_ros.mapping.map_index import MapIndex, Members
from gsemsplat_ros.mapping.voxels import voxel_keys
from gsemsplat_ros.scene.ask import enough, not_asked, threshold_of
from gsemsplat_ros.semantics.answer import Answer, Question
from gsemsplat_ros.semantics.objects import Object, grouped, level_around
from gsemsplat_ros.semantics.relevancy import Decision, decide, relevancy

FIRST = 1 << 13  # Gaussians, of the likeliest cells, that are compared with any phrase
MOST = 1 << 15  # Gaussians that are compared with one phrase
REACH = 0.6  # of the range of relevancy: what belongs to a phrase lies in cells above it
MANY = 1 << 17  # Gaussians of a phrase: more are joined by voxels of the grid of objects
MIN_IN_OBJECT = 10  # Gaussians of an object, one for each voxel
# scenes that must have shown a Gaussian of an object, where enough of one have: what was seen once is often
# an error of depth, of which objects grow together
CONFIRMED = 3, 2, 1
TOUCHING = 3  # edge of the grid that connects objects, in voxels: distant surfaces are sampled coarsely


@dataclass(frozen=True, eq=False)
class Look:
    """A map seen with one phrase: M Gaussians of some cells, and the C cells.

    near (C,) bool: the cells whose Gaussians are compared; members: those; values (2 or 1, M + C): relevancy
    of both branches or of their mixture, and decision of these, NaN for the cells that are `near`.
    """

    near: np.ndarray
    members: Members
    values: np.ndarray
    decision: Decision

    @classmethod
    def at(cls, index: MapIndex, phrase: Tensor, coarse: Tensor, near: np.ndarray, threshold: float) -> Look:
        """phrase (1, C): unit embedding; coarse (2, C): its contrasts with the cells."""
        members = index.members(near)
        count, opacities = len(members.rows), members.opacities
        cells = np.cumsum(near)[members.cells] - 1  # of those that are near
        total = np.bincount(cells, opacities)

        def smooth(maps: Tensor) -> Tensor:
            own = maps[..., :count].flatten(0, -2).numpy()
            means = np.stack([(np.bincount(cells, opacities * row) / total)[cells] for row in own])
            smoothed = torch.from_numpy((own + means) / 2).to(maps).reshape(*maps.shape[:-1], count)
            return torch.cat((smoothed, maps[..., count:]), -1)

        contrasts = torch.cat((index.fine_contrasts(phrase, near), coarse), 1)
        inside = np.concatenate((np.ones(count, bool), ~near))
        values = relevancy(contrasts[:, None], index.mixture, smooth, torch.from_numpy(inside))[:, 0].numpy()
        return cls(near, members, values, decide(values, inside, threshold, 1))

    @property
    def of_cells(self) -> np.ndarray:
        """(C,) relevancy of the cells, NaN for those that are near."""
        return self.decision.relevancy[len(self.members.rows) :]

    def place(self, index: MapIndex, number: int) -> tuple[float, float, float]:
        """Where one of the Gaussians and cells (M + C,) is; of a cell, that of its first Gaussian."""
        means = self.members.means
        if (cell := number - len(means)) >= 0:
            means, number = index.members(np.arange(len(self.near)) == cell).means, 0
        x, y, z = means[number].tolist()
        return x, y, z


@dataclass(frozen=True, eq=False)
class LookedAt:
    """What a look at a map says of each of its N Gaussians: a `PerGaussian`. all_lit (M + C,) bool: which of
    those that were compared are lit, and which cells."""

    index: MapIndex
    look: Look
    all_lit: np.ndarray

    @cached_property
    def relevancy(self) -> np.ndarray:
        return self._of_all(self.look.decision.relevancy, np.float32(np.nan))

    @cached_property
    def lit(self) -> np.ndarray:
        return self._of_all(self.all_lit, np.False_)

    @cached_property
    def lit_rows(self) -> np.ndarray:
        members, count = self.look.members, len(self.look.members.rows)
        others = self.index.members(self.all_lit[count:])
        return np.sort(np.concatenate((members.rows[self.all_lit[:count]], others.rows)))

    def _of_all(self, values: np.ndarray, nothing: np.generic) -> np.ndarray:
        rows = self.look.members.rows
        out = self.index.of_gaussians(values[len(rows) :], nothing)
        out[rows] = values[: len(rows)]
        return out


@torch.inference_mode()
def ask_map(index: MapIndex, question: Question, phrase: np.ndarray) -> Answer:
    """The answer of the whole map; `phrase` (1, C): the unit embedding of the question."""
    if not len(index.counts):
        return not_asked(question, len(index.map))
    like = index.coarse[0].scale
    there = torch.as_tensor(phrase, dtype=like.dtype, device=like.device)
    threshold, coarse = threshold_of(question), index.contrasts(there)
    values = relevancy(coarse[:, None], index.mixture)[:, 0].amax(0).numpy()
    look = Look.at(index, there, coarse, likeliest(values, index.counts, FIRST), threshold)
    if look.decision.found:
        near = further(index, look)
        if near.sum() > look.near.sum():
            look = Look.at(index, there, coarse, near, threshold)
    decision = look.decision
    lit = decision.mask & enough(decision.relevancy, look.values, question)
    peak = None if decision.peak is None else decision.peak[0]
    return Answer(
        question.text,
        question.threshold,
        decision.found,
        decision.score,
        None if peak is None else look.place(index, peak),
        None,
        objects_of(index, look, lit, question.max_objects) if decision.found else (),
        decision.branch,
        LookedAt(index, look, lit),
    )


def further(index: MapIndex, look: Look) -> np.ndarray:
    """(C,) bool: the cells whose Gaussians are compared with a phrase that is found at the first look. Those
    first whose relevancy is nearest to the level of what belongs to it: of others the side is clear."""
    relevancy, cells = look.decision.relevancy, look.of_cells
    low, high, level = float(np.nanmin(relevancy)), look.decision.score, level_around(relevancy)
    values = np.where(cells >= low + REACH * (high - low), -abs(cells - level), -np.inf)
    values[look.near] = np.inf
    return likeliest(values, index.counts, MOST) & (values > -np.inf)


def likeliest(values: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """(C,) bool: the cells of the highest values (C,), as many as have `most` Gaussians of counts (C,), and
    at least one."""
    enough = min(most // MIN_IN_CELL, len(values) - 1)
    some = np.argpartition(-values, enough)[: enough + 1]
    some = some[np.argsort(-values[some])]
    chosen = np.zeros(len(values), bool)
    chosen[some[: max(np.searchsorted(np.cumsum(counts[some]), most, 'right'), 1)]] = True
    return chosen


def objects_of(index: MapIndex, look: Look, lit: np.ndarray, most: int) -> tuple[Object, ...]:
    """The objects, `most` at most, of what is lit (M + C,) and around."""
    count, members, relevancy = len(look.members.rows), look.members, look.decision.relevancy
    keep = lit | (relevancy >= level_around(relevancy))
    near, others = keep[:count], index.members(keep[count:])
    scenes = np.concatenate((members.scenes[near], others.scenes))
    kept = (
        np.concatenate((members.means[near], others.means)),
        np.concatenate((relevancy[:count][near], look.of_cells[others.cells])),
        np.concatenate((lit[:count][near], lit[count:][others.cells])),
        np.concatenate((members.opacities[near], others.opacities)),
    )
    voxel = TOUCHING * index.map.voxel
    for fewest in CONFIRMED:
        some = tuple(values[scenes >= fewest] for values in kept)
        many = len(some[0]) > MANY
        found = grouped(
            *(joined(*some, voxel=voxel) if many else some),
            voxel=voxel,
            min_points=MIN_IN_OBJECT // TOUCHING**2 if many else MIN_IN_OBJECT,
            max_objects=most,
        )
        if found:
            break
    return found


def joined(
    means: np.ndarray, relevancy: np.ndarray, lit: np.ndarray, opacities: np.ndarray, *, voxel: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means (N, 3), relevancy, lit and opacities (N,) of Gaussians -> those of one for each voxel of this
    edge [m]: where several are, their means weighted by opacity, and the sum of the opacities."""
    _, number = np.unique(voxel_keys(means, voxel)[0], return_inverse=True)
    total = np.bincount(number, opacities)
    columns = [np.bincount(number, opacities * column) / total for column in (*means.T, relevancy)]
    return np.stack(columns[:3], 1), columns[3], np.bincount(number, lit) > 0, total
