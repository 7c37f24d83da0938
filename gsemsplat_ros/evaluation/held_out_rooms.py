"""Accuracy in held-out rooms: depth, pose, new views and queries, beside simple baselines.

The caller gives the rooms, as samples.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.evaluation.boxes import box_scores, boxes_of, true_boxes
from gsemsplat_ros.evaluation.metrics import (
    abs_rel,
    at_keyframe,
    best_constant,
    bootstrap_interval,
    delta1,
    direction_error_deg,
    iou,
    mean,
    median_scale,
    nearest,
    only_branch,
    psnr,
    random_iou,
    rotation_error_deg,
)
from gsemsplat_ros.evaluation.phrasings import ask_phrasings
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.relevancy import relative_mask

MIN_FRACTION = 0.01  # share of the image: names that cover less are not queried
ABSENT = 5  # absent names queried in every first view
# measure -> its meaning, in the order of the table; each a mean over the pairs that have it
MEASURES = {
    'abs_rel': 'depth of view 1 as rendered, in metres, no alignment',
    'abs_rel_aligned': 'the same after the median scale',
    'delta1': 'part of its pixels within a factor of 1.25 of the truth, no alignment',
    'coverage': 'part of the true depth of view 1 that was rendered at all',
    'stereo_abs_rel': 'abs_rel of rectified pairs',
    'free_abs_rel': 'abs_rel of free pairs',
    'constant_depth_abs_rel': 'abs_rel of the best constant for each image',
    'constant_depth_abs_rel_global': 'abs_rel of the best one constant for all images',
    'rotation_deg': 'error of the second camera of a free pair [degrees], where a pose was found',
    'direction_deg': 'error of the direction of its translation [degrees], where a pose was found',
    'pose_found_rate': "part of the free pairs with a pose; a rectified pair's is given",
    'psnr': 'the scene in true scale, drawn at the third pose, where view 1 or 2 sees the surface [dB]',
    'constant_colour_psnr': 'the mean colour of these pixels instead [dB]',
    'miou': 'of the published relative mask of a phrase, 0 where it was not found',
    'miou_argmax': 'every pixel takes its most relevant present name; pixels of other names left out',
    'random_label_miou': 'chance of miou_argmax: names at random over the pixels, in expectation',
    'localisation_accuracy': 'the peak lies on the thing, found or not',
    'random_localisation': 'chance of localisation_accuracy',
    'taught_localisation': 'localisation_accuracy of the names that training used',
    'taught_miou': 'miou of the names that training used',
    'new_localisation': 'localisation_accuracy of the other names',
    'new_miou': 'miou of the other names',
    'found_rate': 'part of the present names that were found',
    'false_alarm_rate': 'part of the absent names that were found',
    'box_precision': "part of the boxes of found names that are an instance's: 3D IoU of at least 0.25",
    'box_recall': 'part of the instances of found names in view 1 that have such a box',
    'box_count_error': '|boxes - instances in view 1| of a found name',
    'phrasing_localisation': 'the peak lies on any thing that the phrasing means',
    'phrasing_found_rate': 'part of the phrasings of present things that were found',
    'random_phrasing': 'chance of phrasing_localisation',
}


@dataclass
class Scores:
    """The results of one pair.

    truth: depth (h, w) m at the rendering's pixels; seconds: of building the scene; values: by measure;
    phrases: a row for each queried present name; absent: the scores of the absent names.
    """

    truth: np.ndarray
    seconds: float
    values: dict[str, list[float]] = field(default_factory=dict)
    phrases: list[dict] = field(default_factory=list)
    absent: list[float] = field(default_factory=list)

    def add(self, **values: float) -> None:
        """Append to `values`, by measure."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(float(value))


