"""Where to stand, in rooms made of points: in front of the thing, facing it, on ground that the robot can
reach.
"""

import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.scene import approach
from gsemsplat_ros.scene.approach import approach_pose, floor_height, upright
from gsemsplat_ros.semantics.objects import Object

STEP = 0.03  # m between points, as in a map of 3 cm voxels


def slab(low, high):
    """Points on a grid that fills the box from `low` to `high`."""
    axes = [np.arange(a, b + STEP / 2, STEP) for a, b in zip(low, high)]
    return np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)


def shell(low, high):
    """Points on the six faces of a box."""
    points = slab(low, high)
    return points[((points - np.array(low) < STEP / 2) | (np.array(high) - points < STEP / 2 + 0.02)).any(1)]


def room(*parts, size=(6, 5)):
    """Floor at z = 0, ceiling at 2.5 m, four walls, and `parts`."""
    x, y = size
    walls = [
        slab((0, 0, 0), (x, y, 0)),
        slab((0, 0, 2.5), (x, y, 2.5)),
        slab((0, 0, 0), (0, y, 2.5)),
        slab((x, 0, 0), (x, y, 2.5)),
        slab((0, 0, 0), (x, 0, 2.5)),
        slab((0, y, 0), (x, y, 2.5)),
    ]
    return np.concatenate([*walls, *parts])


def box_object(low, high):
    low, high = np.array(low, float), np.array(high, float)
    return Object(tuple((low + high) / 2), tuple(high - low), 0.9), shell(low, high)


def heading(approach, up=(0, 0, 1)):
    """Forward (3,) of the pose; checks that its z is up."""
    turn = quats_to_rotations(torch.tensor(approach.quat))
    np.testing.assert_allclose(turn[:, 2], up, atol=1e-9)
    return turn[:, 0].numpy()


def check(approach, thing, points, radius, floor=0.0):
    """On the floor, facing the middle of the thing, and no obstacle within the robot's radius."""
    position = np.array(approach.position)
    assert position[2] == pytest.approx(floor, abs=0.03)
    to_thing = (np.array(thing.center) - position)[:2]
    np.testing.assert_allclose(heading(approach)[:2], to_thing / np.linalg.norm(to_thing), atol=1e-6)
    obstacles = points[(points[:, 2] > floor + 0.06) & (points[:, 2] < floor + 1.5)]
    assert np.linalg.norm(obstacles[:, :2] - position[:2], axis=1).min() >= radius - 1e-9


def gap_to(approach, thing):
    """Distance on the ground from the pose to the thing's box."""
    beyond = np.abs(np.array(approach.position) - thing.center)[:2] - np.array(thing.size)[:2] / 2
    return np.linalg.norm(np.maximum(beyond, 0))


def test_a_thing_in_the_open_is_faced_from_the_robots_side():
    chair, body = box_object((3.8, 2.3, 0), (4.2, 2.7, 0.9))
    points = room(body)
    approach, reason = approach_pose(chair, points, (1, 2.5, 0.1), 0.2, 0.5)
    assert reason == ''
    check(approach, chair, points, 0.2)
    assert gap_to(approach, chair) == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(approach.position[:2], (3.3, 2.5), atol=0.15)


def test_against_a_wall_the_pose_is_inside_the_room():
    sofa, body = box_object((2.5, 4.1, 0), (4.2, 4.95, 0.8))
    points = room(body)
    approach, _ = approach_pose(sofa, points, (1, 1, 0.1), 0.25, 0.6)
    check(approach, sofa, points, 0.25)
    assert 0 < approach.position[1] < 4.1 and gap_to(approach, sofa) == pytest.approx(0.6, abs=0.1)


