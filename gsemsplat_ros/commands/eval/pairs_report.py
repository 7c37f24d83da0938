"""The output of `gsemsplat eval pairs`: the table, and a report with a picture of each phrase."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.evaluation.labelled_pairs import PairScores
    from gsemsplat_ros.evaluation.pair_labels import LabelledPair
    from gsemsplat_ros.report.markup import Markup

HEADER = ('measure', 'this network', '95 % interval', 'chance', 'untrained classifier')
CHANCE_AUC = 0.5


def rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """A row for each measure, beside chance and the untrained classifier; see HEADER."""
    from gsemsplat_ros.evaluation.labelled_pairs import MEASURES

    beside = {
        'localisation_accuracy': (result['chance'], result['classifier_localisation']),
        'presence_auc': (CHANCE_AUC, result['classifier_presence_auc']),
    }
    for name in MEASURES:
        interval = result['intervals'][name]
        chance, classifier = beside.get(name, (None, None))
        yield (
            name,
            number(result[name]),
            '{:.3f} to {:.3f}'.format(*interval) if interval else '-',
            number(chance),
            number(classifier),
        )


def number(value: float | None) -> str:
    """A score as text, '-' for none."""
    return '-' if value is None else f'{value:.3f}'


def show(result: dict[str, Any], console: Console) -> None:
    """Print the measures, and what was measured."""
    console.table(list(rows(result)), HEADER)
    console.table(
        [
            (name, value)
            for name, value in result.items()
            if name not in result['intervals'] and not isinstance(value, (dict, list))
        ]
    )


def view_section(labelled: LabelledPair, scores: PairScores) -> Markup:
    """The section of one pair in the report."""
    from gsemsplat_ros.pictures.heat import heat
    from gsemsplat_ros.pictures.overlay import overlay
    from gsemsplat_ros.report.pairs_page import JudgedAnswer, pair_section

    assert scores.scene is not None, 'a section is made while the scene is there'
    keyframe = scores.scene.keyframe
    boxes = {thing.text: thing.boxes for thing in labelled.objects}
    judged = []
    for row, answer in zip(scores.phrases, scores.answers):
        assert answer.picture is not None, 'a scene answers with a picture'
        level = heat(answer.picture.relevancy, answer.found or row['present'])  # a miss is to be seen
        notes = [answer.note] if answer.note else []
        if answer.peak_pixel is not None:
            notes.append('peak at {:.0f}, {:.0f}'.format(*answer.peak_pixel))
        if row['present']:
            notes.append('in a box' if row['localised'] else 'outside the boxes')
        if 'classifier_localised' in row:
            notes.append('classifier ' + ('in a box' if row['classifier_localised'] else 'outside'))
        judged.append(
            JudgedAnswer(
                answer,
                overlay(keyframe.image, keyframe.window.expand(level)),
                boxes.get(row['text'], ()),
                row.get('localised', False),
                ', '.join(notes),
            )
        )
    images = labelled.pair.first.image, labelled.pair.second.image
    return pair_section(labelled.name, list(facts(scores)), images, judged)


def facts(scores: PairScores) -> Iterator[str]:
    """Time, scale, pose and depth of one pair, in words."""
    assert scores.scene is not None
    scene = scores.scene
    yield (
        f'{scores.seconds:.2f} s · scale from: {scene.scale_source} · focal length '
        f'{scene.keyframe.input_camera.fx:.0f} px from: {scene.focal_source}'
    )
    if (pose := scores.pose) is not None:
        if pose['found']:
            yield (
                f'pose: rotation {number(pose["rotation_deg"])} deg off, direction '
                f'{number(pose["direction_deg"])} deg off, distance x {number(pose["scale_ratio"])}'
            )
        else:
            yield 'pose: not found'
    if (depth := scores.depth) is not None:
        yield (
            f'depth: abs-rel {number(depth["abs_rel_aligned"])} aligned, '
            f'{number(depth["abs_rel_metric"])} metric'
        )


def notes(result: dict[str, Any]) -> Iterator[str]:
    """The wrong answers, by kind."""
    kinds = {
        'False alarms': [row for row in result['phrases'] if row['found'] and not row['present']],
        'Found elsewhere': [
            row for row in result['phrases'] if row['found'] and row.get('localised') is False
        ],
        'Missed': [row for row in result['phrases'] if row['present'] and not row['found']],
    }
    for kind, wrong in kinds.items():
        if wrong:
            named = (f'{row["text"]} ({row["pair"]}, {row["score"]:.2f})' for row in wrong)
            yield f'{kind}: ' + ', '.join(named)


def pairs_page(
    result: dict[str, Any], sections: Sequence[Markup], weights: str, command_line: Sequence[str]
) -> str:
    """The HTML of the report; `sections`: from view_section; `weights`: file of the checkpoint."""
    from gsemsplat_ros.evaluation.labelled_pairs import MEASURES
    from gsemsplat_ros.report.evaluation_page import EvaluationPage, page
    from gsemsplat_ros.terminal.versions import versions

    header = (HEADER[0], *((name,) for name in HEADER[1:]), 'meaning')
    table = [
        (row[0].replace('_', ' '), *((text,) for text in row[1:]), MEASURES[row[0]]) for row in rows(result)
    ]
    worst = ', '.join(number(result[f'worst_{name}']) for name in ('rotation_deg', 'direction_deg'))
    facts = [
        ('checkpoint', weights),
        ('branches', result['branches']),
        ('given', 'images with their calibration' if result['calibrated'] else 'images alone'),
        ('labels', result['labels']),
        ('worst rotation and direction of a pose found [degrees]', worst),
        ('seconds a pair, median', f'{result["seconds_pair"]:.2f}'),
        *versions().items(),
    ]
    return page(
        EvaluationPage(
            'Real pairs, scored',
            f'{result["pairs"]} labelled pairs of real images. The boxes of what a phrase names are dashed, '
            'a ring marks the peak of its relevancy, found or not; wrong answers have a frame.',
            [('all pairs', header, table)],
            list(notes(result)),
            sections,
            facts,
            shlex.join(command_line),
        )
    )
