"""The text space of a training, and the names of objects in rooms."""

from __future__ import annotations

import numpy as np
import torch

from gsemsplat_ros.datasets.phrase_table import read_phrase_table
from gsemsplat_ros.semantics.lexicon import imagenet_names
from gsemsplat_ros.semantics.relevancy import CANONICAL
from gsemsplat_ros.semantics.text import MiniLM


class TextSpace:
    """The centred MiniLM space of a run: its mean, and phrases for the objects in the rooms with their unit
    `embeddings` (M, C).

    Steps use in turn full names, base nouns, and synonyms or descriptions (phrasings.txt, a random one for
    each noun and step). The canonical phrases, which queries are compared with, are always among the
    negatives.
    """

    def __init__(self, vocabulary: dict[str, str], mean: np.ndarray | None = None):
        self.vocabulary = vocabulary
        self.others = {
            noun: phrases for noun, phrases in read_synonyms().items() if noun in set(vocabulary.values())
        }
        self.mean = MiniLM().encode([*imagenet_names(), *vocabulary]).mean(0) if mean is None else mean
        self.encoder = MiniLM(self.mean)
        phrases = {*vocabulary, *vocabulary.values(), *(p for others in self.others.values() for p in others)}
        self.row = {phrase: i for i, phrase in enumerate([*sorted(phrases - {*CANONICAL}), *CANONICAL])}
        self.embeddings = torch.from_numpy(self.encoder.encode(list(self.row)))

    def names(self, step: int, rng: np.random.Generator) -> tuple[dict[str, int], np.ndarray]:
        """Row of each name among the step's phrases, and their rows (K,) int64 in `embeddings`."""
        said = self.vocabulary if step % 3 == 1 else {name: name for name in self.vocabulary}
        if step % 3 == 2:
            drawn = {
                noun: str(rng.choice(self.others[noun])) if noun in self.others else noun
                for noun in sorted(set(self.vocabulary.values()))
            }
            said = {name: drawn[noun] for name, noun in self.vocabulary.items()}
        phrases = sorted({*said.values()} - {*CANONICAL})
        row = {phrase: i for i, phrase in enumerate([*phrases, *CANONICAL])}
        return {name: row[phrase] for name, phrase in said.items()}, np.array([self.row[p] for p in row])


def read_synonyms() -> dict[str, list[str]]:
    """Noun -> synonyms and descriptions, from phrasings.txt."""
    return {
        noun: [phrase.strip() for group in groups for phrase in group.split(';')]
        for noun, *groups in read_phrase_table('training')
    }
