"""Whether an image can be used: it is large enough, and shows anything at all."""

from __future__ import annotations

import cv2
import numpy as np

MIN_SIDE = 32  # pixels: less holds nothing to match, and no window of the stereo matcher
MAX_ASPECT = 32  # the network's picture of 512 x 16 pixels: of a longer strip, it would see a part only
CELLS = 80  # along the longer side: means of cells hide the noise of the sensor
SURROUNDINGS = 2.0  # standard deviation [cells] of the blur whose difference is detail
PART = 0.02  # of the cells must have
MIN_DETAIL = 3.0  # gray levels; covered lenses reach 1.4, rooms at a seventh of their light 3.8
DARK, BRIGHT = 16, 240  # mean gray levels


def blank(image: np.ndarray) -> str:
    """What is wrong with an image (H, W, 3) uint8 RGB that shows nothing, in words; '' if it shows something.

    Nothing: a covered or overexposed camera, a cable without signal, a wall that fills the view.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    factor = min(1.0, CELLS / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    cells = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    detail = np.abs(cells - cv2.GaussianBlur(cells, (0, 0), SURROUNDINGS))
    if np.quantile(detail, 1 - PART) >= MIN_DETAIL:
        return ''
    level = float(gray.mean())
    if level < DARK:
        return f'is black (mean {level:.0f} of 255): is the lens covered, or the exposure too short?'
    if level > BRIGHT:
        return f'is white (mean {level:.0f} of 255): is it overexposed?'
    return (
        f'shows nothing (mean {level:.0f} of 255, no contrast): is the lens covered, or a wall all there is?'
    )


def check_image(image: np.ndarray, name: str = 'image') -> None:
    """Raises ValueError, which begins with `name`, for an image (H, W, 3) that is too small, or too long a
    strip, for a scene, or that shows nothing.
    """
    short, long = sorted(image.shape[:2])
    if short < MIN_SIDE or long > MAX_ASPECT * short:
        raise ValueError(
            f'{name} of {image.shape[1]}x{image.shape[0]} px: wanted at least {MIN_SIDE} px a side, and one '
            f'side at most {MAX_ASPECT} times the other; give the whole image of the camera'
        )
    if problem := blank(image):
        raise ValueError(f'{name} {problem}')
