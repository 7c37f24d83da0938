"""The published evaluation on annotated views of ScanNet++ (or scenes in that layout), with baselines.

All scores have two forms, published and corrected (evaluation/corrected.py, evaluation/image_quality.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gsemsplat_ros.evaluation.annotated_views import (
    AnnotatedView,
    Inputs,
    annotation_files,
    find_scenes,
    read_cameras,
    read_view,
)
from gsemsplat_ros.evaluation.corrected import EIGHT, evaluate_corrected, evaluate_eight
from gsemsplat_ros.evaluation.image_quality import COLOR_SCORES, Perceptual, color_scores
from gsemsplat_ros.evaluation.methods import Method, Shown
from gsemsplat_ros.evaluation.metrics import bootstrap_interval, mean
from gsemsplat_ros.evaluation.published import THRESHOLD, FrameScores, evaluate_frame

CHANCE = 'chance'  # a random pixel, everything visible as the mask, the mean colour
# columns of a phrase's row, and the names of their means over scenes
WORDS = ('iou', 'localised', 'corrected_iou', 'corrected_localised')
WORD_MEANS = ('miou', 'localisation_accuracy', 'corrected_miou', 'corrected_localisation_accuracy')
VIEW_MEANS = ('eight_miou', 'eight_accuracy', *COLOR_SCORES)  # of whole views
MEANS = (*WORD_MEANS, *VIEW_MEANS)


@dataclass(frozen=True)
class MethodResult:
    """Scores of one method in one view; None for what the method lacks.

    words: a row for each phrase that counts in at least one form; colors: of `color_scores`; eight: of
    `evaluate_eight`; picture (H, W, 3) uint8 RGB; published, corrected: the scores behind the rows.
    """

    name: str
    words: list[dict] | None = None
    colors: dict[str, float] | None = None
    eight: dict | None = None
    picture: np.ndarray | None = None
    published: FrameScores | None = None
    corrected: FrameScores | None = None


@dataclass(frozen=True)
class FrameResult:
    """One annotated view with the scores of all methods; inputs: None if saved features were scored."""

    frame: AnnotatedView
    inputs: Inputs | None
    methods: list[MethodResult] = field(default_factory=list)


def evaluate_frames(
    folder: str | Path,
    methods: Sequence[Method],
    find: Callable[[Path, AnnotatedView], Inputs | None] | None,
    threshold: float = THRESHOLD,
    eight: bool = False,
    perceptual: Perceptual | None = None,
) -> Iterator[FrameResult]:
    """Score every annotated view below `folder` (evaluation/annotated_views.py), one after the other.

    find: (scene folder, view) -> inputs, for scenes without cameras.json; None to score saved features.
    threshold: of the published masks (0.5; LangSplat 0.4); eight: also the eight classes of LSM; perceptual:
    LPIPS, as in `color_scores`.

    Raises ValueError for missing or inconsistent files.
    """
    # read everything before scoring, so that an error in the last scene appears at once
    views = [(scene, read_view(path)) for scene in find_scenes(folder) for path in annotation_files(scene)]
    for scene, frame in views:
        inputs = None if find is None else read_cameras(scene, frame) or find(scene, frame)
        result = FrameResult(frame, inputs)
        for method in methods:
            asked = [*frame.phrases, *(EIGHT if eight else ())]
            shown = method.show(frame, inputs, scene, asked)
            result.methods.append(score(method.name, frame, shown, threshold, eight, perceptual))
        result.methods.append(chance(frame))
        yield result


def score(
    name: str,
    frame: AnnotatedView,
    shown: Shown,
    threshold: float,
    eight: bool,
    perceptual: Perceptual | None,
) -> MethodResult:
    """The scores of one method in one view."""
    result = MethodResult(name)
    if shown.rgb is not None:
        result = replace(
            result,
            colors=color_scores(shown.rgb, frame.image / 255, frame.visible, perceptual),
            picture=np.rint(np.clip(shown.rgb, 0, 1) * 255).astype(np.uint8),
        )
    if shown.relevancy is not None:
        count = len(frame.phrases)
        asked, classes = shown.relevancy[:, :count], shown.relevancy[:, count:]
        polygons = [frame.polygons[text] for text in frame.phrases]
        published = evaluate_frame(asked, polygons, frame.visible, threshold)
        corrected = evaluate_corrected(asked, polygons, frame.visible, shown.alpha, threshold)
        result = replace(
            result,
            words=word_rows(frame.phrases, published, corrected),
            eight=evaluate_eight(classes, frame.polygons, frame.visible) if eight else None,
            published=published,
            corrected=corrected,
        )
    return result


def word_rows(phrases: Sequence[str], published: FrameScores, corrected: FrameScores) -> list[dict]:
    """A row for each phrase that counts in at least one form."""
    return [
        {
            'text': text,
            **word(published, k),
            'head': int(published.branch[k]),
            'found': bool(corrected.found[k].any()),
            **{f'corrected_{key}': value for key, value in word(corrected, k).items()},
        }
        for k, text in enumerate(phrases)
        if np.isfinite(published.iou[k]) or np.isfinite(corrected.iou[k])
    ]


def word(scores: FrameScores, k: int) -> dict:
    """The scores of phrase k; None if it does not count."""
    counts = bool(np.isfinite(scores.iou[k]))
    return {
        'iou': float(scores.iou[k]) if counts else None,
        'localised': bool(scores.localised[k]) if counts else None,
    }


def chance(frame: AnnotatedView) -> MethodResult:
    """Scores without a method: a random visible pixel as the peak (`localised` is its expected value), all
    visible pixels as the mask, their mean colour as the picture."""
    nothing = np.zeros((1, len(frame.phrases), *frame.visible.shape), np.float32)
    polygons = [frame.polygons[text] for text in frame.phrases]
    scores = (
        evaluate_frame(nothing, polygons, frame.visible),
        evaluate_corrected(nothing, polygons, frame.visible),
    )
    share = [
        [float(truth.sum() / frame.visible.sum()) if truth.any() else None for truth in each.truth]
        for each in scores
    ]
    words = [
        {
            'text': text,
            'iou': share[0][k],
            'localised': share[0][k],
            'head': 0,
            'found': True,
            'corrected_iou': share[1][k],
            'corrected_localised': share[1][k],
        }
        for k, text in enumerate(frame.phrases)
        if share[0][k] is not None or share[1][k] is not None
    ]
    if not frame.visible.any():
        return MethodResult(CHANCE, words)
    truth = frame.image / 255
    flat = np.broadcast_to(truth[frame.visible].mean(0), truth.shape)
    return MethodResult(CHANCE, words, color_scores(flat, truth, frame.visible))


def summarise(results: Iterable[FrameResult]) -> dict:
    """The scores over all views.

    miou, localisation_accuracy and their corrected forms: mean over the phrases of a scene that count, then
    over scenes; eight_* and colour scores: mean over views. Intervals (95 %): bootstrap over scenes, or over
    the views of a single scene; None for fewer than two.

    Returns scenes, frames; methods [{name, each of MEANS, phrases: number that count, intervals}]; phrases: a
    row for each view, method and phrase {scene, frame, method, text, iou, localised, head, corrected_iou,
    corrected_localised, found}; views: a row for each view and method with its colour and eight-class scores;
    dropped: queries without annotation.
    """
    phrases, views, dropped = [], [], []
    names: dict[str, None] = {}
    for result in results:
        where = {'scene': result.frame.scene, 'frame': result.frame.name}
        dropped += [{**where, 'text': text} for text in result.frame.dropped]
        for method in result.methods:
            names[method.name] = None
            phrases += [{**where, 'method': method.name, **row} for row in method.words or ()]
            views.append(
                {
                    **where,
                    'method': method.name,
                    **(method.colors or {}),
                    **{f'eight_{key}': value for key, value in (method.eight or {}).items()},
                }
            )
    several = len({row['scene'] for row in views}) > 1
    table = [
        method_row(
            name,
            [row for row in phrases if row['method'] == name],
            [row for row in views if row['method'] == name],
            'scene' if several else 'frame',
        )
        for name in names
    ]
    return {
        'scenes': len({row['scene'] for row in views}),
        'frames': len({(row['scene'], row['frame']) for row in views}),
        'methods': table,
        'phrases': phrases,
        'views': views,
        'dropped': dropped,
    }


def method_row(name: str, phrases: Sequence[dict], views: Sequence[dict], group: str) -> dict:
    """The row of one method from its `phrases` and `views`; group: 'scene', or 'frame' for a single scene."""
    values: dict[str, list[list[float]]] = {}
    for measure, column in zip(WORD_MEANS, WORDS):
        values[measure] = list(grouped(phrases, column, group).values())
        if group == 'scene':  # scenes have equal weight, whatever their number of phrases
            values[measure] = [[float(np.mean(scores))] for scores in values[measure]]
    for measure in VIEW_MEANS:
        values[measure] = list(grouped(views, measure, group).values())
    return {
        'name': name,
        **{measure: mean(groups) for measure, groups in values.items()},
        'phrases': sum(row['iou'] is not None for row in phrases),
        'intervals': {measure: bootstrap_interval(groups) for measure, groups in values.items()},
    }


def grouped(rows: Sequence[dict], key: str, group: str) -> dict[str, list[float]]:
    """Finite values of the column `key`, by the column `group`."""
    out: dict[str, list[float]] = {}
    for row in rows:
        if row.get(key) is not None and np.isfinite(row[key]):
            out.setdefault(row[group], []).append(float(row[key]))
    return out
