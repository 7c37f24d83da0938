"""Tables of phrases in the package, as text."""

from __future__ import annotations

from importlib import resources


def read_phrase_table(room: str) -> list[list[str]]:
    """The rows of phrasings.txt in a room of the package: columns separated by '|', '#' lines left out."""
    lines = (resources.files(f'gsemsplat_ros.{room}') / 'phrasings.txt').read_text().splitlines()
    rows = [line.split('|') for line in lines if line and not line.startswith('#')]
    return [[column.strip() for column in row] for row in rows]
