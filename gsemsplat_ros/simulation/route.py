"""The shortest free way of a round robot on a floor plan: a stand-in for the planner of Nav2."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.scene.approach import CELL, Ground, way
from gsemsplat_ros.simulation.floor_plan import FloorPlan

TOLERANCE = 0.3  # m: so far beside a goal that is not free the way may end (Nav2's `tolerance`: 0.5)


def shortest_way(plan: FloorPlan, start: np.ndarray, goal: np.ndarray, radius: float) -> np.ndarray:
    """Corners (N, 2) m of the shortest way from `start` to `goal` (2,) on which the robot of `radius` [m]
    touches nothing. Ends at the nearest free place where the goal itself is not free.

    Raises ValueError where that is farther than TOLERANCE, or where no way leads there.
    """
    low, _ = plan.bounds
    # half a diagonal of a cell more, so that the robot is free wherever in a free cell it stands
    free = plan.clearance >= radius + CELL
    ground = Ground(low, ~free, np.zeros_like(free))
    apart = np.where(free, np.linalg.norm(plan.centers - goal, axis=-1), np.inf)
    end = np.unravel_index(int(apart.argmin()), free.shape)
    if not apart[end] <= TOLERANCE:
        raise ValueError(f'the goal ({goal[0]:.2f}, {goal[1]:.2f}) m is occupied')
    steps = way(free, ground, np.asarray(start), TOLERANCE)
    if steps is None:
        raise ValueError(f'the robot at ({start[0]:.2f}, {start[1]:.2f}) m has no free ground')
    if steps[end] < 0:
        raise ValueError(f'no free way leads to ({goal[0]:.2f}, {goal[1]:.2f}) m')
    cells = [(int(end[0]), int(end[1]))]
    while steps[cells[-1]]:
        cells.append(_before(steps, cells[-1]))
    points = np.array([start, *plan.centers[tuple(np.array(cells[::-1]).T)]])
    if np.abs(goal - plan.centers[end]).max() <= CELL / 2 + 1e-9:  # the goal itself is free
        points = np.vstack((points, goal))
    return _pulled(points, free, ground)


def _before(steps: np.ndarray, cell: tuple[int, int]) -> tuple[int, int]:
    """The neighbour with the fewest steps; of several the straight one."""
    i, j = cell
    near = [(a, b) for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1)]
    near = [
        (a, b) for a, b in near if 0 <= a < steps.shape[0] and 0 <= b < steps.shape[1] and steps[a, b] >= 0
    ]
    return min(near, key=lambda c: (steps[c], abs(c[0] - i) + abs(c[1] - j)))


def _pulled(points: np.ndarray, free: np.ndarray, ground: Ground) -> np.ndarray:
    """The way through points (N, 2), pulled taut: from each corner straight to the farthest in free sight."""
    kept, at = [0], 0
    while at < len(points) - 1:
        there = next(
            (
                k
                for k in range(len(points) - 1, at + 1, -1)
                if _free_line(points[at], points[k], free, ground)
            ),
            at + 1,
        )
        kept.append(there)
        at = there
    return points[kept]


def _free_line(a: np.ndarray, b: np.ndarray, free: np.ndarray, ground: Ground) -> bool:
    count = int(np.linalg.norm(b - a) / (CELL / 5)) + 2
    i, j = np.floor((np.linspace(a, b, count) - ground.origin) / CELL).astype(int).T
    return bool(free[i, j].all())
