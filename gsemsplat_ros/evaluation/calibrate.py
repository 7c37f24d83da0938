"""From which relevancy a thing counts as found: asked on training rooms, where it is known what is there.

Canonical phrases alone do not make 0.5 the border between present and absent: a network that was taught to beat them
everywhere beats them everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gsemsplat_ros.evaluation.rooms import MIN_FRACTION, absent_names, sample_pair
from gsemsplat_ros.pipeline import Pipeline


def best_threshold(present: np.ndarray, absent: np.ndarray) -> float:
    """The score that splits present (N,) from absent (M,) with the highest mean of recall and refusal."""
    candidates = np.unique(np.concatenate((present, absent)))
    candidates = (candidates[1:] + candidates[:-1]) / 2
    quality = [(present >= c).mean() + (absent < c).mean() for c in candidates]
    return float(candidates[int(np.argmax(quality))])


def calibrate(pipeline: Pipeline, samples: Iterable[dict], seed: int = 0) -> dict:
    """Scores of names that are in the first view, and of names that share no word with any of them.

    `samples` as training makes them (training/datasets.py). Returns threshold, recall, false_alarm_rate and the counts.
    """
    samples = list(samples)
    vocabulary = sorted({name for sample in samples for name in sample['names'][1:]})
    present, absent = [], []
    for index, sample in enumerate(samples):
        scene = pipeline.build(sample_pair(sample))
        shown = np.array(sample['names'])[sample['instance'][0]]
        there = [name for name in sorted(set(sample['names'][1:])) if (shown == name).mean() >= MIN_FRACTION]
        present += [pipeline.query(scene, name).score for name in there]
        absent += [pipeline.query(scene, name).score
                   for name in absent_names(sample, vocabulary, np.random.default_rng((seed, index)))]
    if not present or not absent:
        raise ValueError(f'{len(present)} present and {len(absent)} absent names in these rooms: wanted some of both; '
                         'give more rooms')
    present, absent = np.array(present), np.array(absent)
    threshold = best_threshold(present, absent)
    return {'threshold': round(threshold, 4), 'recall': float((present >= threshold).mean()),
            'false_alarm_rate': float((absent >= threshold).mean()), 'present': len(present), 'absent': len(absent)}
