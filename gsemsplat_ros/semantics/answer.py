"""The `Question` and the `Answer` for scene, map and node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gsemsplat_ros.semantics.objects import Object
from gsemsplat_ros.semantics.words import NOT_UNDERSTOOD, normalised

MAX_TEXT = 200  # characters: longer texts do not name a thing
MIN_MEASURED = 0.05  # with a smaller share of its pixels measured, a thing's distance is a guess
THRESHOLD = 0.5  # relevancy below which a phrase is not found (LERF), unless a checkpoint has its own
MAX_OBJECTS = 8


@dataclass(frozen=True)
class Question:
    """A query for `text`, which is normalised. It is found if its relevancy reaches `threshold`, in (0, 1),
    None: the checkpoint's own; at most `max_objects` objects are returned.

    Raises ValueError, in one line, for an empty or very long text and a threshold outside (0, 1).
    """

    text: str
    threshold: float | None = None
    max_objects: int = MAX_OBJECTS

    def __post_init__(self) -> None:
        object.__setattr__(self, 'text', normalised(self.text))
        if not self.text:
            raise ValueError("empty query: ask for a thing, such as 'chair'")
        if len(self.text) > MAX_TEXT:
            raise ValueError(
                f'query of {len(self.text)} characters: wanted at most {MAX_TEXT}; name one thing'
            )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f'threshold {self.threshold}: wanted a relevancy between 0 and 1')


@dataclass(frozen=True, eq=False)
class AnswerPicture:
    """The answer to a phrase in the rendering of a scene's keyframe.

    relevancy (h, w) float32: smoothed, in [0, 1], of the branch that answers, NaN where nothing was rendered;
    mask (h, w) bool: the phrase's pixels, none when it was not found.
    """

    relevancy: np.ndarray
    mask: np.ndarray


class PerGaussian(Protocol):
    """What an answer says of each of N Gaussians; those of a large map are made when they are first read."""

    @property
    def relevancy(self) -> np.ndarray:
        """(N,) float32, NaN where unknown: hidden, or a stray."""

    @property
    def lit(self) -> np.ndarray:
        """(N,) bool: the Gaussians of the phrase, none when it was not found."""

    @property
    def lit_rows(self) -> np.ndarray:
        """(K,) int64, ascending: the same as numbers."""


@dataclass(frozen=True, eq=False)
class GaussianArrays:
    """A `PerGaussian` of arrays."""

    relevancy: np.ndarray
    lit: np.ndarray

    @property
    def lit_rows(self) -> np.ndarray:
        return np.flatnonzero(self.lit)


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one phrase, of a scene or of a map; lengths and frame are those of its Gaussians.

    threshold: from which a score counts as found, None where the node used its own. score: the peak of
    relevancy, in [0, 1]; peak_point (x, y, z): its position, None where nothing could be compared; peak_pixel
    (u, v): the same in the first input image, None for a map. objects: best first, none when not found. gone:
    what the text found in this map earlier and has gone since, newest first.
    branch: the one that answers, 0 region-specific, 1 context-aware, 0 where both are mixed. note: what of
    the phrase was not understood, '' if nothing; where that is all of it, nothing was looked for. measured:
    share of the phrase's pixels whose depth was measured, None where unknown: not found, or of a map or file.

    gaussians: what it says of each of them; None in the answer of a node, which returns boxes only. picture:
    None except for a scene.
    """

    text: str
    threshold: float | None
    found: bool
    score: float
    peak_point: tuple[float, float, float] | None
    peak_pixel: tuple[float, float] | None
    objects: tuple[Object, ...]
    branch: int = 0
    gaussians: PerGaussian | None = None
    picture: AnswerPicture | None = None
    note: str = ''
    measured: float | None = None
    gone: tuple[Object, ...] = ()

    @property
    def relevancy(self) -> np.ndarray | None:
        """That of `gaussians`."""
        return None if self.gaussians is None else self.gaussians.relevancy

    @property
    def lit(self) -> np.ndarray | None:
        """That of `gaussians`."""
        return None if self.gaussians is None else self.gaussians.lit

    @property
    def guessed(self) -> bool:
        """Whether the distance is the network's guess, as nothing of the thing was measured."""
        return self.measured is not None and self.measured < MIN_MEASURED

    @property
    def state(self) -> str:
        """'found', 'not found', or 'not understood' where nothing was looked for."""
        if self.note.startswith(NOT_UNDERSTOOD):
            return 'not understood'
        return 'found' if self.found else 'not found'
