"""Images of 16 bits a channel: which of their values is white."""

from __future__ import annotations

import logging

import cv2
import numpy as np

WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
RARE = 1e-4  # part of the values that may lie above white: hot pixels and markers are not the picture

log = logging.getLogger(__name__)


class Levels:
    """Scales the images of one camera, or of a stereo pair, from 16 to 8 bits, all of them alike.

    Sensors of 10, 12 or 14 bits fill the low bits of 16. How many are filled is seen from the values; it only
    grows, so that pictures do not flicker. white: the value that becomes 255, by what was seen so far.
    """

    def __init__(self) -> None:
        self.white = WHITES[0]

    def see(self, values: np.ndarray) -> None:
        """Take account of an image of any shape; uint8 says nothing about the others."""
        if values.dtype == np.uint8 or not _beyond(values, self.white):
            return
        self.white = next((white for white in WHITES[:-1] if not _beyond(values, white)), WHITES[-1])
        if not (values % 257).any():  # 8 bits, widened to 16: as dark as it may be
            self.white = WHITES[-1]
        if self.white < WHITES[-1]:
            log.info('16-bit images fill %d bits: %d is white', self.white.bit_length(), self.white)

    def to_8_bits(self, values: np.ndarray) -> np.ndarray:
        """`values` uint16 of any shape, which `see` may not know yet, as uint8; uint8 stays as it is."""
        if values.dtype == np.uint8:
            return values
        self.see(values)
        # rounded, as cv_bridge does with images of which all 16 bits are filled
        return cv2.convertScaleAbs(values, alpha=255 / self.white).reshape(values.shape)


def _beyond(values: np.ndarray, white: int) -> bool:
    return np.count_nonzero(values > white) > RARE * values.size
