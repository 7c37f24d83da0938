"""An answer on the live page: relevancy and highlights on the Gaussians of one scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.objects import inside_any


@dataclass(frozen=True, eq=False)
class PageAnswer:
    """An answer in the frame of `shown`, for its M drawn Gaussians.

    relevancy (M,) float32, NaN where unknown; None if the source gives boxes only. lit (M,) bool: Gaussians
    of the found objects. seconds: time taken. picture (H, W, 3) uint8 RGB: relevancy over the newest image,
    or None. note: a remark for the visitor. stamp_ns: of the newest images in what was asked, 0: unknown.
    """

    answer: Answer
    shown: ShownScene
    relevancy: np.ndarray | None
    lit: np.ndarray
    seconds: float
    picture: np.ndarray | None = None
    note: str = ''
    stamp_ns: int = 0


def answered_by_boxes(
    answer: Answer,
    shown: ShownScene,
    seconds: float,
    picture: np.ndarray | None = None,
    note: str = '',
    stamp_ns: int = 0,
) -> PageAnswer:
    """The answer of a node, which sends boxes only: the Gaussians inside a box are lit."""
    lit = inside_any(answer.objects, shown.means)
    return PageAnswer(answer, shown, None, lit, seconds, picture, note, stamp_ns)


def carried_over(answer: PageAnswer, shown: ShownScene) -> PageAnswer | None:
    """The answer on a newer scene of the same frame; None if the frame differs or it has relevancy."""
    if answer.relevancy is not None or answer.shown.frame != shown.frame:
        return None
    return replace(answer, shown=shown, lit=inside_any(answer.answer.objects, shown.means))
