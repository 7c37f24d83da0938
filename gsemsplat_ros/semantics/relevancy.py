"""Relevancy of every pixel to a phrase (LERF), its smoothing, and presence of the phrase. Pure functions.

Branches: 0 region-specific, 1 context-aware. Letters: H, W map; K phrases; M canonical phrases; C text space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# phrases that every query is compared with (LERF; docs/published.md 26)
CANONICAL = ('object', 'things', 'stuff', 'texture')
NORM_EPS = 1e-6  # added to a feature's norm, as published
SMOOTHING_BOX = 30  # pixels, for a map of 512
_SMOOTHING_SIDE = 512
TEMPERATURE = 10.0
BELOW = 2.0  # the usual: there the context-aware branch begins to say something
PLATEAU = 2.0  # a mixture's relevancy is nearly flat around its peak, then it falls
FALL = 4.0
TOP = 1 / (1 + math.exp(-PLATEAU))
LEAN = 0.02  # as far as it reaches, it leans so much towards the peak
MIN_ALPHA = 0.5  # opacity below which no phrase is found in a pixel
LEAST = -1e4  # below every contrast
_MASK_LEVEL = 0.75  # of a map's own range
_RANGE_EPS = 1e-9


@dataclass(frozen=True)
class Mixture:
    """How a checkpoint other than the published one makes one relevancy of the two branches.

    The contrast of a branch is the similarity with the phrase minus the largest with a canonical phrase. With
    the smoothed contrasts of both branches, of which a context-aware one below the usual says nothing,

        seen = softplus(context-aware + 2)
        place = region + context * seen
        score = sigmoid(slope * max(place) + offset)

    where the maximum is over the picture or map. The peak of the place says where the phrase is, and its
    score, a probability, whether it is there (evaluation/mixture_fit.py). How far it reaches is for the
    sharper branch to say: away from the peak, relevancy falls with extent = region + context / 4 * seen,
    as score * sigmoid(2 + 4 * (extent - extent at the peak)) / sigmoid(2). A phrase is found from
    `threshold` on.
    """

    context: float
    slope: float
    offset: float
    threshold: float

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Mixture | None:
        """That of a checkpoint's card; None: it has none. Raises ValueError for other numbers than these."""
        values = card.get('mixture')
        if not values:
            return None
        names = [field.name for field in fields(cls)]
        if sorted(values) != sorted(names) or not 0 < values['threshold'] < 1:
            raise ValueError(
                f'the mixture of the card is {repr(values)[:100]}, wanted {", ".join(names)}, the threshold '
                'between 0 and 1: fit it again with `gsemsplat eval calibrate`'
            )
        return cls(**values)

    def of(self, contrasts: Tensor, inside: Tensor | None = None) -> Tensor:
        """Smoothed contrasts (2, K, ...) -> relevancy (K, ...); `inside` (...) bool: where the peak is looked
        for."""
        region = contrasts[0].flatten(1)  # (K, P)
        seen = self.context * F.softplus(contrasts[1].flatten(1) + BELOW)
        place, extent = region + seen, region + seen / 4
        if inside is not None:
            place = place.masked_fill(~inside.flatten(), LEAST)
        peak, where = place.max(1, keepdim=True)  # (K, 1)
        fall = (extent - extent.gather(1, where)).clamp(max=0) + LEAN * (place - peak)
        score = (self.slope * peak + self.offset).sigmoid()
        return (score / TOP * (PLATEAU + FALL * fall).sigmoid()).reshape(contrasts.shape[1:])


def relevancy(
    contrasts: Tensor,
    mixture: Mixture | None = None,
    smoothing: Callable[[Tensor], Tensor] = lambda maps: maps,
    inside: Tensor | None = None,
) -> Tensor:
    """Contrasts (2, K, ...) of the two branches -> smoothed relevancy in (0, 1) of both (2, K, ...), of their
    mixture (1, K, ...). A mixture smooths contrasts, so that its score stays a probability; without one the
    relevancy is smoothed, as published. `inside`: see Mixture.

    LERF takes the smallest of the pairwise softmaxes exp(10 p) / (exp(10 p) + exp(10 n_j))
    over the canonical phrases j. Each is sigmoid(10 (p - n_j)), which falls as n_j grows, so
    the smallest belongs to the largest n_j: the contrast is p minus that.
    """
    if mixture is not None:
        return mixture.of(smoothing(contrasts), inside)[None]
    return smoothing((TEMPERATURE * contrasts).sigmoid())


