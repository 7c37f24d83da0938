"""Gaussians in the axes of a file format.

Scenes lie in the optical frame of their first camera, maps in a frame with z up (both REP 103); each format
names its own axes. All are right-handed, so that one rotation leads from one to the other.
"""

from __future__ import annotations

import math
from enum import Enum

import numpy as np

from gsemsplat_ros.gaussians.gaussians import Gaussians

WIDEST = 60.0  # degrees from the optical axis: Gaussians within were seen by one camera


class Axes(Enum):
    """What x, y and z are. The value: the rotation (3, 3) from there to `Y_UP`, as rows."""

    OPTICAL = (1, 0, 0), (0, -1, 0), (0, 0, -1)  # right, down, forward
    Z_UP = (0, -1, 0), (0, 0, 1), (-1, 0, 0)  # forward, left, up
    Y_UP = (1, 0, 0), (0, 1, 0), (0, 0, 1)  # right, up, backward: glTF's, and what SPZ calls RUB


def rotation(a: Axes, b: Axes) -> np.ndarray:
    """a_from_b (3, 3): what looks forward and upright in `b` does so in `a`."""
    return np.array(a.value, float).T @ np.array(b.value, float)


def turned(gaussians: Gaussians, a: Axes, b: Axes) -> Gaussians:
    """Gaussians in axes `b` as they are in axes `a`; the same object where these are one."""
    if a is b:
        return gaussians
    a_from_b = np.eye(4)
    a_from_b[:3, :3] = rotation(a, b)
    return gaussians.transformed(a_from_b, gaussians.frame)


def guessed(means: np.ndarray) -> Axes:
    """The axes of a file that names none: means (N, 3) within the field of view of one camera at the origin
    are its scene, others a map."""
    reach = math.tan(math.radians(WIDEST)) * means[:, 2:]
    within = (means[:, 2] > 0) & (np.abs(means[:, :2]) < reach).all(1)
    return Axes.OPTICAL if len(means) and within.mean() > 0.99 else Axes.Z_UP
