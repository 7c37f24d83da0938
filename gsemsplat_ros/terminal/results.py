"""The results of `infer` and `demo`: the table of answers and the report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from gsemsplat_ros.report.pair_page import PairReport, page
from gsemsplat_ros.report.pair_result import PairResult
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.terminal.console import Console
from gsemsplat_ros.terminal.output import write_text
from gsemsplat_ros.terminal.versions import versions


def answers_table(console: Console, results: Sequence[PairResult]) -> None:
    """Print a line for each query: found or not, score, peak, distance, number of objects."""
    rows = []
    for result in results:
        for answer in (reported.answer for reported in result.answers):
            pixel = '-' if answer.peak_pixel is None else '{:.0f}, {:.0f}'.format(*answer.peak_pixel)
            distance = '-' if answer.peak_point is None else f'{math.hypot(*answer.peak_point):.2f}'
            doubt = '' if result.metric else ' (not metric)'
            distance += '' if distance == '-' else ' (guessed)' if answer.guessed else doubt
            rows.append(
                (
                    result.name,
                    answer.text,
                    answer.state,
                    f'{answer.score:.3f}',
                    pixel,
                    distance,
                    len(answer.objects),
                )
            )
    console.table(rows, ('pair', 'query', 'answer', 'score', 'peak [px]', 'distance [m]', 'objects'))
    say_notes(console, (reported.answer for result in results for reported in result.answers))


def say_notes(console: Console, answers: Iterable[Answer]) -> None:
    """Print what of the queries was not understood, once each."""
    for text, note in dict.fromkeys((answer.text, answer.note) for answer in answers if answer.note):
        console.say(f"'{text}': {note}")


def write_page(
    path: Path, title: str, results: Sequence[PairResult], card: dict, command_line: Sequence[str]
) -> None:
    """Write the HTML report to `path`."""
    write_text(path, page(PairReport(title, tuple(results), card, versions(), shlex.join(command_line))))