def evaluate_rooms(
    pipeline: Pipeline,
    samples: Iterable[Sample],
    *,
    seed: int = 0,
    branches: str = 'both',
    taught: frozenset[str] = frozenset(),
    calibrated: bool = True,
    nouns: dict[str, str] | None = None,
) -> dict:
    """Score `pipeline` on `samples` of rooms by MEASURES; shows a progress bar on a terminal.

    samples: all held in memory; a rectified pair has its baseline, two free views only their calibration.
    branches: 'both', or only 'region' or 'context'. taught: words that training used for objects; names of
    these words only count as taught, others as new. calibrated: False gives only the images, to measure the
    network without the help of calibration and matches. nouns: base noun of every name ('chair' for 'office
    chair'); if given, phrasings that training did not use (evaluation/phrasings.txt) are queried too, those
    that describe at least 1 % of view 1.

    Queries are every name on at least 1 % of view 1 (instances of the name and of its kinds together: an
    office chair is a chair), and five absent names per view, drawn from all names of the samples that share
    no word with a name in view 1 or 2.

    Boxes of a found name are compared with those around the visible part of each of its instances in view 1
    (evaluation/boxes.py), both along the axes of the first camera, with the scene in true scale.

    Returns the mean of each measure over all pairs (None if nothing counts) and 95 % bootstrap `intervals`
    by the same keys; by_name [{text, count, localised, iou, found}], most frequent first; pairs,
    stereo_pairs, seconds_pair and seconds_query (medians), seed, branches, calibrated.

    Raises ValueError without samples or for unknown branches.
    """
    samples = list(samples)
    if not samples:
        raise ValueError('no room to evaluate: wanted at least one sample')
    vocabulary = sorted({name for sample in samples for name in sample.names[1:]})
    scores: list[Scores] = []
    query_seconds: list[float] = []
    for index, sample in enumerate(tqdm(samples, unit='pair', desc='rooms', disable=None)):
        score, scene = score_pair(pipeline, sample, calibrated)
        scene = only_branch(scene, branches)
        absent = absent_names(sample, vocabulary, np.random.default_rng((seed, index)))
        query_seconds += score_words(score, pipeline, scene, sample, absent, taught)
        for row in ask_phrasings(pipeline, scene, sample, nouns, MIN_FRACTION) if nouns else ():
            score.add(
                phrasing_localisation=row['localised'],
                phrasing_found_rate=row['found'],
                random_phrasing=row['chance'],
            )
        scores.append(score)
    constant = best_constant(np.concatenate([score.truth.ravel() for score in scores]))
    for score in scores:
        score.add(constant_depth_abs_rel_global=abs_rel(np.full_like(score.truth, constant), score.truth))
    groups = {name: [score.values.get(name, []) for score in scores] for name in MEASURES}
    return {
        **{name: mean(groups[name]) for name in MEASURES},
        'pairs': len(scores),
        'stereo_pairs': sum(bool(sample.stereo) for sample in samples),
        'seconds_pair': float(np.median([score.seconds for score in scores])),
        'seconds_query': float(np.median(query_seconds)) if query_seconds else None,
        'seed': seed,
        'branches': branches,
        'calibrated': calibrated,
        'intervals': {name: bootstrap_interval(groups[name], seed) for name in MEASURES},
        'by_name': by_name([row for score in scores for row in score.phrases]),
    }


def score_pair(pipeline: Pipeline, sample: Sample, calibrated: bool = True) -> tuple[Scores, Scene]:
    """Build the scene of one sample and score depth, pose and the new view."""
    pair = sample.pair
    poses = sample.first_from_camera
    if not calibrated:
        pair = Pair(View(pair.first.image), View(pair.second.image))
    kind = 'stereo' if sample.stereo else 'free'
    start = time.perf_counter()
    scene = pipeline.build(pair)
    seconds = time.perf_counter() - start

    depth = scene.keyframe.rendering.depth.cpu().numpy()
    truth = at_keyframe(scene.keyframe, sample.depth[0])
    scale = median_scale(depth, truth)
    error = abs_rel(depth, truth)
    scores = Scores(truth, seconds)
    scores.add(
        abs_rel=error,
        abs_rel_aligned=abs_rel(depth * scale, truth),
        delta1=delta1(depth, truth),
        coverage=np.isfinite(depth[truth > 0]).mean(),
        **{f'{kind}_abs_rel': error},
        constant_depth_abs_rel=abs_rel(np.full_like(truth, best_constant(truth)), truth),
    )
    if kind == 'free':
        motion = scene.first_from_second
        scores.add(pose_found_rate=motion is not None)
        if motion is not None:
            scores.add(
                rotation_deg=rotation_error_deg(motion, poses[1]),
                direction_deg=direction_error_deg(motion, poses[1]),
            )
    seen = sample.target_seen()
    target = sample.images[2] / 255
    if seen.any():
        aligned = scene.gaussians.scaled(scale if np.isfinite(scale) else 1.0)
        picture = render(aligned, sample.camera, np.linalg.inv(poses[2])).rgb.cpu().numpy().clip(0, 1)
        color = np.broadcast_to(target[seen].mean(0), target.shape)
        scores.add(psnr=psnr(picture, target, seen), constant_colour_psnr=psnr(color, target, seen))
    return scores, scene


