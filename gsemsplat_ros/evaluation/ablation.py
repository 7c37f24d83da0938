"""The contribution of each semantic branch: region-specific, context-aware and both, on the same scenes.

No measure depends on the threshold between found and not found: a checkpoint's margin is fitted for both
branches together and would be unfair to a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.evaluation.held_out_rooms import Scores, absent_names, score_words
from gsemsplat_ros.evaluation.metrics import BRANCHES, bootstrap_interval, mean, only_branch
from gsemsplat_ros.evaluation.pair_labels import read_labels
from gsemsplat_ros.pipeline import Pipeline

ORDER = ('region', 'context', 'both')
MEASURES = (
    'localisation_accuracy',
    'taught_localisation',
    'new_localisation',
    'mask_iou',
    'miou_argmax',
    'told_apart',
)

assert set(ORDER) == set(BRANCHES)


def ablate_rooms(
    pipeline: Pipeline, samples: Iterable[Sample], seed: int = 0, taught: frozenset[str] = frozenset()
) -> dict:
    """Scores of 'region', 'context' and 'both' on `samples` of rooms, with the queries of `evaluate_rooms`.

    Measures, each a mean over all phrases: localisation_accuracy; taught_ and new_localisation; mask_iou of
    the published relative mask, found or not; miou_argmax, each pixel labelled with its most relevant present
    name; told_apart, how often a present name scores higher than an absent one in the same image (ties half).

    Returns pairs, seed, `rows` {branch: {measure: mean}}, `intervals` of the same form (95 %, bootstrap over
    pairs), and `added` {branch: {measure: {mean, interval}}}, the contribution of this branch: both minus
    the other branch alone, pair by pair.

    Raises ValueError without samples.
    """
    samples = list(samples)
    if not samples:
        raise ValueError('no room to evaluate: wanted at least one sample')
    vocabulary = sorted({name for sample in samples for name in sample.names[1:]})
    groups: dict = {branch: [] for branch in ORDER}
    for index, sample in enumerate(tqdm(samples, unit='pair', desc='branches', disable=None)):
        scene = pipeline.build(sample.pair)
        absent = absent_names(sample, vocabulary, np.random.default_rng((seed, index)))
        for branch in ORDER:
            scores = Scores(np.zeros((0, 0)), 0.0)
            score_words(scores, pipeline, only_branch(scene, branch), sample, absent, taught)
            rows = scores.phrases
            groups[branch].append(
                {
                    **{name: scores.values.get(name, []) for name in MEASURES},
                    'mask_iou': [row['mask_iou'] for row in rows],
                    'told_apart': told_apart([row['score'] for row in rows], scores.absent),
                }
            )
    return {'pairs': len(samples), 'seed': seed, **compare(groups, MEASURES, seed)}


def ablate_pairs(pipeline: Pipeline, labels_path: str | Path, seed: int = 0) -> dict:
    """The same for labelled real pairs (evaluation/pair_labels.py): localisation_accuracy and told_apart.

    Raises ValueError as `read_labels`.
    """
    pairs = read_labels(labels_path)
    groups: dict = {branch: [] for branch in ORDER}
    for labelled in tqdm(pairs, unit='pair', desc='branches', disable=None):
        scene = pipeline.build(labelled.pair)
        for branch in ORDER:
            alone = only_branch(scene, branch)
            there = [(thing, pipeline.query(alone, thing.text)) for thing in labelled.objects]
            absent = [pipeline.query(alone, text).score for text in labelled.absent]
            groups[branch].append(
                {
                    'localisation_accuracy': [
                        float(thing.contains(answer.peak_pixel)) for thing, answer in there
                    ],
                    'told_apart': told_apart([answer.score for _, answer in there], absent),
                }
            )
    return {
        'pairs': len(pairs),
        'seed': seed,
        **compare(groups, ('localisation_accuracy', 'told_apart'), seed),
    }


def told_apart(present: Sequence[float], absent: Sequence[float]) -> list[float]:
    """For each pair of scores of a present and an absent name: 1 if the present one is higher, 0.5 if equal,
    else 0; in all len(present) * len(absent) values."""
    difference = np.subtract.outer(np.asarray(present, float), np.asarray(absent, float))
    return ((np.sign(difference) + 1) / 2).ravel().tolist()


def compare(groups: dict[str, list[dict[str, list[float]]]], measures: Sequence[str], seed: int) -> dict:
    """`rows`, `intervals` and `added` of `ablate_rooms`; groups: branch -> per pair, measure -> values."""

    def values(branch: str, measure: str) -> list[list[float]]:
        return [pair[measure] for pair in groups[branch]]

    def difference(alone: str, measure: str) -> dict:
        apart = [
            np.subtract(both, other).tolist()
            for both, other in zip(values('both', measure), values(alone, measure))
        ]
        return {'mean': mean(apart), 'interval': bootstrap_interval(apart, seed)}

    return {
        'rows': {branch: {name: mean(values(branch, name)) for name in measures} for branch in ORDER},
        'intervals': {
            branch: {name: bootstrap_interval(values(branch, name), seed) for name in measures}
            for branch in ORDER
        },
        'added': {
            branch: {name: difference(other, name) for name in measures}
            for branch, other in (('region', 'context'), ('context', 'region'))
        },
    }
