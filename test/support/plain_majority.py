"""The majority filter of the published evaluation, in plain loops."""

import numpy as np


def plain_majority(mask):
    """The filtered mask (H, W) bool, pixel by pixel."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    for row in range(height):
        for column in range(width):
            rows = slice(max(0, row - 3), min(row + 4, height - 1))
            window = mask[rows, max(0, column - 3) : min(column + 4, width - 1)]
            out[row, column] = np.count_nonzero(window) > np.count_nonzero(~window)
    return out
