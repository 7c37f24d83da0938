"""Which Gaussians are those of the objects of an answer. NumPy only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.objects import Object, inside_any, level_around

WIDER = 1.15  # of a box, which leaves out the last 2 % of its object on each side


def members_of(answer: Answer, means: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the Gaussians, at means (N, 3), are in the objects of an answer of a scene or map.

    Those are, about the boxes of the objects, the lit ones, those around whose relevancy makes them part of
    an object (objects.py), and those of unknown relevancy: hidden, they are the inner and the far side.
    """
    relevancy, lit = answer.relevancy, answer.lit
    assert relevancy is not None and lit is not None, 'an answer of a node'
    boxes = [replace(box, size=wider(box)) for box in answer.objects]
    if not boxes:
        return np.zeros(len(means), bool)
    with np.errstate(invalid='ignore'):
        belongs = lit | np.isnan(relevancy) | (relevancy >= level_around(relevancy))
    return belongs & inside_any(boxes, means)


def wider(box: Object) -> tuple[float, float, float]:
    """The size of a box that is WIDER."""
    x, y, z = box.size
    return WIDER * x, WIDER * y, WIDER * z
