"""The planner and the motion of the robot in a plan of boxes, beside plain twins."""

import heapq
from itertools import pairwise

import numpy as np
import pytest

from gsemsplat_ros.scene.approach import CELL
from gsemsplat_ros.simulation import motion
from gsemsplat_ros.simulation.floor_plan import FloorPlan, Footprint
from gsemsplat_ros.simulation.route import TOLERANCE, shortest_way

RADIUS = 0.22


def box(x, y, w, d, yaw=0.0):
    """A piece with these half sides."""
    c, s = np.cos(yaw), np.sin(yaw)
    return Footprint('box', np.array([[-w, -d], [w, -d], [w, d], [-w, d]]) @ [[c, s], [-s, c]] + [x, y])


def two_rooms(*pieces, door=(1.0, 1.9)):
    """6 x 3 m with a wall at x = 3 m and a doorway in it."""
    walls = [[(0, 0), (6, 0)], [(6, 0), (6, 3)], [(6, 3), (0, 3)], [(0, 3), (0, 0)]]
    walls += [[(3, 0), (3, door[0])], [(3, door[1]), (3, 3)]]
    return FloorPlan(np.array([[(0, 0), (6, 3)]], float), np.array(walls, float), pieces)


def plain_clearance(plan, place):
    """Distance of a place from what is in its way, by points along every edge; 0 inside a piece."""
    edges = list(plan.walls) + [e for p in plan.pieces for e in zip(p.corners, np.roll(p.corners, -1, 0))]
    part = np.linspace(0, 1, 4001)[:, None]
    near = min(np.linalg.norm(a + (np.subtract(b, a)) * part - place, axis=1).min() for a, b in edges)
    for piece in plan.pieces:
        angles = np.arctan2(*(piece.corners - place).T[::-1])
        around = (np.diff(angles, append=angles[:1]) + np.pi) % (2 * np.pi) - np.pi
        if abs(around.sum()) > 6:
            return 0.0
    low, high = plan.floors[0]
    return float(near) if (low <= place).all() and (place <= high).all() else 0.0


def plain_length(plan, start, goal):
    """Length of the shortest way over the middles of free cells, by Dijkstra over 16 neighbours."""
    free = plan.clearance >= RADIUS + CELL

    def at(place):
        return tuple(np.floor(np.asarray(place) / CELL).astype(int).tolist())

    steps = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if np.gcd(i, j) == 1]
    done, queue = {}, [(0.0, at(start))]
    while queue:
        length, cell = heapq.heappop(queue)
        if cell in done:
            continue
        done[cell] = length
        for i, j in steps:
            there = cell[0] + i, cell[1] + j
            if 0 <= there[0] < free.shape[0] and 0 <= there[1] < free.shape[1] and free[there]:
                heapq.heappush(queue, (length + CELL * np.hypot(i, j), there))
    return done.get(at(goal))


PLANS = [
    two_rooms(),
    two_rooms(box(1.5, 1.4, 0.3, 0.5), box(4.4, 1.2, 0.3, 0.6, 0.4)),
    two_rooms(box(2.0, 2.2, 0.4, 0.7, 0.3), box(4.0, 0.7, 0.35, 0.4), door=(0.4, 1.3)),
]


@pytest.mark.parametrize('plan', PLANS)
def test_clearance_is_the_distance_to_what_is_in_the_way(plan):
    places = np.random.default_rng(0).uniform(-0.3, [6.3, 3.3], (60, 2))
    np.testing.assert_allclose(
        plan.clearance_at(places), [plain_clearance(plan, p) for p in places], atol=2e-3
    )


@pytest.mark.parametrize('plan', PLANS)
def test_the_way_is_free_and_about_the_shortest(plan):
    start, goal = np.array([0.5, 0.5]), np.array([5.4, 2.4])
    way = shortest_way(plan, start, goal, RADIUS)
    np.testing.assert_allclose(way[[0, -1]], [start, goal], atol=1e-9)
    for a, b in pairwise(way):
        for part in np.linspace(0, 1, 60):
            assert plain_clearance(plan, a + part * (b - a)) >= RADIUS
    length = np.linalg.norm(np.diff(way, axis=0), axis=1).sum()
    assert np.linalg.norm(goal - start) - 1e-9 <= length < 1.05 * plain_length(plan, start, goal)


def test_a_goal_that_is_not_free_ends_beside_or_is_refused():
    plan = two_rooms(box(4.5, 1.5, 0.4, 0.4))
    near = np.array([4.5 - 0.4 - RADIUS, 1.5])  # closer than the planner's margin
    end = shortest_way(plan, np.array([0.5, 1.5]), near, RADIUS)[-1]
    assert 0 < np.linalg.norm(end - near) <= TOLERANCE and plain_clearance(plan, end) >= RADIUS
    with pytest.raises(ValueError, match=r'the goal \(4.50, 1.50\) m is occupied'):
        shortest_way(plan, np.array([0.5, 1.5]), np.array([4.5, 1.5]), RADIUS)
    with pytest.raises(ValueError, match=r'no free way leads to \(5.00, 1.50\) m'):
        shortest_way(two_rooms(door=(1.0, 1.4)), np.array([0.5, 1.5]), np.array([5.0, 1.5]), RADIUS)
    with pytest.raises(ValueError, match='the robot at .* has no free ground'):
        shortest_way(two_rooms(box(1, 1, 0.9, 0.9)), np.array([1.0, 1.0]), np.array([5.0, 1.5]), RADIUS)


def test_a_wall_hides_and_its_doorway_does_not():
    plan = two_rooms()
    assert plan.sees(np.array([1.0, 1.5]), np.array([5.0, 1.5]))
    assert not plan.sees(np.array([1.0, 0.5]), np.array([5.0, 0.5]))
    assert plan.sees(np.array([1.0, 0.5]), np.array([2.5, 2.5]))


def test_the_robot_turns_then_drives_and_arrives():
    way = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    poses = motion.driven(way, np.pi, np.radians(-170))
    before = np.vstack(([0, 0, np.pi], poses))
    np.testing.assert_allclose(poses[-1], [1, 2, np.radians(-170)], atol=1e-9)
    for a, b in pairwise(before):
        moved, angle = np.linalg.norm(b[:2] - a[:2]), motion.turned(b[2] - a[2])
        assert moved < 1e-9 or abs(angle) < 1e-9, 'either turns or drives'
        assert moved <= motion.STEP_M + 1e-9 and abs(angle) <= motion.STEP_RAD + 1e-9
        if moved > 1e-9:  # ahead
            np.testing.assert_allclose((b[:2] - a[:2]) / moved, [np.cos(b[2]), np.sin(b[2])], atol=1e-9)
    # half a turn, 1 m, a quarter turn, 2 m, and 100 degrees to the left
    turning = (np.pi + np.pi / 2 + np.radians(100)) / motion.TURN_SPEED
    assert motion.seconds(before)[-1] == pytest.approx(3 / motion.SPEED + turning)
    assert (np.diff(motion.seconds(before)) > 0).all()
    assert motion.driven(way[:1], 0.3, 0.3).shape == (0, 3)
