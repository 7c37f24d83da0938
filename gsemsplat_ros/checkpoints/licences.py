"""The licence list of a card: of what a checkpoint was made, each item with the licence it came under.

The texts of the materials that this project uses are in licences.json; a card holds copies of them. Of what a
user adds, the licence is not known here and stays empty until `gsemsplat weights licences` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

MATERIALS = Path(__file__).with_name('licences.json')
ROLES = (
    'training data',
    'initialisation',  # weights that the training began with
    'teacher',  # networks whose outputs it was trained towards
    'frozen network',  # networks in the file that stay as they are
    'context code',  # pictures that the linear code of the context-aware branch was fitted to
    'text encoder',
    'calibration',  # what the curve of the score and the threshold were fitted to
)
MOST = 200  # items
LONGEST = 600  # characters of a text
ROOMS = 'furniture-scopia', 'furniture-blendswap-cc-by', 'furniture-blendswap-cc0', 'furniture-kator-legaz'


@dataclass(frozen=True)
class Licence:
    """An item of the list.

    name: of the material; role: one of ROLES; licence: an SPDX identifier, or the name of its terms, None
    where it is not known; source: where it is to be had; use: what it was used for; commercial: whether these
    terms allow commercial use (False where they are not known); note: what else its user has to know.
    """

    name: str
    role: str
    licence: str | None
    source: str
    use: str
    commercial: bool
    note: str = ''


def licence_list(value: Any) -> tuple[Licence, ...] | None:
    """The list of a card; None: the card has none. Raises ValueError for what is no such list."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError(
            f'licences of its card are {repr(value)[:60]}, wanted a list of at most {MOST} items'
        )
    return tuple(item(number, entry) for number, entry in enumerate(value, 1))


def item(number: int, entry: Any) -> Licence:
    """One item, checked field by field. Raises ValueError."""
    where = f'item {number} of the licences of its card'
    names = {field.name for field in fields(Licence)}
    if not isinstance(entry, dict) or not names - {'note'} <= set(entry) <= names:
        raise ValueError(f'{where} is {repr(entry)[:60]}, wanted an object with {", ".join(sorted(names))}')
    for name, value in entry.items():
        if name == 'commercial':
            right, wanted = isinstance(value, bool), 'true or false'
        elif name == 'role':
            right, wanted = value in ROLES, 'one of ' + ', '.join(ROLES)
        elif name == 'licence' and value is None:
            right, wanted = entry['commercial'] is False, 'a licence, or commercial: false'
        else:
            right, wanted = is_text(value, empty=name == 'note'), 'a short text'
        if not right:
            raise ValueError(f'{name} of {where} is {repr(value)[:60]}, wanted {wanted}')
    return Licence(**entry)


def is_text(value: Any, empty: bool = False) -> bool:
    """Whether a value is a short text of one line."""
    return (
        isinstance(value, str)
        and len(value) <= LONGEST
        and value.isprintable()
        and bool(value.strip() or empty)
    )


def objections(items: Sequence[Licence]) -> list[str]:
    """One sentence for each item that is non-commercial or whose licence is not known."""
    return [
        f'{each.name} ({each.role}): '
        + (f'{each.licence}, non-commercial' if each.licence else 'its licence is not stated')
        for each in items
        if not each.commercial or not each.licence
    ]


@cache
def materials() -> dict[str, dict[str, Any]]:
    """What licences.json says of each material, by its key."""
    return json.loads(MATERIALS.read_text())


def stated(*keys: str) -> list[Licence]:
    """The items of these materials."""
    return [Licence(**materials()[key]) for key in keys]


def not_stated(name: str, role: str, source: str, use: str) -> Licence:
    """An item whose licence only the user knows. A name of a file may be anything."""
    name, source = (''.join(c if c.isprintable() else '?' for c in text)[:LONGEST] for text in (name, source))
    return Licence(name, role, None, source, use, False)


def united(*lists: Iterable[Licence]) -> list[dict[str, Any]]:
    """Lists as one, for a card; of items with the same name and role the first stays."""
    out: dict[tuple[str, str], Licence] = {}
    for each in (each for items in lists for each in items):
        out.setdefault((each.name, each.role), each)
    return [
        {key: value for key, value in asdict(each).items() if key != 'note' or value} for each in out.values()
    ]


def inherited(file: str, card: dict[str, Any], roles: Sequence[str] = ROLES) -> list[Licence]:
    """What the checkpoint in `file` hands on: the items of these roles, or, where it has no list, that."""
    items = licence_list(card.get('licences'))
    if items is None:
        return [not_stated(file, 'initialisation', file, 'a checkpoint whose card has no list of licences')]
    return [each for each in items if each.role in roles]