def test_behind_a_wall_with_a_gap_the_pose_is_beyond_the_wall():
    """The nearest place in a straight line is on the robot's side of the wall, where the thing cannot be
    seen.
    """
    chair, body = box_object((3.2, 1.0, 0), (3.6, 1.4, 0.9))
    points = room(body, slab((3, 0, 0), (3.03, 3.9, 2.5)))  # a gap of 1.1 m at y = 3.9 .. 5
    approach, _ = approach_pose(chair, points, (2.2, 1.2, 0.1), 0.2, 0.5)
    check(approach, chair, points, 0.2)
    assert approach.position[0] > 3.2
    blocked, reason = approach_pose(chair, points, (2.2, 1.2, 0.1), 0.6, 0.7)
    assert blocked is None and reason == 'no place that the robot can reach has the object in sight'


def test_the_shortest_way_decides_between_two_sides():
    """The wall's gap is at large y: of the places about the pillar, that towards the gap is nearest by
    way.
    """
    pillar, body = box_object((4.4, 2.4, 0), (4.6, 2.6, 1.2))
    points = room(body, slab((3, 0, 0), (3.03, 3.9, 2.5)))
    approach, _ = approach_pose(pillar, points, (1.0, 0.5, 0.1), 0.2, 0.5)
    check(approach, pillar, points, 0.2)
    assert approach.position[1] > 2.6


@pytest.mark.parametrize(
    'walls, said',
    [
        (0.5, 'no free place for the robot within 1.50 m of the object'),
        (1.2, 'no place that the robot can reach has the object in sight'),
        (1.8, 'no free way leads from the robot to the object'),
    ],
)
def test_an_enclosed_thing_cannot_be_approached(walls, said):
    vase, body = box_object((3.9, 2.4, 0), (4.1, 2.6, 0.5))
    low, high = np.array((4 - walls, 2.5 - walls)), np.array((4 + walls, 2.5 + walls))
    pen = [
        slab((low[0], low[1], 0), (low[0], high[1], 1.4)),
        slab((high[0], low[1], 0), (high[0], high[1], 1.4)),
        slab((low[0], low[1], 0), (high[0], low[1], 1.4)),
        slab((low[0], high[1], 0), (high[0], high[1], 1.4)),
    ]
    shelves = filled_about(low, high) if walls < 1 else []
    points = room(body, *pen, *shelves)
    approach, reason = approach_pose(vase, points, (0.8, 0.8, 0.1), 0.2, 0.5)
    assert approach is None and reason == said


def filled_about(low, high):
    """Shelves everywhere within 2 m of a pen."""
    posts = slab((low[0] - 1.6, low[1] - 1.6, 0.3), (high[0] + 1.6, high[1] + 1.6, 0.35))
    inside = (posts[:, :2] > low).all(1) & (posts[:, :2] < high).all(1)
    return [posts[~inside]]


def test_a_thing_that_only_a_wall_hides_has_no_pose_behind_it():
    """The robot is locked out: places at the standoff exist on its side, but all of them see the wall."""
    chair, body = box_object((3.15, 2.3, 0), (3.5, 2.7, 0.9))
    points = room(body, slab((3, 0, 0), (3.03, 5, 2.5)))
    approach, reason = approach_pose(chair, points, (1.5, 2.5, 0.1), 0.2, 0.5)
    assert approach is None and reason == 'no place that the robot can reach has the object in sight'


def test_a_cup_on_a_table_is_faced_from_the_tables_edge():
    cup, body = box_object((4.0, 2.45, 0.75), (4.1, 2.55, 0.87))
    points = room(body, slab((3.2, 2.0, 0.72), (4.9, 3.0, 0.75)))
    approach, _ = approach_pose(cup, points, (1, 2.5, 0.1), 0.2, 0.3)
    check(approach, cup, points, 0.2)
    assert 0.5 < gap_to(approach, cup) < 0.85  # as near as the table lets


