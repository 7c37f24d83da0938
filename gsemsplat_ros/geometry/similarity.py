"""Similarities, x -> R (s x) + t: of a scene whose unit is not the map's, or between two sets of points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Similarity(NamedTuple):
    """x -> R (scale x) + t: the rigid `pose` (4, 4) float64 after a scaling."""

    pose: np.ndarray
    scale: float = 1.0

    def __matmul__(self, other: Similarity) -> Similarity:
        """This one after the other."""
        pose = self.pose @ other.pose
        pose[:3, 3] = self.pose[:3, :3] @ (self.scale * other.pose[:3, 3]) + self.pose[:3, 3]
        return Similarity(pose, self.scale * other.scale)

    @property
    def inverse(self) -> Similarity:
        """The one that takes all back."""
        pose = np.linalg.inv(self.pose)
        pose[:3, 3] /= self.scale
        return Similarity(pose, 1 / self.scale)

    @property
    def turn(self) -> float:
        """Its angle [rad]."""
        return turn(self.pose)

    @property
    def way(self) -> float:
        """How far it moves the origin."""
        return float(np.linalg.norm(self.pose[:3, 3]))


def turn(pose: np.ndarray) -> float:
    """The angle [rad] by which a pose (4, 4) turns."""
    return float(np.arccos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1)))


def similarity(points: np.ndarray, to: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3), translation (3,) that take points (N, 3) closest to others (Umeyama 1991)."""
    a, b = points - points.mean(0), to - to.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((s * signs).sum() / max((a**2).sum(), 1e-12))
    return scale, rotation, to.mean(0) - scale * rotation @ points.mean(0)