def relevancy_of_features(features: Tensor, phrases: Tensor, canonical: Tensor) -> Tensor:
    """Features (2, H, W, C), unit phrases (K, C), unit canonical phrases (M, C) -> relevancy (2, K, H, W)."""
    similarities = features @ torch.cat([phrases, canonical]).T  # (2, H, W, K + M)
    similarities = (similarities / (features.norm(dim=-1, keepdim=True) + NORM_EPS)).movedim(-1, 1)
    return relevancy(similarities[:, : len(phrases)] - similarities[:, len(phrases) :].amax(1, keepdim=True))


def box_size(height: int, width: int) -> int:
    """Side of the smoothing box for a map: the published 30 at 512 pixels, in proportion for other sizes."""
    return min(max(1, round(SMOOTHING_BOX * max(height, width) / _SMOOTHING_SIDE)), height, width)


def smooth(maps: Tensor, box: int = SMOOTHING_BOX, inside: Tensor | None = None) -> Tensor:
    """Half the map plus half its mean over a box, as published; maps (..., H, W), box in pixels.

    An even box reaches one pixel further to the top left, and the border mirrors without repeating its pixel
    (anchor and border of OpenCV's filter2D). `inside` (H, W) bool: only these pixels enter the mean, so that
    unrendered ones do not spill over the edge; pixels outside keep their value.
    """
    if inside is None:
        return (maps + _box_mean(maps, box)) / 2
    weight = inside.to(maps)
    mean = _box_mean(torch.where(inside, maps, 0), box) / _box_mean(weight, box).clamp(min=0.5 / box**2)
    return torch.where(inside, (maps + mean) / 2, maps)


def _box_mean(maps: Tensor, box: int) -> Tensor:
    """Mean over box x box around each pixel, by running sums: the cost does not depend on the box."""
    *batch, height, width = maps.shape
    assert 1 <= box <= min(height, width), f'a box of {box} on a map of {height} x {width}'
    before, after = box // 2, box - 1 - box // 2
    sums = F.pad(maps.reshape(1, -1, height, width), (before, after, before, after), mode='reflect').double()
    for axis in (2, 3):
        running = sums.cumsum(axis)
        count = running.shape[axis] - box
        sums = running.narrow(axis, box - 1, count + 1).clone()
        sums.narrow(axis, 1, count).sub_(running.narrow(axis, 0, count))
    return (sums / box**2).to(maps.dtype).reshape(*batch, height, width)


def relative_mask(map_: np.ndarray, level: float = _MASK_LEVEL) -> np.ndarray:
    """Map (H, W) -> the published mask (H, W) bool: above `level` of the map's own range; false for NaN.

    Any map that varies has such pixels, whether the phrase is present or not: check the peak first.
    """
    z = map_ - np.nanmin(map_)
    return z / (np.nanmax(z) + _RANGE_EPS) > level


@dataclass(frozen=True, eq=False)
class Decision:
    """Whether a phrase is found, and where, in pixels or in Gaussians alike.

    found: the peak reaches the threshold; score: the peak, 0..1 (0 if nothing could be compared); branch: 0
    region, 1 context, 0 for a mixture; relevancy (...) float32: smoothed, of that branch, NaN outside; mask
    (...) bool: pixels or Gaussians of the phrase, none if not found; peak: index of the peak, None if nothing
    could be compared.
    """

    found: bool
    score: float
    branch: int
    relevancy: np.ndarray
    mask: np.ndarray
    peak: tuple[int, ...] | None


def decide(
    smoothed: np.ndarray, support: np.ndarray, threshold: float = 0.5, min_support: float = MIN_ALPHA
) -> Decision:
    """Chooses the branch with the higher peak and decides whether the phrase is found.

    smoothed (2, ...): smoothed relevancy of the two branches, or (1, ...) of their mixture, of the pixels (H,
    W) of a picture or the Gaussians (N,) of a map; support (...): weight of evidence of each, for a pixel its
    accumulated opacity. Entries below `min_support` are outside: an empty pixel decodes to an arbitrary fixed
    vector, so it may neither win nor set the range. The published mask alone would find everything
    everywhere; so the peak must first reach `threshold`, on the absolute scale of relevancy.
    """
    assert smoothed.shape[1:] == support.shape, (smoothed.shape, support.shape)
    inside = (support >= min_support) & np.isfinite(smoothed).all(0)
    empty = np.zeros(support.shape, bool)
    if not inside.any():
        return Decision(False, 0.0, 0, np.full(support.shape, np.nan, np.float32), empty, None)
    masked = np.where(inside, smoothed, np.nan).astype(np.float32)
    peaks = np.nanmax(masked.reshape(len(masked), -1), axis=1)
    branch = int(peaks.argmax())  # ties go to branch 0, as published
    chosen = masked[branch]
    peak = tuple(map(int, np.unravel_index(np.nanargmax(chosen), chosen.shape)))
    score = float(chosen[peak])
    found = score >= threshold
    return Decision(found, score, branch, chosen, relative_mask(chosen) if found else empty, peak)
