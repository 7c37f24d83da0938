"""Two calibrated views of the same points: depths, errors and relative motion.

Rays (N, 3) have depth 1 in their camera. A motion is the pose of the second camera in the frame of the first,
(4, 4) rigid; `_rel`: in an unknown unit, the same for its translation and for depths.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

NOISE = 1.0  # standard deviation of a right match, in tolerances: counts for what the errors share
ROUNDS = 10
SETTLED = 1e-4  # smaller gains [squared standard deviations] are none


class Polished(NamedTuple):
    """A motion, with a translation of length 1, and the factor on the focal length that go with it.

    spread: standard deviation [rad] of rotation and direction together, focal_spread: of ln of the factor, as
    far as the noise of independent matches tells.
    """

    first_from_second_rel: np.ndarray
    focal_factor: float
    spread: float
    focal_spread: float


def with_focal(rays: np.ndarray, factor: float) -> np.ndarray:
    """The rays (N, 3) of the same pixels if the focal length is `factor` times as long."""
    return rays / (factor, factor, 1.0)


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


def cross_matrix(t: np.ndarray) -> np.ndarray:
    """(3, 3): cross_matrix(t) @ x is the cross product of t and x."""
    x, y, z = t
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def epipolar_errors(
    first_from_second_rel: np.ndarray, rays_first: np.ndarray, rays_second: np.ndarray
) -> np.ndarray:
    """(N,) signed distances of matches from their epipolar lines, at depth 1 (Sampson 1982)."""
    # ray_first^T E ray_second = 0
    essential = cross_matrix(first_from_second_rel[:3, 3]) @ first_from_second_rel[:3, :3]
    to_first, to_second = rays_second @ essential.T, rays_first @ essential
    slope = (to_first[:, :2] ** 2).sum(1) + (to_second[:, :2] ** 2).sum(1)
    return (rays_first * to_first).sum(1) / np.sqrt(np.maximum(slope, 1e-18))


def polish(
    first_from_second_rel: np.ndarray,
    rays_first: np.ndarray,
    rays_second: np.ndarray,
    tolerance: float,
    focal_spread: float = 0.0,
    focal_factor: float = 1.0,
) -> Polished:
    """The motion that brings all matches nearest to their epipolar lines, from one that is nearly right.

    Gauss-Newton over rotation, direction and, with focal_spread > 0, one factor on the focal lengths of both
    cameras, from `focal_factor`: the rays assume it is 1 up to this standard deviation of its logarithm.
    Matches beyond `tolerance` [at depth 1] fade (Geman-McClure).
    """

    def moved(pose: np.ndarray, log_focal: float, step: np.ndarray) -> tuple[np.ndarray, float]:
        new = pose.copy()
        new[:3, :3] = cv2.Rodrigues(step[:3])[0] @ pose[:3, :3]
        new[:3, 3] += step[3:6]
        new[:3, 3] /= np.linalg.norm(new[:3, 3])
        return new, log_focal + float(step[6])

    def errors_of(pose: np.ndarray, log_focal: float) -> np.ndarray:
        """In the unit of the tolerance."""
        factor = np.exp(log_focal)
        first, second = with_focal(rays_first, factor), with_focal(rays_second, factor)
        return epipolar_errors(pose, first, second) * (factor / tolerance)

    def slopes_at(pose: np.ndarray, log_focal: float, errors: np.ndarray) -> np.ndarray:
        """(N, 6 or 7): of the errors by each axis; the distance's normalisation counts as constant."""
        factor = np.exp(log_focal)
        first, turned = with_focal(rays_first, factor), with_focal(rays_second, factor) @ pose[:3, :3].T
        cross = cross_matrix(pose[:3, 3])
        normal_first, normal_second = (
            turned @ cross.T,
            first @ cross,
        )  # first . normal_first = 0, but for errors
        back = normal_second @ pose[:3, :3]
        size = np.sqrt((normal_first[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1))
        slopes = np.hstack((np.cross(turned, normal_second), np.cross(turned, first)))
        slopes *= (factor / tolerance / np.maximum(size, 1e-9))[:, None]
        if focal_spread:
            slopes = np.c_[slopes, (errors_of(pose, log_focal + 1e-6) - errors) / 1e-6]
        return slopes

    def cost(errors: np.ndarray, log_focal: float) -> float:
        squares = errors**2
        return float((squares / (1 + squares)).sum() / NOISE**2 + log_focal**2 * prior)

    axes = np.eye(7) if focal_spread else np.eye(6, 7)
    prior = 1 / focal_spread**2 if focal_spread else 0.0
    focal = axes[:, 6]
    pose, log_focal = first_from_second_rel, float(np.log(focal_factor))
    errors = errors_of(pose, log_focal)
    for _ in range(ROUNDS):
        slopes = slopes_at(pose, log_focal, errors)
        weights = 1 / (1 + errors**2) ** 2 / NOISE**2
        information = (slopes * weights[:, None]).T @ slopes + prior * np.outer(focal, focal)
        along = axes[:, 3:6] @ pose[:3, 3]
        # the length of the translation shows nowhere: it is held
        held = np.outer(along, along) + 1e-9 * np.eye(len(axes))
        covariance = np.linalg.inv(information + np.trace(information) * held)
        downhill = (slopes * weights[:, None]).T @ errors + prior * log_focal * focal
        better, focal_after = moved(pose, log_focal, -axes.T @ covariance @ downhill)
        after = errors_of(better, focal_after)
        if not cost(after, focal_after) < cost(errors, log_focal) - SETTLED:
            break
        pose, log_focal, errors = better, focal_after, after
    spreads = np.sqrt(axes.T @ np.diag(covariance))
    return Polished(pose, float(np.exp(log_focal)), float(np.linalg.norm(spreads[:6])), float(spreads[6]))
