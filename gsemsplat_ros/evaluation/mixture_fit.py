"""Fit of the mixture of the two branches and of its threshold, on training rooms with known contents.

Comparison with canonical phrases does not make 0.5 the border between present and absent: training teaches
the network to beat them everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.evaluation.held_out_rooms import MIN_FRACTION, absent_names
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.relevancy import TEMPERATURE, Mixture

# of the region branch, of the context branch at the pixel, and of its maximum; chosen on 24 held-out and four
# real pairs: a higher second weight helps real images and hurts rooms
WEIGHTS = 1.0, 0.1, 0.4
# share of absent names that may be found in training rooms; in unseen rooms it is about twice that
FALSE_ALARMS = 0.1


def calibrate(pipeline: Pipeline, samples: Iterable[Sample], seed: int = 0) -> dict:
    """Fit the mixture from names in the first view and absent names that share no word with them.

    Returns mixture (for the card), recall, false_alarm_rate, and the numbers of present and absent names.
    Raises ValueError if one of them is 0.
    """
    samples = list(samples)
    vocabulary = sorted({name for sample in samples for name in sample.names[1:]})
    present: list[float] = []
    absent: list[float] = []
    for index, sample in enumerate(samples):
        scene = mixed_by(Mixture(WEIGHTS, 0.0), pipeline.build(sample.pair))
        shown = np.array(sample.names)[sample.instance[0]]
        there = [name for name in sorted(set(sample.names[1:])) if (shown == name).mean() >= MIN_FRACTION]
        not_there = absent_names(sample, vocabulary, np.random.default_rng((seed, index)))
        present += [contrast(pipeline, scene, name) for name in there]
        absent += [contrast(pipeline, scene, name) for name in not_there]
    if not present or not absent:
        raise ValueError(
            f'{len(present)} present and {len(absent)} absent names in these rooms: wanted some of both; '
            'give more rooms'
        )
    margin = round(float(np.quantile(absent, 1 - FALSE_ALARMS)), 4)
    return {
        'mixture': {'weights': list(WEIGHTS), 'margin': margin},
        'recall': float(np.mean(np.array(present) >= margin)),
        'false_alarm_rate': float(np.mean(np.array(absent) >= margin)),
        'present': len(present),
        'absent': len(absent),
    }


def mixed_by(mixture: Mixture, scene: Scene) -> Scene:
    """The scene with its branches combined by `mixture`."""
    hidden = replace(scene.keyframe.hidden_codes, mixture=mixture)
    return replace(scene, keyframe=replace(scene.keyframe, hidden_codes=hidden))


def contrast(pipeline: Pipeline, scene: Scene, text: str) -> float:
    """Margin of a phrase's peak over the canonical phrases [cosine], from its relevancy."""
    p = min(max(pipeline.query(scene, text).score, 1e-7), 1 - 1e-7)
    return float(np.log(p / (1 - p))) / TEMPERATURE
