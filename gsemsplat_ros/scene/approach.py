"""The approach pose: free ground in front of an object, in sight of it, and reachable on a free path.

The ground is a grid of cells. Points between ankle and head of the robot block a cell. Unseen cells are free:
a planner with a costmap drives the way, and this only chooses the goal.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from gsemsplat_ros.gaussians.rotations import rotation_to_quat
from gsemsplat_ros.semantics.objects import Object

CELL = 0.05  # m
LOW, HIGH = 0.05, 1.5  # m above the floor: points between them block the way
MIN_IN_CELL = 2  # points: a single one may be a stray
STRAY = 0.02  # of the points may lie below the floor
FLOOR_NOISE = 0.15  # m above the lowest of the others: the floor is the fullest layer in this range
MARGIN = 5.0  # m around robot and object: paths further out are not searched
SPAN = 40.0  # m: the survey is at most a square of this side, with the object in its middle
FAR = 1e5  # m from the origin of the frame: further out float32 keeps positions no finer than a cell
FARTHER = 1.0  # m beyond the standoff, for what cannot be approached nearer (a cup on a table)
SIGHT_LOW, SIGHT_HIGH = 0.05, 0.3  # m over the object's top, or over EYE: points between hide it
EYE = 1.2  # m above the floor: taller objects need to be visible up to here only
NEAR_START = 0.5  # m: a robot that appears to be in an obstacle starts from free ground this near


@dataclass(frozen=True)
class Approach:
    """A pose on the floor, in the map's frame: position [m]; quat (w, x, y, z): x to the object, z up."""

    position: tuple[float, float, float]
    quat: tuple[float, float, float, float]


@dataclass(frozen=True)
class Ground:
    """A grid of cells of CELL m: (i, j) covers `origin` + (i .. i + 1, j .. j + 1) CELL along ground x, y.

    blocked, hiding (I, J) bool: cells that block the way; cells that hide the object.
    """

    origin: np.ndarray
    blocked: np.ndarray
    hiding: np.ndarray

    def cell(self, xy: np.ndarray) -> tuple[int, int]:
        """The cell (i, j) of a place (2,) [m]."""
        i, j = np.floor((np.asarray(xy) - self.origin) / CELL).astype(int).tolist()
        return i, j

    def centers(self) -> np.ndarray:
        """(I, J, 2) [m] centres of the cells."""
        return (np.stack([*np.indices(self.blocked.shape)], -1) + 0.5) * CELL + self.origin


