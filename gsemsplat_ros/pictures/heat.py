"""The contrast in which relevancy is shown, for pixels and Gaussians (docs/published.md 29)."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.pictures.overlay import overlay
from gsemsplat_ros.scene.scene import Keyframe
from gsemsplat_ros.semantics.answer import Answer

FAINT = 0.4  # of the full heat, for what was not found


def heat(relevancy: np.ndarray, found: bool) -> np.ndarray:
    """Relevancy (...), NaN where unknown, for display: the upper half of its own range as 0..1, as published
    (docs/published.md 29), faint if not found; NaN stays.
    """
    known = relevancy[np.isfinite(relevancy)]
    if not known.size:
        return relevancy
    level = np.clip(2 * (relevancy - known.min()) / max(float(np.ptp(known)), 1e-9) - 1, 0, 1)
    return level if found else FAINT * level


def answer_overlay(keyframe: Keyframe, answer: Answer) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the input image of the keyframe under the heat of a scene's answer."""
    assert answer.picture is not None, 'only a scene answers with a picture'
    return overlay(keyframe.image, keyframe.window.expand(heat(answer.picture.relevancy, answer.found)))
