"""Fit of the score of a checkpoint: from the peak of the mixed branches to the probability of presence.

A logistic curve through present and absent phrases of labelled pictures, and of rooms with known contents.
Comparison with canonical phrases does not make 0.5 the border: training teaches the network to beat them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

import numpy as np

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.evaluation.held_out_rooms import MIN_FRACTION, absent_names
from gsemsplat_ros.evaluation.metrics import auc, calibration_error
from gsemsplat_ros.evaluation.pair_labels import LabelledPair
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.relevancy import Mixture

# of the context-aware branch beside the region-specific one: on 110 labelled photographs 0.15 to 0.3 do as
# well
CONTEXT = 0.2
FALSE_ALARMS = 0.1  # share of the absent phrases that may be found,
THRESHOLDS = np.arange(0.5, 0.96, 0.01)  # at the lowest of these
MIN_PHRASES = 40  # present, and absent: fewer do not fix two numbers
STEPS = 50  # of Newton's method
PLAIN = Mixture(CONTEXT, 1.0, 0.0, 0.5)  # its score is the sigmoid of the peak


def calibrate(
    pipeline: Pipeline, pairs: Sequence[LabelledPair], samples: Iterable[Sample] = (), seed: int = 0
) -> dict:
    """Fit the mixture on the phrases of labelled `pairs` and on the names in the first view of `samples` of
    rooms, with absent names that share no word with them; pairs and rooms weigh the same.

    Returns mixture (for the card), with the threshold from which at most a tenth of the absent phrases of the
    pairs are found; and for each source its numbers of present and absent phrases, presence_auc,
    calibration_error, found_rate and false_alarm_rate. Raises ValueError for too few phrases.
    """
    found = {'pairs': [row for pair in pairs for row in phrases_of_pair(pipeline, pair)]}
    samples = list(samples)
    vocabulary = sorted({name for sample in samples for name in sample.names[1:]})
    found['rooms'] = [
        row
        for index, sample in enumerate(samples)
        for row in names_of_room(pipeline, sample, vocabulary, np.random.default_rng((seed, index)))
    ]
    table = {name: np.array(rows, np.float64).reshape(-1, 2) for name, rows in found.items() if rows}
    rows = np.concatenate([*table.values(), np.zeros((0, 2))])
    present = int(rows[:, 1].sum())
    if min(present, len(rows) - present) < MIN_PHRASES:
        raise ValueError(
            f'{present} present and {len(rows) - present} absent phrases: wanted {MIN_PHRASES} of each; give '
            'more labelled pairs or rooms'
        )
    weights = np.concatenate([np.full(len(part), 1 / len(part)) for part in table.values()])
    slope, offset = logistic(rows[:, 0], rows[:, 1], weights)
    scores = {name: sigmoid(slope * part[:, 0] + offset) for name, part in table.items()}
    judged = 'pairs' if 'pairs' in table else 'rooms'
    absent = scores[judged][table[judged][:, 1] == 0]
    threshold = next((t for t in THRESHOLDS if (absent >= t).mean() <= FALSE_ALARMS), THRESHOLDS[-1])
    mixture = Mixture(CONTEXT, round(slope, 3), round(offset, 3), round(float(threshold), 2))
    result: dict = {'mixture': asdict(mixture)}
    for name, part in table.items():
        there = part[:, 1] == 1
        result |= {
            f'{name}_present': int(there.sum()),
            f'{name}_absent': int((~there).sum()),
            f'{name}_presence_auc': auc(scores[name], there),
            f'{name}_calibration_error': calibration_error(scores[name], there),
            f'{name}_found_rate': float((scores[name][there] >= mixture.threshold).mean()),
            f'{name}_false_alarm_rate': float((scores[name][~there] >= mixture.threshold).mean()),
        }
    return result


def phrases_of_pair(pipeline: Pipeline, labelled: LabelledPair) -> list[tuple[float, bool]]:
    """Peak and presence of each phrase of a labelled pair."""
    scene = mixed_by(PLAIN, pipeline.build(labelled.pair))
    asked = [
        *((thing.text, True) for thing in labelled.objects),
        *((text, False) for text in labelled.absent),
    ]
    return [(peak(pipeline, scene, text), there) for text, there in asked]


def names_of_room(
    pipeline: Pipeline, sample: Sample, vocabulary: list[str], rng: np.random.Generator
) -> list[tuple[float, bool]]:
    """Peak and presence of the names in the first view of a room, and of absent ones."""
    scene = mixed_by(PLAIN, pipeline.build(sample.pair))
    shown = np.array(sample.names)[sample.instance[0]]
    there = [name for name in sorted(set(sample.names[1:])) if (shown == name).mean() >= MIN_FRACTION]
    absent = absent_names(sample, vocabulary, rng)
    return [(peak(pipeline, scene, name), name in there) for name in [*there, *absent]]


def mixed_by(mixture: Mixture, scene: Scene) -> Scene:
    """The scene with its branches combined by `mixture`."""
    hidden = replace(scene.keyframe.hidden_codes, mixture=mixture)
    return replace(scene, keyframe=replace(scene.keyframe, hidden_codes=hidden))


def peak(pipeline: Pipeline, scene: Scene, text: str) -> float:
    """The peak of a phrase in a scene mixed by PLAIN."""
    p = min(max(pipeline.query(scene, text).score, 1e-7), 1 - 1e-7)
    return float(np.log(p / (1 - p)))


def logistic(x: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the logistic curve of the highest likelihood, by Newton's method."""
    ones = np.stack((x, np.ones_like(x)), 1)
    curve = np.zeros(2)
    for _ in range(STEPS):
        p = sigmoid(ones @ curve)
        slope = ones.T @ (weights * (p - present))
        bend = (ones * (weights * p * (1 - p))[:, None]).T @ ones + 1e-9 * np.eye(2)
        curve -= np.linalg.solve(bend, slope)
    return float(curve[0]), float(curve[1])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
