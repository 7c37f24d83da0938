"""The poses of the robot on its way, and when it is there: it turns on the spot and drives straight on.

A pose is (x, y, yaw): metres, and radians about z from x (REP 103).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

SPEED, TURN_SPEED = 0.5, 1.0  # m/s and rad/s
STEP_M, STEP_RAD = 0.35, 0.5  # from one pose to the next, at most


def turned(angle: float) -> float:
    """An angle [rad] within half a turn."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def driven(way: np.ndarray, yaw: float, last_yaw: float) -> np.ndarray:
    """Poses (N, 3), the first excluded, of a robot that stands at way[0] and looks to `yaw`, along the
    corners of `way` (M, 2) m, until it looks to `last_yaw` at the end."""
    poses: list[tuple[float, float, float]] = []

    def turn(to: float) -> None:
        nonlocal yaw
        angle = turned(to - yaw)
        x, y = (poses[-1] if poses else way[0])[:2]
        count = int(np.ceil(abs(angle) / STEP_RAD - 1e-9))
        poses.extend((x, y, turned(yaw + angle * (k + 1) / count)) for k in range(count))
        yaw = to

    for a, b in pairwise(way):
        length = float(np.linalg.norm(b - a))
        if length < 1e-6:
            continue
        turn(float(np.arctan2(*(b - a)[::-1])))
        count = int(np.ceil(length / STEP_M - 1e-9))
        poses += [(*(a + (b - a) * (k + 1) / count).tolist(), turned(yaw)) for k in range(count)]
    turn(last_yaw)
    return np.array(poses).reshape(-1, 3)


def seconds(poses: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Times (N,) s at which the robot is at poses (N, 3): from one to the next it drives and turns at once,
    at SPEED and TURN_SPEED; the slower of both counts."""
    poses = np.asarray(poses, float)
    way = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1) / SPEED
    angle = np.abs((np.diff(poses[:, 2]) + np.pi) % (2 * np.pi) - np.pi) / TURN_SPEED
    return np.concatenate(([0.0], np.cumsum(np.maximum(way, angle))))
