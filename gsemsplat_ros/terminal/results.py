"""The results of `infer` and `demo`: tables of answers, and the reports."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from gsemsplat_ros.report.house_page import house_page
from gsemsplat_ros.report.house_result import HouseResult
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


def house_table(console: Console, result: HouseResult) -> None:
    """Print a line for each word, and what became of the drive."""
    rows = [
        (
            word.text,
            word.verdict,
            f'{word.score:.3f}',
            '-' if word.off is None else f'{word.off:.2f}',
            '-' if word.beside is None else f'{word.beside:.2f}',
            word.standing,
        )
        for word in result.words
    ]
    console.table(rows, ('query', 'answer', 'score', 'from its middle [m]', 'from its sides [m]', 'standing'))
    drive = result.drive
    if drive is None:
        console.say(f'the robot was sent nowhere: {result.refused or "nothing was found"}')
        return
    beside = '' if drive.beside is None else f', {drive.beside:.2f} m before the {drive.asked}'
    console.say(
        f'driven to the {drive.asked}: {drive.length:.1f} m; arrived {drive.off:.2f} m and '
        f'{drive.turn_off:.0f} degrees from the goal{beside}'
    )


def write_house_page(path: Path, result: HouseResult, card: dict, command_line: Sequence[str]) -> None:
    """Write the HTML report of `demo --house` to `path`."""
    write_text(path, house_page(result, card, versions(), shlex.join(command_line)))
