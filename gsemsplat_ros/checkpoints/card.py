"""The card of a checkpoint: JSON in its header, checked field by field before anything is made of it."""

from __future__ import annotations

import json
import math
from typing import Any

from gsemsplat_ros.checkpoints.licences import licence_list
from gsemsplat_ros.network.config import NetworkConfig

CARD_KEY = 'gsemsplat'
DEEPEST = 16  # dictionaries and lists in one another
LONGEST = 1 << 20  # characters; the shipped card has 12,000
TEXTS = 'text_encoder', 'kind', 'licence'  # or null
CHAPTERS = 'training', 'frozen', 'context', 'mixture', 'scores', 'source'  # dictionaries, or null


def parsed(text: str) -> dict[str, Any]:
    """The card that `text` holds. Raises ValueError, without the name of the file, for any other."""
    if len(text) > LONGEST:
        raise ValueError(f'its card has {len(text)} characters, wanted at most {LONGEST}')
    try:
        card = json.loads(text)
    except (ValueError, RecursionError):  # numbers of thousands of digits, too
        raise ValueError('its card is no JSON') from None
    if not isinstance(card, dict):
        raise ValueError(f'its card is a {type(card).__name__}, wanted an object with a config')
    if not shallow(card):
        raise ValueError(f'its card is nested more than {DEEPEST} deep')
    try:
        json.dumps(card, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError('its card holds half of a character') from None
    if not isinstance(card.get('config'), dict):
        raise ValueError('its card lacks a config')
    NetworkConfig.from_json(card['config'])
    for name in TEXTS:
        value = card.get(name)
        if value is not None and not (isinstance(value, str) and len(value) <= 256 and value.isprintable()):
            raise ValueError(f'{name} of its card is {repr(value)[:60]}, wanted a short text')
    for name in CHAPTERS:
        if not isinstance(card.get(name), (dict, type(None))):
            raise ValueError(f'{name} of its card is {repr(card[name])[:60]}, wanted an object')
    licence_list(card.get('licences'))
    mixture = card.get('mixture') or {}
    if not all(map(is_number, mixture.values())):
        raise ValueError(f'mixture of its card is {repr(mixture)[:60]}, wanted numbers')
    return card


def shallow(value: object, depth: int = DEEPEST) -> bool:
    """Whether dictionaries and lists of `value` lie at most `depth` deep in one another."""
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(shallow(item, depth - 1) for item in inner)


def is_number(value: Any) -> bool:
    """Whether a value of a card is a number of the usual size."""
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e6
