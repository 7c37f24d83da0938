"""Features as colours: the first three principal components become red, green and blue. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

QUANTILES = (0.02, 0.98)  # of each component: the ends of its colour, unaffected by a few strays
WEAKEST = 0.05  # of the strongest component's range: narrower ranges are not stretched to a whole colour
LEVELS = 0.1, 0.95  # of the colours: neither black, which is the background, nor glaring


@dataclass(frozen=True)
class Principal:
    """A fixed map from features to colours, so that one feature has one colour in every picture.

    components (3, C): orthonormal, strongest first, each with its largest entry positive; low, high (3,): the
    projections at the ends of the colours.
    """

    components: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> Principal:
        """From features (N, C), N at least 1."""
        features = np.asarray(features, np.float64)
        centred = features - features.mean(0)
        # the right singular vectors by way of the (C, C) covariance: N may be large
        vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1].T[:3]
        signs = np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])
        components = np.zeros((3, features.shape[1]))
        components[: len(vectors)] = vectors * np.where(signs == 0, 1, signs)[:, None]
        low, high = np.quantile(features @ components.T, QUANTILES, axis=0)
        # a direction without differences would show rounding only
        middle, spread = (low + high) / 2, np.maximum(high - low, max(WEAKEST * (high - low).max(), 1e-9))
        return cls(components, middle - spread / 2, middle + spread / 2)

    def colors(self, projected: np.ndarray) -> np.ndarray:
        """Projections (..., 3) of features on the components to RGB (..., 3) float32 in [0, 1]."""
        level = np.clip((projected - self.low) / (self.high - self.low), 0, 1)
        return (LEVELS[0] + (LEVELS[1] - LEVELS[0]) * level).astype(np.float32)