def approach_pose(
    target: Object,
    points: np.ndarray,
    robot: np.ndarray,
    robot_radius_m: float,
    standoff_m: float,
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> tuple[Approach | None, str]:
    """A pose in front of `target`, facing it, or None; and the reason for None, or what the pose leaves open.

    target: box in the map's frame [m]; points (N, 3): means of the map's Gaussians [m], at least those in
    `looked_at`; robot (3,): position of the robot or its camera [m]; robot_radius_m: of the robot seen from
    above; standoff_m: from the robot's middle to the target's box, or up to 1 m more where nothing nearer is
    free; up: unit vector against gravity in the map's frame ((0, -1, 0) for a level camera's optical frame).

    Of the free places nearest to the standoff from which the target's top is visible, the
    one with the shortest free path from the robot. The ground is looked at within SPAN / 2 of the target: the
    path of a robot that is farther away begins where the straight line enters. Raises ValueError for a radius
    or standoff not above 0, an unusable up, and a robot or target that is too far from the origin, too large
    or nowhere.
    """
    if not robot_radius_m > 0 or not standoff_m > 0:
        raise ValueError(f'robot radius {robot_radius_m} m, standoff {standoff_m} m: wanted both above 0')
    ground_from_map = upright(np.asarray(up, float))
    start, center, half = placed(target, robot, standoff_m, ground_from_map)
    points = np.asarray(points)
    heights = points @ ground_from_map[2]
    floor = floor_height(heights[np.isfinite(heights)], start[2])
    start, beyond_m = entrance(start, center)
    ground = survey(np.ascontiguousarray(points), ground_from_map, floor, center, half, start)

    distance = cv2.distanceTransform((~ground.blocked).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    free = (distance - 0.5) * CELL >= robot_radius_m  # from the middle to the edge of a blocked cell
    near_m = 2 * SPAN if beyond_m else max(NEAR_START, robot_radius_m)
    steps = way(free, ground, start[:2], near_m)
    if steps is None:
        return None, f'the robot has no free ground within {near_m:g} m'
    centers = ground.centers()
    away = np.linalg.norm(np.maximum(np.abs(centers - center[:2]) - half[:2], 0), axis=-1)
    wanted = free & (away > standoff_m - CELL) & (away <= standoff_m + FARTHER)
    if not wanted.any():
        return None, f'no free place for the robot within {standoff_m + FARTHER:.2f} m of the object'
    wanted &= steps >= 0
    if not wanted.any():
        return None, 'no free way leads from the robot to the object'
    places = np.argwhere(wanted)
    # whole steps are slightly too few on oblique paths, but no path is shorter than the straight line
    length = np.maximum((steps - 1) * CELL, np.linalg.norm(centers - start[:2], axis=-1))
    ring = np.floor((away[wanted] - standoff_m) / (2 * CELL) + 0.5)  # rings are two cells wide
    rank = np.lexsort((length[wanted], ring))  # nearest ring first, within it the shortest path
    chosen = centers[tuple(places[rank].T)]
    number = _first_in_sight(ground.hiding, ground.origin, chosen, center[:2], half[:2])
    if number >= 0:
        forward = center[:2] - chosen[number]
        yaw = float(np.arctan2(forward[1], forward[0]))
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        position = ground_from_map.T @ np.array([*chosen[number], floor])
        approach = Approach(
            tuple(position.tolist()), tuple(rotation_to_quat(ground_from_map.T @ turn).tolist())
        )
        return approach, (
            f'the first {beyond_m:.0f} m of the way there were not looked at' if beyond_m else ''
        )
    return None, 'no place that the robot can reach has the object in sight'


def upright(up: np.ndarray) -> np.ndarray:
    """ground_from_map (3, 3): a rotation of `up` (3,) to z; the identity if it is z. Raises ValueError."""
    length = np.linalg.norm(up)
    if not np.isfinite(length) or length < 1e-6:
        raise ValueError(f'up {tuple(up)}: wanted a direction, such as (0, 0, 1)')
    z = up / length
    x = np.eye(3)[np.argmin(np.abs(z))]
    x = x - z * (x @ z)
    x /= np.linalg.norm(x)
    return np.stack((x, np.cross(z, x), z))


def placed(
    target: Object, robot: np.ndarray, standoff_m: float, ground_from_map: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Robot (3,), middle of the target (3,) and half of its box (3,) [m] above the ground. Raises ValueError
    where a survey of SPAN cannot hold them."""
    start, center = ground_from_map @ np.asarray(robot, float), ground_from_map @ np.array(target.center)
    half = np.abs(ground_from_map) @ np.array(target.size) / 2
    for what, at in ('robot', start), ('object', center):
        if not (np.abs(at) <= FAR).all():  # nor NaN
            raise ValueError(
                f'the {what} is {np.linalg.norm(at):.3g} m from the origin: wanted at most {FAR:g} m'
            )
    room = SPAN / 2 - FARTHER - CELL
    if not ((half >= 0) & (half + standoff_m <= room))[:2].all():
        raise ValueError(
            f'an object of {2 * half[0]:.3g} x {2 * half[1]:.3g} m, to be approached to {standoff_m:g} m, is '
            f'too large: wanted at most {room:.1f} m from its middle'
        )
    return start, center, half


def entrance(start: np.ndarray, center: np.ndarray) -> tuple[np.ndarray, float]:
    """Where the straight line from `start` to `center` (3,) [m] enters the square of SPAN about `center`, and
    how far from `start` that is: `start` itself and 0 within."""
    far = np.abs(start - center)[:2].max()
    if far <= SPAN / 2:
        return start, 0.0
    enters = center + (start - center) * (SPAN / 2 / far)
    return enters, float(np.linalg.norm((enters - start)[:2]))


def floor_height(heights: np.ndarray, robot_height: float) -> float:
    """Height [m] of the floor: the fullest of the lowest layers, and never above the robot.

    Without a visible floor it is the lowest visible surface. heights (N,) [m] of the points.
    """
    if not len(heights):
        return robot_height
    lowest = np.quantile(heights, STRAY, method='lower')  # of a point: there may be none near other quantiles
    low = heights[(heights >= lowest) & (heights - lowest < FLOOR_NOISE)]
    layers = ((low - lowest) / CELL).astype(int)
    return min(float(np.median(low[layers == np.bincount(layers).argmax()])), robot_height)


def survey(
    points: np.ndarray,
    ground_from_map: np.ndarray,
    floor: float,
    center: np.ndarray,
    half: np.ndarray,
    start: np.ndarray,
) -> Ground:
    """The ground around robot and object, at most SPAN / 2 from the object's middle: the cells that block the
    way and those that hide the object. points (N, 3) are in the map's frame, the rest is above the ground.
    """
    low, high = surveyed(start[:2], center[:2], half[:2])
    shape = np.ceil((high - low) / CELL).astype(int)
    eye = min(center[2] + half[2] - floor, EYE)
    blocked, hiding = _counts(points, ground_from_map, low, shape[0], shape[1], floor, eye)
    return Ground(low, blocked >= MIN_IN_CELL, hiding >= MIN_IN_CELL)


def surveyed(start: np.ndarray, center: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners (2,) [m] of the ground that is looked at; start, center, half (2,): robot, middle of the
    target, and half of its box."""
    low = np.maximum(np.minimum(start, center - half) - MARGIN, center - SPAN / 2)
    high = np.minimum(np.maximum(start, center + half) + MARGIN, center + SPAN / 2)
    return low, high


def looked_at(target: Object, robot: np.ndarray) -> np.ndarray:
    """(2, 3) [m]: the corners of the box whose points `approach_pose` needs, in a map with z up."""
    center, half = np.array(target.center)[:2], np.array(target.size)[:2] / 2
    start = np.clip(np.asarray(robot, float)[:2], center - SPAN / 2, center + SPAN / 2)
    low, high = surveyed(start, center, half)
    return np.array([[*low, -np.inf], [*high, np.inf]])


@njit(nogil=True, cache=True)
def _counts(points, turn, low, width, height, floor, eye):
    """How many points (N, 3), after the rotation `turn`, block each cell, and how many hide objects there:
    two (width, height) int32. Those that are not finite are in no cell."""
    blocked, hiding = np.zeros((width, height), np.int32), np.zeros((width, height), np.int32)
    for n in range(len(points)):
        p, q, r = points[n, 0], points[n, 1], points[n, 2]
        i = np.floor((turn[0, 0] * p + turn[0, 1] * q + turn[0, 2] * r - low[0]) / CELL)
        j = np.floor((turn[1, 0] * p + turn[1, 1] * q + turn[1, 2] * r - low[1]) / CELL)
        if 0 <= i < width and 0 <= j < height:
            up, i, j = turn[2, 0] * p + turn[2, 1] * q + turn[2, 2] * r - floor, int(i), int(j)
            blocked[i, j] += LOW < up < HIGH
            hiding[i, j] += eye + SIGHT_LOW < up < eye + SIGHT_HIGH
    return blocked, hiding


def way(free: np.ndarray, ground: Ground, start: np.ndarray, near_m: float) -> np.ndarray | None:
    """Steps (I, J) from `start` (2,) to each free cell, -1 if unreachable; None: no free ground within
    `near_m` of it.

    A wave that expands to four and to eight neighbours in turn, so that its front is nearly round.
    """
    apart = np.linalg.norm(ground.centers() - start, axis=-1)
    near = np.where(free, apart, np.inf)
    first = np.unravel_index(near.argmin(), near.shape)
    if near[first] > near_m:
        return None
    return _wave(free, first[0], first[1])


@njit(nogil=True, cache=True)
def _wave(free, i, j):
    """Steps (I, J) int64 of the wave from cell (i, j) over the free cells (I, J) bool, -1 if not reached."""
    width, height = free.shape
    steps = np.full((width, height), -1)
    steps[i, j] = 0
    # cells in the order in which they were reached: from `first` on not yet expanded to eight neighbours,
    # from `new` on not expanded at all
    cells = np.empty((width * height, 2), np.int32)
    cells[0, 0], cells[0, 1] = i, j
    first, new, count, number = 0, 0, 1, 0
    while True:
        square = number % 2 == 1
        number += 1
        begin, end = first if square else new, count
        for n in range(begin, end):
            for di in range(-1, 2):
                for dj in range(-1, 2):
                    if square or di == 0 or dj == 0:
                        a, b = cells[n, 0] + di, cells[n, 1] + dj
                        if 0 <= a < width and 0 <= b < height and free[a, b] and steps[a, b] < 0:
                            steps[a, b] = number
                            cells[count, 0], cells[count, 1] = a, b
                            count += 1
        if square:
            if count == end:
                return steps  # end here only: where four neighbours reach nothing, eight still may
            first = end
        new = end


@njit(nogil=True, cache=True)
def _first_in_sight(hiding, origin, places, center, half):
    """The first of `places` (N, 2) [m] from which nothing hides the object on the straight line to its
    middle, up to its box; -1: none.
    """
    for n in range(len(places)):
        dx, dy = center[0] - places[n, 0], center[1] - places[n, 1]
        count = int(np.ceil(np.sqrt(dx * dx + dy * dy) / (CELL / 2))) + 1
        clear = True
        for k in range(count):
            part = 1.0 if k == count - 1 else k / (count - 1)
            x, y = places[n, 0] + part * dx, places[n, 1] + part * dy
            outside = abs(x - center[0]) > half[0] + CELL or abs(y - center[1]) > half[1] + CELL
            i, j = int(np.floor((x - origin[0]) / CELL)), int(np.floor((y - origin[1]) / CELL))
            if outside and hiding[i, j]:
                clear = False
                break
        if clear:
            return n
    return -1
