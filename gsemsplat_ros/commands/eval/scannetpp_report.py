"""The output of `gsemsplat eval scannetpp`: tables on the terminal, and a report with pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gsemsplat_ros.commands.eval.shared import score_cell
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.evaluation.annotated_scores import FrameResult
    from gsemsplat_ros.report.markup import Markup

# title -> (measure, its name in the table); parentheses as in the paper: over the visible pixels only
TABLES = {
    'words, as published': (('miou', 'mIoU'), ('localisation_accuracy', 'localisation')),
    'words, corrected': (('corrected_miou', 'mIoU'), ('corrected_localisation_accuracy', 'localisation')),
    "words, LSM's eight classes": (('eight_miou', 'mIoU'), ('eight_accuracy', 'accuracy')),
    'colours, corrected': (('psnr', 'PSNR [dB]'), ('ssim', 'SSIM'), ('lpips', 'LPIPS')),
    'colours, as published': (
        ('psnr_plain', 'PSNR [dB]'),
        ('psnr_masked', '(PSNR)'),
        ('ssim_plain', 'SSIM'),
        ('lpips_plain', 'LPIPS'),
        ('lpips_masked', '(LPIPS)'),
    ),
}


def view_section(result: FrameResult) -> Markup:
    """The section of one view in the report: queries of the first method, pictures of all."""
    from gsemsplat_ros.report.evaluation_page import PhrasePictures, section

    first = result.methods[0]
    frame, published = result.frame, first.published
    assert published is not None and first.words is not None  # the first method has relevancy
    others = (
        []
        if result.inputs is None
        else [('first input', result.inputs.first.image), ('second input', result.inputs.second.image)]
    )
    others += [(method.name, method.picture) for method in result.methods if method.picture is not None]
    branches = (
        ('both branches, mixed',)
        if len(published.maps) == 1
        else ('region-specific branch', 'context-aware branch')
    )
    rows = {row['text']: row for row in first.words}
    phrases = []
    for k, text in enumerate(frame.phrases):
        row = rows.get(text, dict.fromkeys(('iou', 'localised', 'corrected_iou', 'corrected_localised')))
        branch = published.branch[k]
        phrases.append(
            PhrasePictures(
                text,
                published.maps[branch, k],
                published.found[k],
                published.truth[k],
                published.peaks[k],
                branches[branch],
                row['iou'],
                row['localised'],
                row['corrected_iou'],
                row['corrected_localised'],
            )
        )
    return section(f'Scene {frame.scene}, view {frame.name}', frame.image, others, phrases)


def shown_tables(
    summary: dict[str, Any],
) -> Iterator[tuple[str, Sequence[tuple[str, str]], list[tuple[str, ...]]]]:
    """Titles, columns and rows of the tables, without measures that no method has."""
    for title, columns in TABLES.items():
        known = [
            (key, name)
            for key, name in columns
            if any(method[key] is not None for method in summary['methods'])
        ]
        if known:
            yield (
                title,
                known,
                [
                    (method['name'], *(score_cell(method[key], method['intervals'][key]) for key, _ in known))
                    for method in summary['methods']
                ],
            )


def show(summary: dict[str, Any], console: Console) -> None:
    """Print all methods with 95 % intervals, and a row per phrase."""
    console.say(
        f'{count(summary["frames"], "view")} of {count(summary["scenes"], "scene")}, mean [95 % interval]'
    )
    for title, columns, rows in shown_tables(summary):
        console.say()
        console.table(rows, (title, *(name for _, name in columns)))
    console.say()
    first = summary['methods'][0]['name']
    console.table(
        [
            (
                row['scene'],
                row['frame'],
                row['text'],
                row['iou'],
                row['localised'],
                row['corrected_iou'],
                row['corrected_localised'],
            )
            for row in summary['phrases']
            if row['method'] == first
        ],
        ('scene', 'view', f'phrase ({first})', 'IoU', 'localised', 'corrected', 'localised'),
    )
    if summary['dropped']:
        console.say(
            'not annotated, so not asked: '
            + ', '.join('{scene}/{frame} {text}'.format(**row) for row in summary['dropped'][:8])
            + (f' and {len(summary["dropped"]) - 8} more' if len(summary['dropped']) > 8 else '')
        )
    for note in summary['notes']:
        console.note(note)


def count(number: int, noun: str) -> str:
    """Number and noun, such as '3 views'."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def evaluation_page(summary: dict[str, Any], sections: Sequence[Markup], command_line: Sequence[str]) -> str:
    """The HTML of the report; `sections`: from view_section."""
    from gsemsplat_ros.report.evaluation_page import EvaluationPage, page
    from gsemsplat_ros.terminal.versions import versions

    tables = [
        (
            title,
            ('', *((name,) for _, name in columns)),
            [(row[0], *((text,) for text in row[1:])) for row in rows],
        )
        for title, columns, rows in shown_tables(summary)
    ]
    views = f'{count(summary["frames"], "annotated view")} of {count(summary["scenes"], "scene")}'
    lead = (
        f'{views}, scored as published and corrected. '
        'Numbers are means, with 95 % intervals where there are several scenes or views.'
    )
    given = {'features': 'saved features'}.get(
        summary['source'], 'calibrated images with their poses' if summary['calibrated'] else 'images alone'
    )
    facts = [
        ('checkpoint', summary['weights'] or '-'),
        ('text encoder', summary['text_encoder']),
        ('given', given),
        ('threshold of the published masks', f'{summary["threshold"]:g}'),
        *versions().items(),
    ]
    return page(
        EvaluationPage(
            'Words and new views, scored',
            lead,
            tables,
            summary['notes'],
            sections,
            facts,
            shlex.join(command_line),
        )
    )
