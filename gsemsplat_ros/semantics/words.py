"""The reading of a phrase: its letters made plain, and the words that a text encoder understands.

An encoder gives every phrase a vector, those that it cannot read too: all emoji are one and the same. And it
finds the armchair of 'not an armchair'. So a phrase is read first, and what is not understood is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

# How a note begins: that nothing was looked for, or that some words were not.
NOT_UNDERSTOOD = 'not understood: '
LEFT_OUT = 'left out, as not understood: '

_APOSTROPHES = str.maketrans('‘’ʼ', "'''")
_PUNCTUATION = '.,;:!?…"\'“”«»()[]{}<>-–—*_'
_NEGATION = re.compile(
    r"(?<![\w-])(?:not|no|never|without|w/o|except|excluding|neither|nor|none|nothing|cannot|\w+n't"
    r'|(?:anything|everything|all) but|(?:other|rather) than|instead of)(?![\w-])',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reading:
    """What a text encoder gets of a phrase.

    words: those that it understands, '' where there is nothing to look for. note: in one line, what was not
    understood; it begins with NOT_UNDERSTOOD where that is all, else with LEFT_OUT, and is '' where there is
    nothing to say.
    """

    words: str
    note: str = ''


def normalised(text: str) -> str:
    """`text` in one line of printable characters and single blanks: in the form NFKC, where fullwidth letters
    are plain ones, with emoji and other symbols set apart from words, and without invisible characters.
    """
    characters = []
    for c in unicodedata.normalize('NFKC', text).translate(_APOSTROPHES):
        category = unicodedata.category(c)
        if category == 'Cf' or '\ufe00' <= c <= '\ufe0f':  # joiners and variants, inside of words and emoji
            continue
        characters.append(f' {c} ' if _is_symbol(c) else c if c.isprintable() else ' ')
    return ' '.join(''.join(characters).split())


def is_latin(word: str) -> bool:
    """Whether `word` is written in Latin letters and digits, with any punctuation; symbols are not."""
    return not any(
        _is_symbol(c)
        or (c.isalpha() and not unicodedata.name(c, '').startswith('LATIN'))
        or (c.isnumeric() and not c.isascii())
        for c in word
    )


def read(phrase: str, knows: Callable[[str], bool]) -> Reading:
    """The reading of a normalised phrase by a text encoder; `knows`: whether that knows one word.

    Negations are not understood at all: the encoder would find what they exclude.
    """
    if negation := _NEGATION.search(phrase):
        return Reading(
            '', f"{NOT_UNDERSTOOD}the negation '{negation[0]}'; name the thing itself, such as 'chair'"
        )
    words = [word.strip(_PUNCTUATION) for word in phrase.split()]
    known = [word for word in words if word and knows(word)]
    unknown = [word for word in words if word and not knows(word)]
    if not any(c.isalnum() for word in known for c in word):
        return Reading('', f"{NOT_UNDERSTOOD}'{phrase}'; ask in English letters, such as 'chair'")
    return Reading(' '.join(known), f"{LEFT_OUT}'{' '.join(unknown)}'" if unknown else '')


def _is_symbol(c: str) -> bool:
    """Whether `c` is an emoji or a sign of the kind, with the colours of skin."""
    return not c.isascii() and unicodedata.category(c) in ('So', 'Sk')
