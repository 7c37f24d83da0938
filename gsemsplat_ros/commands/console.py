"""What a command says: results on stdout as tables or as one line of JSON, notes and progress on stderr."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence

from tqdm import tqdm


class Failure(Exception):
    """A command could not do its work and says why in one line; not the user's mistake (that is a ValueError)."""


class Console:
    """as_json: the result as one JSON object, the last line on stdout, and no tables; quiet: no notes, no progress."""

    def __init__(self, as_json: bool = False, quiet: bool = False):
        self.as_json, self.quiet = as_json, quiet

    def note(self, text: str) -> None:
        """What is going on, for a person who waits."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def progress(self, total: int, unit: str, title: str) -> tqdm:
        """A bar on stderr, on a terminal only; `update()` it, and use it in a `with`."""
        return tqdm(total=total, unit=unit, desc=title, leave=False, disable=True if self.quiet else None)

    def say(self, text: str = '') -> None:
        """A line of the result for people."""
        if not self.as_json:
            print(text)

    def table(self, rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
        """Columns aligned: numbers to the right, words to the left."""
        if self.as_json or not rows:
            return
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*filter(None, (header, *cells)))]
        right = [all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column)
                 for column in zip(*rows)]

        def line(row: Sequence[str]) -> str:
            return '  '.join(cell.rjust(width) if to_right else cell.ljust(width)
                             for cell, width, to_right in zip(row, widths, right)).rstrip()

        if header:
            print(_bold(line(header)))
        for row in cells:
            print(line(row))

    def result(self, result: dict) -> None:
        """The JSON object of a command run with --json."""
        if self.as_json:
            print(json.dumps(without_nan(result), allow_nan=False), flush=True)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """--json and --quiet, the same for every command."""
    group = parser.add_argument_group('output')
    group.add_argument('--json', action='store_true',
                       help='print the result as one JSON object, the last line of stdout')
    group.add_argument('--quiet', action='store_true', help='no notes and no progress bar')


def positive(text: str) -> float:
    """An argparse type: a number above zero."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not above zero')
    return number


def at_least_one(text: str) -> int:
    """An argparse type: a whole number from one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is less than one')
    return number


def without_nan(value: object) -> object:
    """`value` as JSON can hold it: NaN and infinities become null, tuples lists."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: object) -> str:
    if value is None:
        return '-'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _bold(text: str) -> str:
    return f'\033[1m{text}\033[0m' if sys.stdout.isatty() and 'NO_COLOR' not in os.environ else text
