"""Queries, poses and depth on real pairs with labels (pair_labels.py)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gsemsplat_ros.evaluation.dense_classifier import ClassifierPeer
from gsemsplat_ros.evaluation.metrics import (
    abs_rel,
    at_keyframe,
    auc,
    bootstrap_interval,
    calibration_error,
    countable,
    delta1,
    direction_error_deg,
    mean,
    median_scale,
    only_branch,
    pooled_interval,
    rotation_error_deg,
)
from gsemsplat_ros.evaluation.pair_labels import LabelledPair, read_labels
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer

NEAR_DEG = 10.0  # of pose_within_10deg
# measure -> its meaning, in the order of the table
MEASURES = {
    'localisation_accuracy': 'the peak of a present phrase lies in one of its boxes, found or not',
    'found_rate': 'part of the present phrases that were found',
    'found_and_right': 'part of the present phrases that were found with their peak in a box',
    'false_alarm_rate': 'part of the absent phrases that were found',
    'presence_auc': 'how often a present phrase scores above an absent one, all pairs together (ties half)',
    'calibration_error': 'expected error of the score read as the probability that the phrase is present',
    'pose_found_rate': 'part of the pairs with true, not given motion for which a pose was found',
    'rotation_deg': 'error of the pose found [degrees], median',
    'direction_deg': 'error of the direction to the second camera [degrees], median',
    'pose_within_10deg': 'part of the pairs with true motion: both errors at most 10 degrees',
    'scale_error': '|ln(distance of the cameras found / true)|, median over the poses found',
    'focal_error': '|ln(focal length found / true)| of images given without it, median',
    'abs_rel_aligned': 'depth of the first view as rendered, after the median scale',
    'abs_rel_metric': 'the same in metres, no alignment',
    'delta1': 'part of its pixels within a factor of 1.25 of the truth, no alignment',
    'coverage': 'part of the true depth that was rendered at all',
}
# the same of what needs no training: a random pixel, and the dense classifier (dense_classifier.py)
PEERS = {
    'chance': "localisation_accuracy of a random pixel: the boxes' part of the image",
    'classifier_localisation': 'localisation_accuracy of the untrained dense classifier',
    'classifier_presence_auc': 'presence_auc of the untrained dense classifier',
}
MEDIANS = 'rotation_deg', 'direction_deg', 'scale_error', 'focal_error'
# measure -> column of the phrases' rows, and what compares it with presence
POOLED = {
    'presence_auc': ('score', auc),
    'calibration_error': ('score', calibration_error),
    'classifier_presence_auc': ('classifier_score', auc),
}


@dataclass
class PairScores:
    """The results of one pair.

    seconds: of building the scene; scene and answers: None and empty once they were shown; phrases: a row for
    each answer; pose and depth: a row, None without truth; values: by measure.
    """

    seconds: float
    scene: Scene | None
    answers: list[Answer] = field(default_factory=list)
    phrases: list[dict] = field(default_factory=list)
    pose: dict | None = None
    depth: dict | None = None
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Append to `values`, by measure."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(float(value))

    def presence(self, column: str) -> np.ndarray:
        """(n, 2) values of a column and presence of every phrase that has one."""
        rows = [(row[column], row['present']) for row in self.phrases if column in row]
        return np.array(rows, np.float64).reshape(-1, 2)


def evaluate_pairs(
    pipeline: Pipeline,
    labels_path: str | Path,
    branches: str = 'both',
    calibrated: bool = True,
    classifier: ClassifierPeer | None = None,
    show: Callable[[LabelledPair, PairScores], object] = lambda labelled, scores: None,
) -> dict[str, Any]:
    """Score `pipeline` on the labelled pairs by MEASURES; shows a progress bar on a terminal.

    branches: 'both', or only 'region' or 'context'. calibrated: False gives only the image files. classifier:
    the untrained peer, None: left out. show: called with each pair and its scores.

    Returns MEASURES and PEERS over all pairs (None if nothing counts), with 95 % `intervals` by the same keys
    from a bootstrap over pairs. All are means but the MEDIANS and the POOLED. A pose counts where the true
    motion is known and the pair is not given as rectified; its direction is that of first_from_second, its
    scale counts as metres, whatever `scale_source` says. True depth comes from disparities.

    Also worst_rotation_deg and worst_direction_deg of the poses found; labels (name of the file), pairs,
    seconds_pair (median), branches, calibrated; phrases [{pair, text, note, present, found, score, head,
    peak_pixel, localised, classifier_score, classifier_localised}], localised of present ones only; poses
    [{pair, found, rotation_deg, direction_deg, scale_ratio, scale_source}]; depths [{pair, abs_rel_aligned,
    abs_rel_metric, delta1, coverage, scale_source}].

    Raises ValueError for unusable labels, with file and field, and for unknown branches.
    """
    pairs = read_labels(labels_path)
    scores = []
    for labelled in tqdm(pairs, unit='pair', desc='pairs', disable=None):
        scored = score_pair(pipeline, labelled, branches, calibrated, classifier)
        show(labelled, scored)
        scored.scene, scored.answers = None, []  # not needed any more, and large
        scores.append(scored)
    totals, intervals = {}, {}
    for name in (*MEASURES, *PEERS):
        groups = [scored.values.get(name, []) for scored in scores]
        if name in POOLED:
            column, measure = POOLED[name]
            rows = [scored.presence(column) for scored in scores]
            totals[name], intervals[name] = pooled(rows, partial(of_presence, measure))
        elif name in MEDIANS:
            totals[name], intervals[name] = pooled([np.array(group) for group in groups], finite_median)
        else:
            totals[name], intervals[name] = mean(groups), bootstrap_interval(groups)
    poses = [scored.pose for scored in scores if scored.pose]
    return {
        **totals,
        **{f'worst_{name}': worst(poses, name) for name in ('rotation_deg', 'direction_deg')},
        'labels': Path(labels_path).name,
        'pairs': len(pairs),
        'seconds_pair': float(np.median([scored.seconds for scored in scores])),
        'branches': branches,
        'calibrated': calibrated,
        'intervals': intervals,
        'phrases': [row for scored in scores for row in scored.phrases],
        'poses': poses,
        'depths': [scored.depth for scored in scores if scored.depth],
    }


def score_pair(
    pipeline: Pipeline,
    labelled: LabelledPair,
    branches: str,
    calibrated: bool,
    classifier: ClassifierPeer | None,
) -> PairScores:
    """Build the scene of one pair and score its words, pose and depth."""
    pair = labelled.pair
    if not calibrated:
        pair = Pair(replace(pair.first, camera=None), replace(pair.second, camera=None))
    start = time.perf_counter()
    scene = only_branch(pipeline.build(pair), branches)
    scores = PairScores(time.perf_counter() - start, scene)
    score_words(scores, pipeline, scene, labelled)
    if classifier is not None:
        score_classifier(scores, classifier, labelled)
    if labelled.first_from_second is not None and pair.baseline_m is None:
        score_pose(scores, scene, labelled.name, labelled.first_from_second)
    camera = labelled.pair.first.camera
    if camera is not None and pair.first.camera is None:
        scores.add(focal_error=abs(math.log(scene.keyframe.input_camera.fx / camera.fx)))
    if labelled.depth is not None:
        score_depth(scores, scene, labelled.name, labelled.depth)
    return scores


def score_words(scores: PairScores, pipeline: Pipeline, scene: Scene, labelled: LabelledPair) -> None:
    """Query the objects of the pair and what is absent."""
    height, width = labelled.pair.first.image.shape[:2]

    def ask(text: str, present: bool) -> tuple[Answer, dict]:
        answer = pipeline.query(scene, text)
        row = {
            'pair': labelled.name,
            'text': text,
            'note': answer.note,
            'present': present,
            'found': answer.found,
            'score': answer.score,
            'head': answer.branch,
            'peak_pixel': list(answer.peak_pixel) if answer.peak_pixel else None,
        }
        scores.answers.append(answer)
        scores.phrases.append(row)
        return answer, row

    for thing in labelled.objects:
        answer, row = ask(thing.text, True)
        row['localised'] = thing.contains(answer.peak_pixel)
        scores.add(
            localisation_accuracy=row['localised'],
            chance=thing.area / (width * height),
            found_rate=answer.found,
            found_and_right=answer.found and row['localised'],
        )
    for text in labelled.absent:
        answer, _ = ask(text, False)
        scores.add(false_alarm_rate=answer.found)


def score_classifier(scores: PairScores, classifier: ClassifierPeer, labelled: LabelledPair) -> None:
    """Ask the untrained classifier the same phrases, and add its columns to their rows."""
    peaks = classifier.peaks(labelled.pair.first.image, [row['text'] for row in scores.phrases])
    for row, (score, _) in zip(scores.phrases, peaks):
        row['classifier_score'] = score
    for row, thing, (_, pixel) in zip(scores.phrases, labelled.objects, peaks):  # the objects come first
        row['classifier_localised'] = thing.contains(pixel)
        scores.add(classifier_localisation=row['classifier_localised'])


def score_pose(scores: PairScores, scene: Scene, name: str, truth: np.ndarray) -> None:
    """Compare the pose of the second camera with the true one, first_from_second (4, 4) [m]."""
    pose = scene.first_from_second
    errors: dict[str, float] = {}
    near = False
    if pose is not None:
        rotation, direction = rotation_error_deg(pose, truth), direction_error_deg(pose, truth)
        distance, true_distance = (float(np.linalg.norm(each[:3, 3])) for each in (pose, truth))
        ratio = distance / true_distance if distance and true_distance else math.nan
        near = rotation <= NEAR_DEG and (direction <= NEAR_DEG or not true_distance)
        errors = {'rotation_deg': rotation, 'direction_deg': direction, 'scale_ratio': ratio}
        scores.add(rotation_deg=rotation, direction_deg=direction, scale_error=abs(math.log(ratio)))
    scores.add(pose_found_rate=pose is not None, pose_within_10deg=near)
    scores.pose = {
        'pair': name,
        'found': pose is not None,
        **{
            key: mean([[errors.get(key, math.nan)]])
            for key in ('rotation_deg', 'direction_deg', 'scale_ratio')
        },
        'scale_source': scene.scale_source,
    }


def score_depth(scores: PairScores, scene: Scene, name: str, truth: np.ndarray) -> None:
    """Compare the rendered depth with the true one of the first image (H, W) m."""
    depth = scene.keyframe.rendering.depth.cpu().numpy()
    truth = at_keyframe(scene.keyframe, truth)
    known = countable(truth, truth)
    values = {
        'abs_rel_aligned': abs_rel(depth * median_scale(depth, truth), truth),
        'abs_rel_metric': abs_rel(depth, truth),
        'delta1': delta1(depth, truth),
        'coverage': float(np.isfinite(depth[known]).mean()) if known.any() else math.nan,
    }
    scores.add(**values)
    scores.depth = {
        'pair': name,
        **{key: mean([[value]]) for key, value in values.items()},
        'scale_source': scene.scale_source,
    }


def pooled(
    groups: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float]
) -> tuple[float | None, tuple[float, float] | None]:
    """`statistic` of all rows of all groups, None if it is not finite, and its interval."""
    value = statistic(np.concatenate(groups))
    return (value, pooled_interval(groups, statistic)) if math.isfinite(value) else (None, None)


def of_presence(measure: Callable[[np.ndarray, np.ndarray], float], rows: np.ndarray) -> float:
    """A measure of (scores, present) from rows (n, 2) of both."""
    return measure(rows[:, 0], rows[:, 1] > 0)


def finite_median(values: np.ndarray) -> float:
    """Median of the finite values; NaN if there are none."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan


def worst(poses: Sequence[dict], name: str) -> float | None:
    """The largest error of the poses found; None if there are none."""
    return max((pose[name] for pose in poses if pose[name] is not None), default=None)
