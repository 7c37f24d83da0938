"""What a command says: results on stdout as tables or as one line of JSON, notes and progress on stderr."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence

from tqdm import tqdm

NARROWEST = 20  # columns in which words are still wrapped
JOINERS = '\u200c\u200d'  # invisible, and part of how some scripts are written


class Failure(Exception):
    """A command could not do its work and says why in one line; not the user's mistake (that is a
    ValueError).
    """


class Console:
    """as_json: the result as one JSON object, the last line on stdout, and no tables; quiet: no notes, no
    progress.
    """

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
        """Columns aligned: numbers to the right, words to the left. On a terminal, words of the last column
        that do not fit go on below themselves."""
        if self.as_json or not rows:
            return
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(map(width, column)) for column in zip(*filter(None, (header, *cells)))]
        right = [
            all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column)
            for column in zip(*rows)
        ]

        def line(row: Sequence[str]) -> str:
            fills = [' ' * (wide - width(cell)) for cell, wide in zip(row, widths)]
            return '  '.join(
                fill + cell if to_right else cell + fill for cell, fill, to_right in zip(row, fills, right)
            ).rstrip()

        if header:
            print(_bold(line(header)))
        indent = sum(widths[:-1]) + 2 * len(widths[:-1])
        room = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() and not right[-1] else 0
        for row in cells:
            first, *more = (textwrap.wrap(row[-1], room) if room >= NARROWEST else row[-1:]) or ['']
            print(line([*row[:-1], first]))
            for words in more:
                print(' ' * indent + words)

    def result(self, result: dict) -> None:
        """The JSON object of a command run with --json."""
        if self.as_json:
            print(json.dumps(without_nan(result), allow_nan=False), flush=True)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """--json and --quiet, the same for every command."""
    group = parser.add_argument_group('output')
    group.add_argument(
        '--json', action='store_true', help='print the result as one JSON object, the last line of stdout'
    )
    group.add_argument('--quiet', action='store_true', help='print no notes and no progress bar')


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--weights and --text-checkpoint, the same for every command that loads a network with its words."""
    parser.add_argument('--weights', metavar='FILE', help='checkpoint (default: the shipped network)')
    parser.add_argument(
        '--text-checkpoint', metavar='FILE', help='OpenCLIP file, for checkpoints that need OpenCLIP'
    )


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


def width(text: str) -> int:
    """The columns that a terminal gives to printable `text`: two to a character of East Asian width (Unicode
    annex 11), none to one that combines with the one before it or joins two."""
    return sum(
        0
        if unicodedata.category(c) in ('Mn', 'Me', 'Cf')
        else 2
        if unicodedata.east_asian_width(c) in 'WF'
        else 1
        for c in text
    )


def printable(text: str) -> str:
    """`text` in one line, without what would steer the terminal: words of a query and names of files may hold
    anything.
    """
    return ''.join(c if c.isprintable() or c in JOINERS else ' ' if c.isspace() else '\ufffd' for c in text)


def _cell(value: object) -> str:
    if value is None:
        return '-'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return f'{value:.4g}' if isinstance(value, float) else printable(str(value))


def _bold(text: str) -> str:
    """Bold where a person reads it on a terminal that can (no-color.org)."""
    plain = not sys.stdout.isatty() or os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb'
    return text if plain else f'\033[1m{text}\033[0m'
