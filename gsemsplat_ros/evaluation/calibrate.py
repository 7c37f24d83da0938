"""The margins by which a phrase must beat the canonical ones: asked on training rooms, where it is known what is there.

Canonical phrases alone do not make 0.5 the border between present and absent: a network that was taught to beat them
everywhere beats them everywhere, and one head by more than the other.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gsemsplat_ros.evaluation.metrics import BRANCHES, only_branch
from gsemsplat_ros.evaluation.rooms import MIN_FRACTION, absent_names, sample_pair
from gsemsplat_ros.mapping.scene import Scene
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.semantics.relevancy import TEMPERATURE

CANDIDATES = 60            # margins tried for each head


def best_margins(present: np.ndarray, hits: np.ndarray, absent: np.ndarray) -> tuple[float, float]:
    """The margins of the two heads under which most present names are found where they are and most absent ones refused.

    present (N, 2), absent (M, 2): by how much each head's peak beats the canonical phrases [cosine]; hits (N, 2) bool: it
    lies on the thing. The head with the larger surplus over its margin answers, if that is positive.
    """
    scores = np.concatenate((present, absent))
    first, second = (np.unique(np.quantile(scores[:, head], np.linspace(0, 1, CANDIDATES))) for head in range(2))
    best, chosen = -1.0, (0.0, 0.0)
    for m0 in first:
        for m1 in second:
            surplus, over = present - (m0, m1), absent - (m0, m1)
            hit = np.take_along_axis(hits, surplus.argmax(1)[:, None], 1)[:, 0]
            found = surplus.max(1) >= 0
            quality = (found & hit).mean() + 0.5 * found.mean() + 1.5 * (over.max(1) < 0).mean()
            if quality > best:
                best, chosen = quality, (float(m0), float(m1))
    return chosen


def peaks(pipeline: Pipeline, scene: Scene, text: str) -> tuple[np.ndarray, np.ndarray]:
    """By how much each head's peak beats the canonical phrases [cosine] (2,), and where it lies in the input (2, 2) [px]."""
    margins, pixels = [], []
    for branch in BRANCHES[1:]:
        answer = pipeline.query(only_branch(scene, branch), text)
        margins.append(logit(answer.score) / TEMPERATURE)
        pixels.append(answer.peak_pixel)
    return np.array(margins), np.array(pixels)


def calibrate(pipeline: Pipeline, samples: Iterable[dict], seed: int = 0) -> dict:
    """Margins from names that are in the first view, and from names that share no word with any of them.

    `samples` as training makes them (training/datasets.py). Returns margins, recall (found), localised (found, and where
    it is), false_alarm_rate and the counts. The pipeline keeps the margins.
    """
    pipeline.codec.margins = (0.0, 0.0)
    samples = list(samples)
    vocabulary = sorted({name for sample in samples for name in sample['names'][1:]})
    present, hits, absent = [], [], []
    for index, sample in enumerate(samples):
        scene = pipeline.build(sample_pair(sample))
        shown = np.array(sample['names'])[sample['instance'][0]]
        for name in sorted(set(sample['names'][1:])):
            if (shown == name).mean() >= MIN_FRACTION:
                margins, pixels = peaks(pipeline, scene, name)
                u, v = np.rint(pixels).astype(int).T
                present.append(margins)
                hits.append(shown[v, u] == name)
        absent += [peaks(pipeline, scene, name)[0]
                   for name in absent_names(sample, vocabulary, np.random.default_rng((seed, index)))]
    if not present or not absent:
        raise ValueError(f'{len(present)} present and {len(absent)} absent names in these rooms: wanted some of both; '
                         'give more rooms')
    present, hits, absent = np.array(present), np.array(hits), np.array(absent)
    chosen = best_margins(present, hits, absent)
    pipeline.codec.margins = chosen
    surplus = present - chosen
    found = surplus.max(1) >= 0
    hit = np.take_along_axis(hits, surplus.argmax(1)[:, None], 1)[:, 0]
    return {'margins': [round(m, 4) for m in chosen], 'recall': float(found.mean()),
            'localised': float((found & hit).mean()), 'false_alarm_rate': float(((absent - chosen).max(1) >= 0).mean()),
            'present': len(present), 'absent': len(absent)}


def logit(p: float) -> float:
    p = min(max(p, 1e-7), 1 - 1e-7)
    return float(np.log(p / (1 - p)))
