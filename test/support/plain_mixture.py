"""The relevancy of a mixture by the formulas of its docstring, in float64, one phrase after the other."""

import numpy as np


def plain_place(region, context, mixture):
    """Where the phrase is, from the contrasts of both branches, of any shape."""
    return region + mixture.context * np.log1p(np.exp(context + 2))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_mixture(contrasts, mixture, inside=None):
    """Contrasts (2, K, ...) -> relevancy (K, ...); `inside` (...) bool: where the peak is looked for, 0
    elsewhere.
    """
    out = []
    for region, context in np.asarray(contrasts, np.float64).transpose(1, 0, *range(2, np.ndim(contrasts))):
        place = plain_place(region, context, mixture)
        if inside is not None:
            place = np.where(inside, place, -1e4)
        peak = np.unravel_index(place.argmax(), place.shape)
        extent = region + mixture.context / 4 * np.log1p(np.exp(context + 2))
        fall = 4 * (np.minimum(extent - extent[peak], 0) + 0.02 * (place - place[peak]))
        score = sigmoid(mixture.slope * place[peak] + mixture.offset)
        out.append(score * sigmoid(2 + fall) / sigmoid(2))
    return np.array(out)
