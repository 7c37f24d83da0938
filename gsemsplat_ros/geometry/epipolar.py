"""Two calibrated views of the same points: depths, errors and relative motion.

Rays (N, 3) have depth 1 in their camera. A motion is the pose of the second camera in the frame of the first,
(4, 4) rigid; `_rel`: in an unknown unit, the same for its translation and for depths.
"""

from __future__ import annotations

import cv2
import numpy as np


def triangulate(
    rays_first: np.ndarray, rays_second: np.ndarray, first_from_second_rel: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depths (N,) in both views of the closest points of two rays, and the angles (N,) between them [rad]."""
    turned, t = rays_second @ first_from_second_rel[:3, :3].T, first_from_second_rel[:3, 3]
    aa, bb, ab = (rays_first**2).sum(1), (turned**2).sum(1), (rays_first * turned).sum(1)
    at, bt = rays_first @ t, turned @ t
    across = np.maximum(aa * bb - ab**2, 1e-12)
    angle = np.arcsin(np.sqrt(np.clip(across / (aa * bb), 0, 1)))
    return (at * bb - bt * ab) / across, (at * ab - bt * aa) / across, angle


def epipolar_errors(
    first_from_second_rel: np.ndarray, rays_first: np.ndarray, rays_second: np.ndarray
) -> np.ndarray:
    """(N,) signed distances of matches from their epipolar lines, at depth 1 (Sampson 1982)."""
    x, y, z = first_from_second_rel[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    essential = cross @ first_from_second_rel[:3, :3]  # ray_first^T E ray_second = 0
    to_first, to_second = rays_second @ essential.T, rays_first @ essential
    slope = (to_first[:, :2] ** 2).sum(1) + (to_second[:, :2] ** 2).sum(1)
    return (rays_first * to_first).sum(1) / np.sqrt(np.maximum(slope, 1e-18))


def polish(
    first_from_second_rel: np.ndarray, rays_first: np.ndarray, rays_second: np.ndarray, tolerance: float
) -> np.ndarray:
    """The motion, with a translation of length 1, that brings all matches nearest to their epipolar lines.

    Gauss-Newton over rotation and direction; matches beyond `tolerance` [at depth 1] fade (Geman-McClure).
    """

    def moved(step: np.ndarray) -> np.ndarray:
        new = pose.copy()
        new[:3, :3] = cv2.Rodrigues(step[:3])[0] @ pose[:3, :3]
        new[:3, 3] += step[3:]
        new[:3, 3] /= np.linalg.norm(new[:3, 3])
        return new

    def cost(errors: np.ndarray) -> float:
        squares = (errors / tolerance) ** 2
        return float((squares / (1 + squares)).sum())

    pose = first_from_second_rel
    errors = epipolar_errors(pose, rays_first, rays_second)
    for _ in range(10):
        slopes = np.stack(
            [
                (epipolar_errors(moved(1e-6 * axis), rays_first, rays_second) - errors) / 1e-6
                for axis in np.eye(6)
            ],
            1,
        )
        weights = 1 / (1 + (errors / tolerance) ** 2)
        # errors do not depend on the length of the translation: the step of smallest norm leaves it alone
        better = moved(np.linalg.lstsq(slopes * weights[:, None], -errors * weights, rcond=1e-6)[0])
        after = epipolar_errors(better, rays_first, rays_second)
        if not cost(after) < cost(errors) - 1e-6:
            break
        pose, errors = better, after
    return pose
