"""The text space of the shipped checkpoint: a sentence embedding, and a mixture of class names.

The region-specific features live in the space of the sentence encoder. Those of the context-aware branch are
scores of the 1,000 ImageNet and the 80 COCO classes (network/context.py); a phrase is the mean of the classes
that mean it, by the lexicon of household words, or of those that its embedding is like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsemsplat_ros.network.config import CLASSES
from gsemsplat_ros.network.nanodet import OBJECTS
from gsemsplat_ros.semantics.lexicon import Entry, Lexicon, coco_names, imagenet_names
from gsemsplat_ros.semantics.relevancy import CANONICAL
from gsemsplat_ros.semantics.text import MiniLM

NAME = 'minilm-l6+imagenet+coco'
NEAR = 0.5  # weight of a class that says less than the word, beside one that means it
SHARPNESS = 0.05  # of the softmax over likenesses
LIKE, LIKE_SPREAD = 0.5, 0.06  # likeness from which a class tells something of a phrase: a soft step


class ClassWords:
    """Phrases to (384 + 1000 + 80) coordinates: a unit vector, and the weights of the classes.

    The weights of either list add up to 1 where it knows the phrase, to less where it does so in part, and to
    0 where it has no name for it. The canonical phrases have no classes.
    """

    name = NAME

    def __init__(self, mean: np.ndarray | Sequence[float] | None = None) -> None:
        """mean (384,): see MiniLM. Raises ValueError as MiniLM."""
        self.sentences = MiniLM(mean)
        self.lexicon = Lexicon.load()
        self.dim = self.sentences.dim + CLASSES + OBJECTS
        # made when a phrase first needs them: a thousand names take seconds
        self._names: list[np.ndarray] = []

    def encode(self, phrases: Sequence[str]) -> np.ndarray:
        """K phrases -> (K, dim) float32."""
        sentences = self.sentences.encode(phrases)
        weights = [self.weights(phrase, row) for phrase, row in zip(phrases, sentences)]
        classes = np.zeros((len(phrases), self.dim - self.sentences.dim), np.float32)
        if weights:
            classes[:] = weights
        return np.hstack((sentences, classes))

    def knows(self, word: str) -> bool:
        """Whether the encoder knows `word`."""
        return self.sentences.knows(word)

    def weights(self, phrase: str, sentence: np.ndarray) -> np.ndarray:
        """(1080,) of one phrase, with its unit embedding (384,)."""
        if phrase in CANONICAL:
            return np.zeros(CLASSES + OBJECTS, np.float32)
        entry = self.lexicon.find(phrase)
        if entry is None:
            return np.concatenate([likeness(names @ sentence) for names in self.names()])
        return class_weights(entry)

    def names(self) -> list[np.ndarray]:
        """Unit embeddings of the names of each list."""
        if not self._names:
            self._names = [self.sentences.encode(names) for names in (imagenet_names(), coco_names())]
        return self._names


def class_weights(entry: Entry) -> np.ndarray:
    """(1080,) of a household word: ImageNet classes, then COCO names; zeros in a list that has none."""
    return np.concatenate(
        (mixture(CLASSES, entry.imagenet, entry.imagenet_near), mixture(OBJECTS, entry.coco, entry.coco_near))
    )


def mixture(count: int, full: Sequence[int], near: Sequence[int]) -> np.ndarray:
    """(count,) weights of classes that mean a word, and of those that say less."""
    weights = np.zeros(count, np.float32)
    weights[list(full)] = 1
    weights[list(near)] = NEAR
    return weights / max(weights.sum(), 1.0)


def likeness(cosines: np.ndarray) -> np.ndarray:
    """(N,) cosines of a phrase with names -> (N,) weights, a softmax times how much the best tells."""
    top = cosines.max()
    weights = np.exp((cosines - top) / SHARPNESS)
    return weights / weights.sum() / (1 + np.exp((LIKE - top) / LIKE_SPREAD))