def test_in_an_optical_frame_up_is_minus_y():
    """The same room seen in a level camera's frame (x right, y down, z forward) gives the same place."""
    chair, body = box_object((3.8, 2.3, 0), (4.2, 2.7, 0.9))
    points = room(body)
    expected, _ = approach_pose(chair, points, (1, 2.5, 1.0), 0.2, 0.5)
    optical_from_map = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    turned = Object(tuple(optical_from_map @ chair.center), tuple(np.abs(optical_from_map) @ chair.size), 0.9)
    approach, _ = approach_pose(
        turned, points @ optical_from_map.T, optical_from_map @ (1, 2.5, 1.0), 0.2, 0.5, up=(0, -1, 0)
    )
    np.testing.assert_allclose(optical_from_map.T @ approach.position, expected.position, atol=0.06)
    np.testing.assert_allclose(
        optical_from_map.T @ heading(approach, (0, -1, 0)), heading(expected), atol=0.1
    )


def test_the_floor_is_found_below_noise_and_without_being_seen():
    rng = np.random.default_rng(0)
    points = room(box_object((2, 2, 0), (3, 3, 0.7))[1])
    noisy = np.concatenate([points[:, 2] + rng.normal(0, 0.015, len(points)), rng.uniform(-2, 0, 500)])
    assert floor_height(noisy, 0.5) == pytest.approx(0, abs=0.03)
    walls = points[points[:, 2] > 0.02]  # little floor is seen, and much of the walls
    part = np.concatenate([walls[:, 2], rng.normal(0, 0.02, len(walls) // 15)])
    assert floor_height(part, 0.5) == pytest.approx(0.02, abs=0.04)
    table = slab((2, 2, 0.7), (3, 3, 0.73))
    assert floor_height(table[:, 2], 0.1) == 0.1  # a robot does not float below tables
    assert floor_height(np.zeros(0), 0.3) == 0.3


def test_strays_do_not_block_and_no_points_is_all_free():
    rng = np.random.default_rng(1)
    chair, body = box_object((3.8, 2.3, 0), (4.2, 2.7, 0.9))
    cells = np.stack(np.meshgrid(np.arange(0.5, 5.5, 0.2), np.arange(0.5, 4.5, 0.2)), -1).reshape(-1, 2)
    strays = np.column_stack((cells, rng.uniform(0.2, 1.4, len(cells))))
    strays = strays[np.abs(strays[:, 0] - 4) > 0.4]
    expected, _ = approach_pose(chair, room(body), (1, 2.5, 0.1), 0.2, 0.5)
    approach, _ = approach_pose(
        chair, np.concatenate([room(body), strays, [[np.nan] * 3]]), (1, 2.5, 0.1), 0.2, 0.5
    )
    assert approach == expected
    approach, reason = approach_pose(chair, np.zeros((0, 3)), (1, 2.5, 0.0), 0.2, 0.5)
    assert approach is not None and approach.position[2] == 0.0 and reason == ''


def test_a_robot_in_an_obstacle_starts_beside_it_or_says_so():
    chair, body = box_object((3.8, 2.3, 0), (4.2, 2.7, 0.9))
    points = room(body, slab((0.9, 2.4, 0.3), (1.1, 2.6, 0.5)))
    assert approach_pose(chair, points, (1, 2.5, 0.4), 0.2, 0.5)[0] is not None
    points = room(body, slab((0.1, 1.5, 0.3), (2.0, 3.5, 0.5)))
    assert approach_pose(chair, points, (1, 2.5, 0.4), 0.2, 0.5) == (
        None,
        'the robot has no free ground within 0.5 m',
    )


def test_a_far_robot_takes_no_more_memory_and_is_told_what_was_not_looked_at():
    """The room about the thing decides where to stand, wherever the robot comes from."""
    chair, body = box_object((3.8, 2.3, 0), (4.2, 2.7, 0.9))
    points = room(body, size=(8, 5))
    open_end = points[(points[:, 0] > 0.1) | (points[:, 2] < 0.02)]  # the wall at x = 0 is gone
    near, said = approach_pose(chair, open_end, (-3, 2.5, 0.1), 0.2, 0.5)
    assert said == ''
    for metres in (50, 500, 5000, 90_000):
        tracemalloc.start()
        far, said = approach_pose(chair, open_end, (-metres, 2.5, 0.1), 0.2, 0.5)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 120e6, f'{most / 1e6:.0f} MB at {metres} m'
        np.testing.assert_allclose(far.position, near.position, atol=0.11)
        check(far, chair, points, 0.2)
        assert said == f'the first {metres + 4 - 20} m of the way there were not looked at'


def test_a_survey_that_is_cut_has_the_robot_in_it_up_to_its_edge():
    chair, body = box_object((3.8, 2.3, 0), (4.2, 2.7, 0.9))
    for x, words in ((-15.9, ''), (-16.1, 'the first 0 m of the way there were not looked at')):
        found, said = approach_pose(chair, body, (x, 2.5, 0.1), 0.2, 0.5)
        assert found is not None and said == words
        ground = approach.survey(
            body, np.eye(3), 0.0, *(np.array(v) for v in ((4, 2.5, 0.45), (0.2, 0.2, 0.45), (x, 2.5, 0)))
        )
        assert max(ground.blocked.shape) <= approach.SPAN / approach.CELL


@pytest.mark.parametrize(
    'center, size, robot, words',
    [
        ((1e9, 0, 1), (1, 1, 1), (0, 0, 0), 'the object is 1e+09 m from the origin: wanted at most 100000 m'),
        ((0, 0, -1e300), (1, 1, 1), (0, 0, 0), 'the object is '),
        ((1, 1, 1), (1, 1, 1), (0, 2e5, 0), 'the robot is 2e+05 m from the origin: wanted at most 100000 m'),
        ((1, 1, 1), (1, 1, 1), (np.nan, 0, 0), 'the robot is nan m from the origin'),
        ((np.nan, 1, 1), (1, 1, 1), (0, 0, 0), 'the object is nan m from the origin'),
        ((np.inf, 1, 1), (1, 1, 1), (0, 0, 0), 'the object is nan m from the origin'),
        (
            (1, 1, 1),
            (1e9, 1, 1),
            (0, 0, 0),
            'an object of 1e+09 x 1 m, to be approached to 0.5 m, is too large',
        ),
        ((1, 1, 1), (1, np.nan, 1), (0, 0, 0), 'is too large: wanted at most'),
    ],
)
def test_things_and_robots_that_are_nowhere_are_refused_in_one_line(center, size, robot, words):
    points = np.random.default_rng(0).normal(size=(50, 3))
    with np.errstate(all='ignore'), pytest.raises(ValueError, match='wanted') as error:
        approach_pose(Object(center, size, 1.0), points, robot, 0.2, 0.5)
    assert words in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('gap', [0.1, 0.16, 0.5, 3.0])
def test_a_floor_of_few_points_with_nothing_just_above_it_is_the_floor(gap):
    for count in (1, 2, 3, 49, 50, 51, 75, 76, 77, 126, 326, 1026, 5026):
        few = count // 50 + 1  # more than may be strays
        heights = np.full(count, gap)
        heights[:few] = 0.0
        assert floor_height(heights, 5.0) == (0.0 if gap > approach.FLOOR_NOISE or count < 3 else gap), count


def test_heights_of_whatever_size_have_a_floor():
    rng = np.random.default_rng(6)
    for _ in range(300):
        heights = rng.normal(size=rng.integers(1, 200)) * 10.0 ** rng.integers(-3, 30)
        assert np.isfinite(floor_height(heights, 1.0))


@pytest.mark.parametrize(
    'radius, standoff, up',
    [(0, 0.5, (0, 0, 1)), (0.2, -1, (0, 0, 1)), (0.2, 0.5, (0, 0, 0)), (float('nan'), 0.5, (0, 0, 1))],
)
def test_numbers_that_are_none_are_refused_in_one_line(radius, standoff, up):
    with pytest.raises(ValueError, match='wanted') as error:
        approach_pose(Object((1, 1, 1), (1, 1, 1), 1.0), np.zeros((0, 3)), (0, 0, 0), radius, standoff, up)
    assert '\n' not in str(error.value)


def test_upright_is_a_rotation_that_takes_up_to_z():
    for up in ((0, 0, 1), (0, -1, 0), (1, 2, -3), (0, 0, -1)):
        turn = upright(np.array(up, float))
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
        np.testing.assert_allclose(turn @ up, (0, 0, np.linalg.norm(up)), atol=1e-12)
    np.testing.assert_array_equal(upright(np.array((0.0, 0, 1))), np.eye(3))


# The compiled parts against plain twins


def plain_wave(free, i, j):
    """All that was reached is widened, by a cross and by a square in turn, until neither finds a cell."""
    steps, reached, number = np.full(free.shape, -1), np.zeros(free.shape, np.uint8), 0
    reached[i, j], steps[i, j] = 1, 0
    kernels = [cv2.getStructuringElement(shape, (3, 3)) for shape in (cv2.MORPH_CROSS, cv2.MORPH_RECT)]
    while True:
        wider = cv2.dilate(reached, kernels[number % 2]) & free.astype(np.uint8)
        number += 1
        front = wider != reached
        if not front.any():
            if number % 2:
                continue
            return steps
        steps[front] = number
        reached = wider


@pytest.mark.parametrize('share', [0.0, 0.2, 0.35, 0.5, 0.6])
def test_the_wave_is_its_plain_twin(share):
    rng = np.random.default_rng(round(share * 100))
    for _ in range(20):
        free = rng.random(rng.integers(1, 60, 2)) >= share
        i, j = (int(rng.integers(n)) for n in free.shape)
        free[i, j] = True
        np.testing.assert_array_equal(approach._wave(free, i, j), plain_wave(free, i, j))


def plain_in_sight(hiding, origin, place, center, half):
    count = int(np.ceil(np.linalg.norm(center - place) / (approach.CELL / 2))) + 1
    line = place + np.linspace(0, 1, count)[:, None] * (center - place)
    line = line[(np.abs(line - center) > half + approach.CELL).any(1)]
    cells = np.floor((line - origin) / approach.CELL).astype(int)
    return not hiding[cells[:, 0], cells[:, 1]].any()


def test_the_first_place_in_sight_is_that_of_its_plain_twin():
    rng, numbers = np.random.default_rng(4), []
    for _ in range(100):
        origin, center, half = rng.normal(size=2), None, rng.uniform(0.1, 0.5, 2)
        hiding = rng.random((80, 100)) < rng.choice([0.005, 0.02, 0.1])
        center = origin + rng.uniform(1.0, 3.0, 2)
        places = origin + rng.uniform(0.0, (4.0, 5.0), (20, 2))
        wanted = [plain_in_sight(hiding, origin, place, center, half) for place in places]
        number = approach._first_in_sight(hiding, origin, places, center, half)
        assert number == (wanted.index(True) if any(wanted) else -1)
        numbers.append(number)
    assert -1 in numbers and 0 in numbers and max(numbers) > 2


def test_the_counts_are_their_plain_twin():
    rng = np.random.default_rng(8)
    points = rng.uniform((-1, -1, -0.5), (4, 3, 2.5), (20000, 3))
    low, floor, eye = np.array([0.1, -0.2]), 0.04, 0.9
    turn = approach.upright(np.array([0.1, -1, 0.3]))
    nowhere = np.array([[1.0, np.nan, 1.0], [1.0, 1.0, np.inf]])
    in_map = np.concatenate((points, nowhere)) @ turn  # turned back
    blocked, hiding = approach._counts(in_map, turn, low, 60, 50, floor, eye)
    up = points[:, 2] - floor
    for counts, (bottom, top) in (
        (blocked, (approach.LOW, approach.HIGH)),
        (hiding, (eye + approach.SIGHT_LOW, eye + approach.SIGHT_HIGH)),
    ):
        chosen = points[(up > bottom) & (up < top), :2]
        edges = [low[axis] + np.arange(n + 1) * approach.CELL for axis, n in enumerate((60, 50))]
        wanted, _, _ = np.histogram2d(*chosen.T, edges)
        assert counts.sum() == wanted.sum() > 500
        assert (counts != wanted).sum() <= 4  # a point on the edge of a cell
