"""Household words and the class names that mean them: what a robot's user calls what a classifier knows.

`household.txt` is the table, and says what its lists mean; `imagenet_names.txt` and `coco_names.txt` are the
names of the 1,000 and 80 classes in the order of their indices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

ARTICLES = frozenset({'a', 'an', 'the'})
# What follows one of these describes the thing before it: 'cup of tea', 'man with a bag'.
_PREPOSITIONS = """of with without on in at for from to under above below behind beside by near next inside
    over between against that which who"""
# The thing of 'pair of scissors' is the scissors; none of these is a household word itself.
_MEASURES = 'pair set piece row stack pile heap bunch group roll slice couple lot kind type sort number'
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
MEASURES = frozenset(_MEASURES.split())
# A toy horse is no horse, and may be anything; what is stuffed is one thing.
LIKENESSES = {'toy': '', 'stuffed': 'stuffed animal'}
IRREGULAR = {
    'men': 'man',
    'women': 'woman',
    'children': 'child',
    'people': 'person',
    'mice': 'mouse',
    'teeth': 'tooth',
    'feet': 'foot',
    'geese': 'goose',
}


@dataclass(frozen=True)
class Entry:
    """A household word, its synonyms, and the indices of the classes that mean it or are kinds of it.

    imagenet, coco: of the 1,000 ImageNet and the 80 COCO classes. imagenet_near, coco_near: of those that say
    less: the wider class ('office chair': COCO's chair), a part or the whole of it, its likeness. With
    neither, the list has no name for the word, and its classes tell nothing of it.
    """

    word: str
    synonyms: tuple[str, ...]
    imagenet: tuple[int, ...]
    imagenet_near: tuple[int, ...]
    coco: tuple[int, ...]
    coco_near: tuple[int, ...]


@dataclass(frozen=True)
class Lexicon:
    """The household words: `entries` in the order of the file, and each under all its names."""

    entries: tuple[Entry, ...]
    _by_name: Mapping[str, Entry]

    @classmethod
    def load(cls) -> Lexicon:
        """The lexicon of the package."""
        return cls.parse(_text('household.txt'))

    @classmethod
    def parse(cls, text: str) -> Lexicon:
        """Lines of `word, synonym, ... = ImageNet class, ... | COCO name, ...`, with comments behind '#'.

        Raises ValueError, in one line, for a line of another form, an unknown class, and a name given twice.
        """
        imagenet, coco = imagenet_names(), coco_names()
        entries: list[Entry] = []
        by_name: dict[str, Entry] = {}
        for number, line in enumerate(text.splitlines(), 1):
            line = line.partition('#')[0].strip()
            if not line:
                continue
            match = re.fullmatch(r'([^=|]+)=([^=|]*)\|([^=|]*)', line)
            if not match:
                raise ValueError(
                    f"household word, line {number}: got {line!r}, wanted 'word = classes | names'"
                )
            names, of_imagenet, of_coco = ([part.strip() for part in g.split(',')] for g in match.groups())
            try:
                entry = Entry(
                    names[0], tuple(names[1:]), *_indices(of_imagenet, imagenet), *_indices(of_coco, coco)
                )
            except ValueError as error:
                raise ValueError(f'household word, line {number}: {error}') from None
            for name in names:
                key = ' '.join(_words(name)).replace('-', ' ')
                if by_name.setdefault(key, entry) is not entry:
                    raise ValueError(f'household word, line {number}: {name!r} already means something else')
            entries.append(entry)
        return cls(tuple(entries), MappingProxyType(by_name))

    def find(self, phrase: str) -> Entry | None:
        """The entry of `phrase`, else of the longest end of it before 'of', 'with' and the like: 'a big red
        sofa' is a sofa, 'wooden office chair' an office chair, 'cup of tea' a cup. None: no household word.
        """
        words = _words(phrase)
        ends = [i for i, word in enumerate(words) if word in PREPOSITIONS] + [len(words)]
        head = ends[0]
        measured = 0 < head < len(words) - 1 and words[head] == 'of' and _is_measure(words[head - 1])
        if {'and', 'or'} & set(words[:head]):  # two things, unless they have one name
            return self._named(words, len(words))
        for start in range(head):
            for end in reversed(ends):
                if entry := self._named(words[start:end], head - start):
                    return entry
            if words[start] in LIKENESSES:
                return self._by_name.get(LIKENESSES[words[start]])
        return self.find(' '.join(words[head + 1 :])) if measured else None

    def _named(self, words: Sequence[str], head: int) -> Entry | None:
        """The entry with exactly these words, the last one before `head` in the singular or the plural."""
        for noun in _singulars(words[head - 1]) if words else ():
            name = ' '.join([*words[: head - 1], noun, *words[head:]]).replace('-', ' ')
            if name in self._by_name:
                return self._by_name[name]
        return None


def imagenet_names() -> tuple[str, ...]:
    """The names of the 1,000 ImageNet classes, in the order of their indices."""
    return tuple(_text('imagenet_names.txt').splitlines())


def coco_names() -> tuple[str, ...]:
    """The names of the 80 COCO classes, in the order of their indices."""
    return tuple(_text('coco_names.txt').splitlines())


def _text(file: str) -> str:
    return (resources.files('gsemsplat_ros.semantics') / file).read_text(encoding='utf-8')


def _words(phrase: str) -> list[str]:
    """The words in lower case, without articles and punctuation; hyphens inside a word stay."""
    words = re.findall(r"\w+(?:['-]\w+)*", phrase.casefold().replace('’', "'"))
    return [word for word in words if word not in ARTICLES]


def _singulars(noun: str) -> Iterator[str]:
    """The noun itself, then what it may be the plural of."""
    yield noun
    if noun in IRREGULAR:
        yield IRREGULAR[noun]
    for plural, singular in (('s', ''), ('es', ''), ('ies', 'y'), ('ves', 'f'), ('ves', 'fe')):
        if noun.endswith(plural) and len(noun) > len(plural) + 1:
            yield noun.removesuffix(plural) + singular


def _is_measure(noun: str) -> bool:
    return any(singular in MEASURES for singular in _singulars(noun))


def _indices(classes: Sequence[str], names: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The indices of classes, and of those marked '~', of a list of the file. Raises ValueError."""
    full: list[int] = []
    near: list[int] = []
    for item in filter(None, classes):
        first, _, last = item.removeprefix('~').partition(' .. ')
        for name in filter(None, (first, last)):
            if name not in names:
                raise ValueError(f'no class is called {name!r}; wanted one of {len(names)} exact names')
        found = range(names.index(first), names.index(last or first) + 1)
        if not found:
            raise ValueError(f'{last!r} comes before {first!r}: exchange them')
        (near if item.startswith('~') else full).extend(found)
    if len(set(full + near)) < len(full + near):
        raise ValueError(f'a class twice in {", ".join(classes)}')
    return tuple(full), tuple(near)
