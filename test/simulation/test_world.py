"""The house of the demo: its plan against what is rendered, the tour, the cameras, and where things stand."""

import numpy as np

from gsemsplat_ros.simulation import motion
from gsemsplat_ros.simulation.robot import LEFT, RADIUS, RIGHT, base_from, parent_from_base
from gsemsplat_ros.simulation.route import shortest_way


def test_the_cameras_look_ahead_from_a_mast():
    left, right = base_from(LEFT), base_from(RIGHT)
    np.testing.assert_allclose(
        left[:3, :3] @ [0, 0, 1], [1, 0, 0]
    )  # REP 103: z of the camera is x of the base
    np.testing.assert_allclose(left[:3, :3] @ [1, 0, 0], [0, -1, 0])
    np.testing.assert_allclose(left[:3, 3], [0, 0.06, 1.1])
    np.testing.assert_allclose(right[:3, 3] - left[:3, 3], left[:3, :3] @ [0.12, 0, 0])
    map_from_base = parent_from_base(np.array([1.0, 2.0, np.pi / 2]))
    np.testing.assert_allclose(map_from_base @ [1, 0, 0, 1], [1, 3, 0, 1], atol=1e-12)


def test_the_tour_and_a_drive_touch_nothing(world):
    tour = world.tour(24)
    assert world.plan.clearance_at(tour[:, :2]).min() > RADIUS
    assert 20 < motion.seconds(tour)[-1] < 60
    basketball = world.things('basketball')[0]
    free = world.plan.clearance > RADIUS + 0.1
    apart = np.where(free, np.linalg.norm(world.plan.centers - basketball.center[:2], axis=-1), np.inf)
    goal = world.plan.centers[np.unravel_index(apart.argmin(), free.shape)]
    way = shortest_way(world.plan, tour[-1, :2], goal, RADIUS)
    poses = motion.driven(way, tour[-1, 2], 0.0)
    assert world.plan.clearance_at(poses[:, :2]).min() >= RADIUS
    np.testing.assert_allclose(poses[-1], [*goal, 0.0], atol=1e-9)
    assert len(way) > 2, 'it stands in another room'


def test_the_plan_is_that_of_the_rendered_house(world):
    """What the camera sees between floor and robot's top lies on walls and pieces of the plan."""
    camera = world.camera
    for pose in world.tour(5):
        map_from_camera = parent_from_base(pose) @ base_from(LEFT)
        depth, instance = world._renderer.survey(camera, map_from_camera)
        points = camera.unproject(depth) @ map_from_camera[:3, :3].T + map_from_camera[:3, 3]
        room = world.room
        solid = (instance >= room.first_piece) & (instance < room.first_piece + len(room.pieces))
        solid |= np.isin(instance, [i for i, name in enumerate(room.names) if name == 'wall'])
        solid &= (points[..., 2] > 0.1) & (points[..., 2] < 1.2)
        assert solid.sum() > 500
        assert world.plan.clearance_at(points[solid][:, :2]).max() < 0.03


def test_a_pair_is_rectified_and_things_stand_where_they_are_seen(world):
    pose = world.tour(6)[2]
    pair = world.pair(pose, 7)
    assert pair.baseline_m == 0.12 and pair.first.frame == LEFT and pair.first.stamp_ns == 7
    assert pair.first.image.shape == (96, 128, 3)
    assert not np.array_equal(pair.first.image, pair.second.image)
    names = [thing.name for thing in world.things('armchair')]
    assert names and all('armchair' in name for name in names)
    thing = world.things('fridge')[0]
    assert thing.distance(thing.center[:2]) == 0
    c, s = np.cos(thing.yaw), np.sin(thing.yaw)
    beside = thing.center[:2] + (thing.size[0] / 2 + 0.5) * np.array([c, s])
    assert abs(thing.distance(beside) - 0.5) < 1e-9
    assert world.things('bicycle') == []
