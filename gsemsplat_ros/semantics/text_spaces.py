"""The text space of a checkpoint, by the name in its card, with the phrases used last kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gsemsplat_ros.semantics import class_words
from gsemsplat_ros.semantics.class_words import ClassWords
from gsemsplat_ros.semantics.text import MINILM, MiniLM, OpenCLIP, TextEncoder

CACHED_PHRASES = 4096


class Cached:
    """A text encoder that remembers the 4096 phrases used last; safe to use from several threads at once."""

    def __init__(self, encoder: TextEncoder, size: int = CACHED_PHRASES) -> None:
        self.name = encoder.name
        self.dim = encoder.dim
        self._encoder = encoder
        self._size = size
        self._rows: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()  # held while encoding too: a second thread would do the same work twice

    def encode(self, phrases: Sequence[str]) -> np.ndarray:
        """K phrases -> (K, dim) float32, a fresh array. Only new phrases are encoded."""
        assert not isinstance(phrases, str), f'wanted a sequence of phrases, got the string {phrases!r}'
        if not phrases:
            return np.zeros((0, self.dim), np.float32)
        with self._lock:
            missing = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self._rows]
            found = dict(zip(missing, self._encoder.encode(missing))) if missing else {}
            for phrase in phrases:
                if phrase not in found:
                    found[phrase] = self._rows[phrase]
                    self._rows.move_to_end(phrase)
            for phrase in missing:
                self._rows[phrase] = found[phrase]
            while len(self._rows) > self._size:
                self._rows.popitem(last=False)
        return np.stack([found[phrase] for phrase in phrases])

    def knows(self, word: str) -> bool:
        """Whether the encoder knows `word`."""
        return self._encoder.knows(word)


def sentence_space(name: str) -> str:
    """The text space `name` without class names: features of pictures lie there."""
    return MINILM if name == class_words.NAME else name


def load_text_encoder(
    name: str | None, checkpoint: str | Path | None = None, mean: np.ndarray | Sequence[float] | None = None
) -> Cached:
    """The text encoder of the name in a checkpoint, cached by phrase: 'minilm-l6', the same with classes
    (class_words.py), or 'openclip:MODEL'.

    `checkpoint`: the user's file, for openclip only. `mean` (384,): centres the space, not for openclip.

    Raises:
        ValueError: unknown name; a missing or foreign package or file; an argument of the other encoder.
    """
    packaged: dict[str, Callable[[np.ndarray | Sequence[float] | None], TextEncoder]] = {
        MINILM: MiniLM,
        class_words.NAME: ClassWords,
    }
    if name is not None and name in packaged:
        if checkpoint is not None:
            raise ValueError(f'text encoder {name} has its own weights, got the checkpoint {checkpoint}')
        return Cached(packaged[name](mean))
    kind, _, model = (name or '').partition(':')
    if kind != 'openclip' or not model:
        raise ValueError(f'unknown text encoder {name!r}: wanted {", ".join(packaged)} or openclip:ViT-B-16')
    if mean is not None:
        raise ValueError(f'only {MINILM} is centred; got a mean for {name}')
    if checkpoint is None:
        raise ValueError(
            f'text encoder {name} needs a local checkpoint (laion2b_s34b_b88k for GSemSplat): '
            'give its path as text checkpoint'
        )
    return Cached(OpenCLIP(model, checkpoint))