def score_words(
    scores: Scores,
    pipeline: Pipeline,
    scene: Scene,
    sample: Sample,
    absent: list[str],
    taught: frozenset[str],
) -> list[float]:
    """Query the names in view 1 and the `absent` ones, and add their scores; returns seconds per query."""
    texts = sorted(set(sample.names[1:]))
    row_of = np.array([-1] + [texts.index(name) for name in sample.names[1:]])
    full = row_of[sample.instance[0]]  # (H, W)
    labels = at_keyframe(scene.keyframe, full)  # (h, w)
    present = [row for row in range(len(texts)) if (labels == row).mean() >= MIN_FRACTION]
    depth = scene.keyframe.rendering.depth.cpu().numpy()
    scale = median_scale(depth, at_keyframe(scene.keyframe, sample.depth[0]))
    surface = sample.points(0)
    seconds: list[float] = []
    maps: list[np.ndarray] = []

    def ask(text: str) -> Answer:
        start = time.perf_counter()
        answer = pipeline.query(scene, text)
        seconds.append(time.perf_counter() - start)
        return answer

    for row in present:
        # an office chair is a chair
        kind = [i for i, text in enumerate(texts) if words(texts[row]) <= words(text)]
        answer, truth = ask(texts[row]), np.isin(labels, kind)
        assert answer.picture is not None  # of a scene
        relevancy, peak = answer.picture.relevancy, answer.peak_pixel
        localised = peak is not None and bool(nearest(full, np.array(peak)) in kind)
        mask_iou = iou(relative_mask(relevancy), truth) if peak is not None else 0.0
        overlap = mask_iou if answer.found else 0.0
        scores.add(
            localisation_accuracy=localised,
            miou=overlap,
            found_rate=answer.found,
            random_localisation=truth.mean(),
        )
        if answer.found:
            true = true_boxes(surface, sample.instance[0], np.flatnonzero(np.isin(row_of, kind)))
            for measure, values in box_scores(boxes_of(answer.objects, scale), true).items():
                scores.values.setdefault(measure, []).extend(values)
        side = 'taught' if words(texts[row]) <= taught else 'new'
        scores.add(**{f'{side}_localisation': localised, f'{side}_miou': overlap})
        scores.phrases.append(
            {
                'text': texts[row],
                'localised': localised,
                'iou': overlap,
                'found': answer.found,
                'mask_iou': mask_iou,
                'score': answer.score,
            }
        )
        maps.append(np.nan_to_num(relevancy, nan=-1.0))
    if present:
        stack = np.stack(maps)
        chosen = np.where(stack.max(0) >= 0, np.array(present)[stack.argmax(0)], -1)  # -1: nothing rendered
        asked = np.isin(labels, present)
        for row in present:
            truth = labels[asked] == row
            scores.add(
                miou_argmax=iou(chosen[asked] == row, truth),
                random_label_miou=random_iou(truth.mean(), len(present)),
            )
    for text in absent:
        answer = ask(text)
        scores.add(false_alarm_rate=answer.found)
        scores.absent.append(answer.score)
    return seconds


def absent_names(sample: Sample, vocabulary: list[str], rng: np.random.Generator) -> list[str]:
    """Up to ABSENT random names that share no word with a name in view 1 or 2: an office chair is a chair."""
    rows = np.unique(sample.instance[:2])
    seen = {word for row in rows if row > 0 for word in words(sample.names[row])}
    candidates = [name for name in vocabulary if not seen & words(name)]
    return [str(name) for name in rng.permutation(candidates)[:ABSENT]]


def words(name: str) -> set[str]:
    """The lower-case words of a name."""
    return set(re.findall(r"[a-z']+", name.lower()))


def by_name(rows: list[dict]) -> list[dict]:
    """Means of the rows by text, most frequent first."""
    texts: dict[str, list[dict]] = {}
    for row in rows:
        texts.setdefault(row['text'], []).append(row)
    table = [
        {
            'text': text,
            'count': len(group),
            **{key: float(np.mean([row[key] for row in group])) for key in ('localised', 'iou', 'found')},
        }
        for text, group in texts.items()
    ]
    return sorted(table, key=lambda row: (-row['count'], row['text']))
