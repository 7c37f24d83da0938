"""The similarity between two sets of points: x -> s R x + t."""

from __future__ import annotations

import numpy as np


def similarity(points: np.ndarray, to: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3), translation (3,) that take points (N, 3) closest to others (Umeyama 1991)."""
    a, b = points - points.mean(0), to - to.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((s * signs).sum() / max((a**2).sum(), 1e-12))
    return scale, rotation, to.mean(0) - scale * rotation @ points.mean(0)
