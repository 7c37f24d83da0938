"""Output of a command: results on stdout as tables or one line of JSON, notes and progress on stderr.

What is printed may come from a file or another node: no control character of it reaches the terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from gsemsplat_ros.terminal.json_values import without_nan

NARROWEST = 20  # columns in which words are still wrapped
JOINERS = '\u200c\u200d'  # invisible, but needed by some scripts


class Failure(Exception):
    """A command failed, with the reason in one line; errors of the user are ValueErrors instead."""


class Console:
    """as_json: print the result as one JSON object in the last line, no tables; quiet: no notes and bars."""

    def __init__(self, as_json: bool = False, quiet: bool = False):
        self.as_json, self.quiet = as_json, quiet

    def note(self, text: str) -> None:
        """Print a note on stderr, for a person who waits."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print on stderr what even who wants no notes has to know."""
        tqdm.write(printable_lines(text), file=sys.stderr)  # above a bar, if there is one

    def progress(self, total: int, unit: str, title: str) -> tqdm:
        """A progress bar on stderr, only on a terminal, for use in a `with`; `update()` counts."""
        return tqdm(total=total, unit=unit, desc=title, leave=False, disable=True if self.quiet else None)

    @contextmanager
    def steps(self, title: str) -> Iterator[Callable[[str], None]]:
        """Yields a function to call with a description before each step, if their number is unknown."""
        with self.progress(0, 'step', title) as bar:

            def step(text: str) -> None:
                bar.set_postfix_str(printable(text))
                bar.update()

            yield step

    def say(self, text: str = '') -> None:
        """Print a line of the result, unless it is printed as JSON."""
        if not self.as_json:
            print(printable_lines(text))

    def table(self, rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
        """Print aligned columns, numbers to the right, words to the left. On a terminal, text that does not
        fit into the last column is wrapped there."""
        if self.as_json or not rows:
            return
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(map(width, column)) for column in zip(*filter(None, (header, *cells)))]
        right = [all(map(_is_number, column)) for column in zip(*rows)]
        if header:
            print(_bold(_aligned(header, widths, right)))
        indent = sum(widths[:-1]) + 2 * len(widths[:-1])
        room = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() and not right[-1] else 0
        for row in cells:
            first, *more = _wrapped(row[-1], room)
            print(_aligned([*row[:-1], first], widths, right))
            for words in more:
                print(' ' * indent + words)

    def result(self, result: dict) -> None:
        """Print the result as JSON if the command has --json."""
        if self.as_json:
            print(json.dumps(without_nan(result), allow_nan=False), flush=True)


def width(text: str) -> int:
    """The columns of printable `text` on a terminal: two for a character of East Asian width (Unicode annex
    11), none for a combining or joining one, else one."""
    return sum(
        0
        if unicodedata.category(c) in ('Mn', 'Me', 'Cf')
        else 2
        if unicodedata.east_asian_width(c) in 'WF'
        else 1
        for c in text
    )


def printable(text: str) -> str:
    """`text` in one line without control characters, which queries and file names may contain."""
    return ''.join(c if c.isprintable() or c in JOINERS else ' ' if c.isspace() else '\ufffd' for c in text)


def printable_lines(text: str, indent: str = '') -> str:
    """The same for a text of several lines; those after the first begin with `indent`."""
    return f'\n{indent}'.join(map(printable, text.split('\n')))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """One line of a table: each cell padded to its column, right-aligned where `right`."""
    parts = []
    for cell, wide, to_right in zip(cells, widths, right):
        fill = ' ' * (wide - width(cell))
        parts.append(fill + cell if to_right else cell + fill)
    return '  '.join(parts).rstrip()


def _wrapped(text: str, columns: int) -> list[str]:
    """`text` wrapped to `columns`; a single line if they are too few to read (0: no limit)."""
    if columns < NARROWEST:
        return [text]
    return textwrap.wrap(text, columns) or ['']


def _cell(value: object) -> str:
    if value is None:
        return '-'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return f'{value:.4g}' if isinstance(value, float) else printable(str(value))


def _bold(text: str) -> str:
    """Bold text on a terminal that supports it, unless NO_COLOR is set (no-color.org)."""
    plain = not sys.stdout.isatty() or os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb'
    return text if plain else f'\033[1m{text}\033[0m'
