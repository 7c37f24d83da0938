"""The card of a checkpoint as a part of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsemsplat_ros.report.markup import Markup, pairs_table, tag

TEXT = 200  # characters of one entry


def checkpoint_card(file: str, card: dict[str, Any]) -> list[Markup]:
    """The checkpoint in `file` and, folded away by chapters, its card without the sizes of its layers."""
    rows = [('file', file)]
    if 'config' in card:
        rows.append(('network', str(card['config'].get('name', ''))))
    licences = card.get('licences') or ()
    rows += [
        (words(name), leaf(value))
        for name, value in card.items()
        if not isinstance(value, dict) and name != 'licences'
    ]
    chapters = [
        tag('details', tag('summary', name), pairs_table(entries(value))) for name, value in chapters_of(card)
    ]
    if licences:
        made_of = [(each['name'], f'{each["licence"] or "not stated"} ({each["role"]})') for each in licences]
        chapters.append(tag('details', tag('summary', 'Licences'), pairs_table(made_of)))
    return [tag('h3', 'Checkpoint'), pairs_table(rows), *chapters]


def chapters_of(card: dict[str, Any], before: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Titles and contents of the dictionaries of a card that hold values of their own."""
    for name, value in card.items():
        if isinstance(value, dict) and name != 'config':
            title = f'{before}{words(name)}'
            if any(not isinstance(item, dict) for item in value.values()):
                yield title[:1].upper() + title[1:], value
            yield from chapters_of(value, f'{title}, ')


def entries(chapter: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The values of a chapter; a list of dictionaries has a row for each."""
    for name, value in chapter.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield from ((f'{words(name)} {i}', leaf(item)) for i, item in enumerate(value, 1))
        elif not isinstance(value, dict):
            yield words(name), leaf(value)


def leaf(value: object) -> str:
    """A value as a person would write it, TEXT characters at most."""
    if isinstance(value, dict):
        text = ', '.join(f'{words(key)} {leaf(item)}' for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        text = ', '.join(map(leaf, value))
    elif value is None or isinstance(value, bool):
        text = {None: '–', True: 'yes', False: 'no'}[value]
    else:
        text = f'{value:.4g}' if isinstance(value, float) else str(value)
    return text if len(text) <= TEXT else text[: TEXT - 1] + '…'


def words(name: str) -> str:
    """A file's or key's name as a person would write it."""
    return name.replace('_', ' ')
