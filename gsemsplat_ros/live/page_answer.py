"""An answer as the live page shows it: on the Gaussians of one scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.objects import inside_any


@dataclass(frozen=True, eq=False)
class PageAnswer:
    """An answer as a page shows it, in the frame of `shown`.

    relevancy (M,) float32 of what is shown, NaN where unknown, or None when the source cannot tell; lit (M,)
    bool: what the phrase names. picture (H, W, 3) uint8 RGB: relevancy over the newest image, or None. note:
    what a person should know besides.
    """

    answer: Answer
    shown: ShownScene
    relevancy: np.ndarray | None
    lit: np.ndarray
    seconds: float
    picture: np.ndarray | None = None
    note: str = ''


def answered_by_boxes(
    answer: Answer, shown: ShownScene, seconds: float, picture: np.ndarray | None = None, note: str = ''
) -> PageAnswer:
    """The answer of a node, which tells boxes alone: what lies in one of them lights up."""
    return PageAnswer(answer, shown, None, inside_any(answer.objects, shown.means), seconds, picture, note)


def carried_over(answer: PageAnswer, shown: ShownScene) -> PageAnswer | None:
    """The answer for a newer scene of the same frame, where its boxes still hold; None for any other."""
    if answer.relevancy is not None or answer.shown.frame != shown.frame:
        return None
    return replace(answer, shown=shown, lit=inside_any(answer.answer.objects, shown.means))
