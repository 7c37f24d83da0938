"""What `infer` and `demo` learned from a pair: shown by the report, written to summary.json."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from gsemsplat_ros.flight.flight import Film, NewView
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.semantics.objects import Object


@dataclass(frozen=True)
class Answer:
    """The answer to one phrase.

    peak_pixel (u, v) in the first input image, peak_point (3,) [m] in the frame of the first camera: None
    when nothing was rendered there; objects best first; picture (H, W, 3) uint8 RGB: the relevancy over the
    first input image (None: not asked for); seconds: from question to answer.
    """

    text: str
    found: bool
    score: float
    peak_pixel: tuple[float, float] | None
    peak_point: tuple[float, float, float] | None
    objects: tuple[Object, ...]
    picture: np.ndarray | None
    seconds: float

    def summary(self) -> dict:
        """As JSON holds it."""
        return {
            'text': self.text,
            'found': self.found,
            'score': self.score,
            'peak_pixel': _numbers(self.peak_pixel),
            'peak_point': _numbers(self.peak_point),
            'objects': [
                {'center': _numbers(thing.center), 'size': _numbers(thing.size), 'score': float(thing.score)}
                for thing in self.objects
            ],
            'seconds': self.seconds,
        }


@dataclass(frozen=True)
class PairResult:
    """A pair of images, the scene that it became and what the scene answered.

    first, second (H, W, 3) uint8 RGB: the input; camera: of the first; depth (h, w) [m] of the first camera,
    NaN where unknown; gaussians: how many; scale: metres per unit of the network; timings: stage -> seconds;
    film: None where none was asked for.
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    camera: Camera
    depth: np.ndarray
    views: tuple[NewView, ...]
    answers: tuple[Answer, ...]
    gaussians: int
    pair_seconds: float
    weights: str
    scale_source: str
    scale: float
    timings: dict[str, float] = field(default_factory=dict)
    film: Film | None = None

    @property
    def metric(self) -> bool:
        """Whether lengths are metres; otherwise they are in the network's own unit."""
        return self.scale_source != 'network'

    def summary(self) -> dict:
        """As JSON holds it."""
        return {
            'gaussians': self.gaussians,
            'pair_seconds': self.pair_seconds,
            'weights': self.weights,
            'scale_source': self.scale_source,
            'scale': self.scale,
            'timings': self.timings,
            'queries': [answer.summary() for answer in self.answers],
        }


def known(numbers) -> tuple[float, ...] | None:
    """The numbers as floats, or None where one of them is not finite."""
    numbers = tuple(map(float, numbers))
    return numbers if all(map(math.isfinite, numbers)) else None


def _numbers(values) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
