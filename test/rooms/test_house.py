"""A house of four rooms: doorways one can drive through, what is taken and moved, the stereo camera in it."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed')

from gsemsplat_ros.evaluation.map_walk import BASELINE, SIGMA_M, Walker, noisy
from gsemsplat_ros.evaluation.metrics import rotation_error_deg
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.rooms.cameras import look
from gsemsplat_ros.rooms.house import CAMERA_HEIGHT, sample_house
from gsemsplat_ros.rooms.renderer import RoomRenderer

H, W = 96, 128
SEEDS = range(2)


@pytest.fixture(scope='module')
def renderer(furniture):
    try:
        return RoomRenderer(furniture, H, W)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def houses(furniture):
    return [sample_house(furniture, np.random.default_rng(seed)) for seed in SEEDS]


def test_a_house_is_determined_by_its_seed(furniture, houses):
    again = sample_house(furniture, np.random.default_rng(0))
    assert again.pieces == houses[0].pieces and again.taken == houses[0].taken
    np.testing.assert_array_equal(again.route, houses[0].route)
    assert again.pieces != houses[1].pieces


def test_ids_stay_and_only_what_is_told_changes(houses):
    for house in houses:
        before, after = house.rounds
        first, count = before.first_piece, len(after.pieces)
        assert [before.names[i] for i in house.pieces] == [piece.name for piece in before.pieces]
        assert house.taken == set(range(first + count, first + len(before.pieces)))
        for k, (old, new) in enumerate(zip(before.pieces, after.pieces)):
            far = np.linalg.norm(np.subtract(old.position, new.position))
            assert old.model == new.model
            assert far > 0.7 if first + k in house.moved else old is new
    assert all(house.taken and house.moved for house in houses)


def test_the_route_is_free(houses, renderer):
    """At the height of the camera, of a table and near the floor nothing is nearer than the next step and
    20 cm, which also proves that the doorways are open."""
    camera = Camera.centred(W, H, 2.0 * W)
    for house in houses:
        for room in house.rounds:
            renderer.load(room)
            for k in range(0, len(house.route), 32):
                a, b = house.route[k], house.route[(k + 32) % len(house.route)]
                for height in (0.3, 0.7, CAMERA_HEIGHT):
                    depth, _ = renderer.survey(camera, look(np.array([*a, height]), np.array([*b, height])))
                    assert depth[H // 2, W // 2] > np.linalg.norm(b - a) + 0.2


def test_the_route_is_a_ring_through_all_rooms(houses):
    for house in houses:
        split = house.rounds[0].size[:2] / 2  # about where the walls are
        quarters = 2 * (house.route[:, 1] > split[1]) + (house.route[:, 0] > split[0])
        assert set(quarters) == {0, 1, 2, 3}
        steps = np.linalg.norm(np.diff(house.route, axis=0, append=house.route[:1]), axis=1)
        assert 8 < steps.sum() < 20
        poses = [house.pose(k / 50) for k in range(51)]
        assert max(rotation_error_deg(a, b) for a, b in pairwise(poses)) < 30
        assert max(np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in pairwise(poses)) < 0.7
        np.testing.assert_allclose(house.pose(1.0), house.pose(0.0), atol=1e-9)
        pose = house.pose(0.3, aside=0.1)
        assert np.linalg.norm(pose[:3, 3] - house.pose(0.3)[:3, 3]) == pytest.approx(0.1)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1) and pose[2, 1] == -1  # level: y is down


def test_doorways_are_seen_through(houses, renderer):
    """On the way to the first doorway the camera sees the floor and walls of the room behind it."""
    camera = Camera.centred(W, H, W / 2)
    for house in houses:
        room = house.rounds[0]
        renderer.load(room)
        pose = house.pose(0.08)
        depth, _ = renderer.survey(camera, pose)
        points = camera.unproject(depth) @ pose[:3, :3].T + pose[:3, 3]
        assert (points[..., 0] > room.size[0] / 2 + 1).mean() > 0.02
        assert points.min() > -0.02 and (points.reshape(-1, 3) < room.size + 0.02).all()


def test_what_is_taken_is_seen_no_more(houses, renderer):
    camera = Camera.centred(W, H, W / 2)
    house = houses[0]
    seen = []
    for room in house.rounds:
        renderer.load(room)
        frames = [renderer.survey(camera, house.pose(k / 24)) for k in range(24)]
        ids = np.array([instance for _, instance in frames])
        seen.append(np.bincount(ids.ravel(), minlength=len(room.names)))
    assert sum(seen[0][i] for i in house.taken) > 100
    assert sum(seen[1][i] for i in house.taken) == 0
    assert sum(seen[0][i] + seen[1][i] for i in house.moved) > 100


def test_the_stereo_pair_is_rectified(houses, renderer):
    """The right picture, read at u - f b / z, shows the left one's colours."""
    walker = Walker(houses[1], renderer, 0)
    keyframe = next(walker.rounds(8))
    v, u = np.mgrid[:H, :W]
    to = np.rint(u - walker.camera.fx * BASELINE / keyframe.depth).astype(int)
    inside = (to >= 0) & (to < W)
    off = np.abs(keyframe.right[v[inside], to[inside]].astype(int) - keyframe.left[inside]).mean()
    other = np.abs(keyframe.right[inside].astype(int) - keyframe.left[inside]).mean()
    assert off < 12 and off < 0.6 * other


def test_two_rounds_and_noise(houses, renderer):
    walker = Walker(houses[0], renderer, 0)
    way = walker.way(9)
    assert [i for i, _ in way] == [1] * 4 + [2] * 5
    np.testing.assert_allclose(way[0][1], way[3][1], atol=1e-9)  # a loop
    assert np.linalg.norm(way[4][1][:3, 3] - way[0][1][:3, 3]) == pytest.approx(0.1)
    true = [np.eye(4)] * 4000
    given = noisy(true, np.random.default_rng(0))
    np.testing.assert_array_equal(given[0], np.eye(4))
    offsets = np.array([pose[:3, 3] for pose in given])
    assert offsets.std() == pytest.approx(SIGMA_M, rel=0.15)
    assert np.abs(np.diff(offsets, axis=0)).mean() < 0.4 * np.abs(offsets).mean()  # slowly
