"""The results of `infer` and `demo` for a pair, for the report and summary.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gsemsplat_ros.flight.flight import Film, NewView
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.scene.scene import is_metric
from gsemsplat_ros.semantics.answer import Answer

FOCAL_SOURCES = {
    'calibration': 'the calibration',
    'exif': 'the image file (EXIF)',
    'images': 'the two images',
    'network': "the network's guess",
}


@dataclass(frozen=True, eq=False)
class ReportedAnswer:
    """An answer and its picture.

    picture (H, W, 3) uint8 RGB: the relevancy over the first input image (None: not requested); seconds: from
    question to answer.
    """

    answer: Answer
    picture: np.ndarray | None
    seconds: float

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        answer = self.answer
        return {
            'text': answer.text,
            'found': answer.found,
            'score': answer.score,
            'note': answer.note,
            'measured': answer.measured,
            'peak_pixel': _numbers(answer.peak_pixel),
            'peak_point': _numbers(answer.peak_point),
            'objects': [
                {
                    'id': thing.id,
                    'center': _numbers(thing.center),
                    'size': _numbers(thing.size),
                    'score': float(thing.score),
                }
                for thing in answer.objects
            ],
            'seconds': self.seconds,
        }


@dataclass(frozen=True, eq=False)
class PairResult:
    """A pair of images, its scene and the scene's answers.

    first, second (H, W, 3) uint8 RGB: the input; camera: of the first; depth (h, w) [m] of the first camera,
    NaN where unknown; gaussians: their number; scale: metres per network unit; timings: stage -> seconds;
    film: None if not requested; focal_source, focal_spread: as of the Scene; pose_found: whether that of the
    second camera was. geometry: the network that made the points, in words; '': that of the weights.
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    camera: Camera
    depth: np.ndarray
    views: tuple[NewView, ...]
    answers: tuple[ReportedAnswer, ...]
    gaussians: int
    pair_seconds: float
    weights: str
    scale_source: str
    scale: float
    timings: dict[str, float] = field(default_factory=dict)
    film: Film | None = None
    focal_source: str = 'calibration'
    focal_spread: float = 0.0
    pose_found: bool = True
    geometry: str = ''

    @property
    def focal(self) -> str:
        """The focal length, what tells it and how surely, and whether the pose is known, in words."""
        sure = f' (± {100 * self.focal_spread:.0f} %)' if self.focal_spread else ''
        pose = '' if self.pose_found else '; the pose of the second camera was not found'
        return f'{self.camera.fx:.0f} px by {FOCAL_SOURCES[self.focal_source]}{sure}{pose}'

    @property
    def metric(self) -> bool:
        """Whether lengths are metres; otherwise they are in the network's own unit."""
        return is_metric(self.scale_source)

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            'gaussians': self.gaussians,
            'pair_seconds': self.pair_seconds,
            'weights': self.weights,
            'geometry': self.geometry or None,
            'scale_source': self.scale_source,
            'scale': self.scale,
            'focal_length': self.camera.fx,
            'focal_source': self.focal_source,
            'focal_spread': self.focal_spread,
            'pose_found': self.pose_found,
            'timings': self.timings,
            'queries': [answer.summary() for answer in self.answers],
        }


def _numbers(values: Iterable[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
