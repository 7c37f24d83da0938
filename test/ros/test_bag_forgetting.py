"""A bag of a house from which things are carried away between two halves, played to the real node with the
shipped network: they leave its map, and what stands stays."""

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
pytest.importorskip('moderngl', reason='`make training-setup` brings it')
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial import cKDTree
from sensor_msgs.msg import PointCloud2
from support.mcap_writer import write_mcap
from support.ros_messages import table
from support.shipped_robot import Robot
from tf2_msgs.msg import TFMessage

from gsemsplat_ros.evaluation.map_houses import walkers
from gsemsplat_ros.evaluation.map_walk import STEP_NS, stereo_pair, surface
from gsemsplat_ros.ros.client import node_process
from gsemsplat_ros.ros.client.bag import Bag
from gsemsplat_ros.ros.client.bag_storage import open_storage
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.player import PARAMETERS, TOPICS, stereo_messages
from gsemsplat_ros.ros.conversions import make_header, stamp_ns
from gsemsplat_ros.ros.messages import transform_message
from gsemsplat_ros.ros.qos import LATCHED

KEYFRAMES, VIEWS = 100, 5  # of the house's walk, and of those that are in either half of the bag
KINDS = *2 * ['sensor_msgs/msg/CameraInfo'], *2 * ['sensor_msgs/msg/Image']
FLOOR, NEAR = 0.15, 0.1  # m: nearer to it, or to what stands, an error of depth is no part of a thing


def views_of_a_thing(walker):
    """Keyframes of the first round that see most of one thing that is taken away, and of the second from the
    same places; the surface of the thing (N, 3) m and of what stands there (M, 3)."""
    half, taken = KEYFRAMES // 2, walker.house.taken | walker.house.moved
    frames = list(walker.rounds(KEYFRAMES))
    seen = np.array([[(frame.instance == thing).sum() for thing in taken] for frame in frames[:half]])
    around = np.stack([seen[max(0, k - 2) : k + 3].sum(0) for k in range(half)])
    at, column = np.unravel_index(around.argmax(), around.shape)
    thing, first = list(taken)[column], min(max(0, at - 2), half - VIEWS)
    halves = frames[first : first + VIEWS], frames[half + first : half + first + VIEWS]
    parts = [surface(frame, walker.camera) for frame in halves[0]]
    points, instances = (np.concatenate(column) for column in zip(*parts))
    later = np.concatenate([surface(frame, walker.camera)[0] for frame in halves[1]])
    return halves, points[instances == thing], later


def write_bag(path, frames, camera):
    """The keyframes as a recording, with their poses in `odom`."""
    messages = []
    for number, frame in enumerate(frames):
        at = 10**18 + number * STEP_NS
        pair = stereo_pair(frame, camera)
        transform = transform_message(frame.world_from_camera, pair.first.frame, make_header('odom', at))
        messages.append(('/tf', 'tf2_msgs/msg/TFMessage', at, TFMessage(transforms=[transform])))
        messages += [
            (f'/{topic}', kind, at, m) for topic, kind, m in zip(TOPICS, KINDS, stereo_messages(pair, at))
        ]
    write_mcap(
        path,
        [(topic, kind, 'ros2msg', '', 'cdr', at, serialize_message(m)) for topic, kind, at, m in messages],
    )


def within(points, places, distance):
    """(N,) bool: which of the points (N, 3) are no farther than that from one of the places (M, 3)."""
    return cKDTree(places).query(points, distance_upper_bound=distance)[0] < distance


@pytest.mark.heavy
def test_what_is_carried_away_between_two_halves_of_a_bag_leaves_the_map(tmp_path, monkeypatch):
    from gsemsplat_ros.rooms.furniture import load_furniture
    from gsemsplat_ros.rooms.renderer import RoomRenderer

    for name in ('ROS_DOMAIN_ID', *node_process.PROFILES):
        monkeypatch.delenv(name, raising=False)
    try:
        renderer = RoomRenderer(load_furniture(), 384, 512)
    except ValueError as error:
        pytest.skip(str(error))
    walker, _ = walkers(renderer, 1)
    (before, after), thing, later = views_of_a_thing(walker)
    thing = thing[(thing[:, 2] > FLOOR) & ~within(thing, later, 2 * NEAR)]
    assert len(thing) > 100
    write_bag(tmp_path / 'house.mcap', [*before, *after], walker.camera)
    parameters = {**PARAMETERS, 'map_max_gaussians': 10**6, 'map_frame': 'odom', 'map_voxel_m': 0.05}
    with (
        Bag(tmp_path / 'house.mcap', rectified=True) as bag,
        node_process.NodeProcess(parameters, tmp_path / 'node.log') as node,
        Client() as client,
    ):
        pairs = [recorded.pair for recorded in bag.pairs(2 * VIEWS)]
        assert len(pairs) == 2 * VIEWS
        storage = open_storage(tmp_path / 'house.mcap')
        poses = [deserialize_message(data, TFMessage) for _, _, data in storage.messages(['/tf'])]
        storage.close()
        robot, clouds = Robot(client, node, pairs[0]), []
        tf = client.node.create_publisher(TFMessage, '/tf_static', LATCHED)
        client.node.create_subscription(PointCloud2, '/gsemsplat/map', clouds.append, LATCHED)

        def drive(views):
            """See these views of the bag; the points (N, 3) of the map then."""
            for view in views:
                tf.publish(poses[view])
                robot.until(tf.get_subscription_count, 'a listener of TF')
                robot.sees(pairs[view], 10)
            seen = stamp_ns(clouds[-1].header) if clouds else 0
            robot.until(lambda: clouds and stamp_ns(clouds[-1].header) > seen, 'the map')
            points = table(clouds[-1])
            return np.stack([points[axis] for axis in 'xyz'], 1)

        with_it, without = drive(range(VIEWS)), drive(range(VIEWS, 2 * VIEWS))
    stood, stands = (
        points[within(points, thing, NEAR) & ~within(points, later, NEAR)] for points in (with_it, without)
    )
    print(f'{len(stood)} Gaussians of the thing, {len(stands)} of them left')
    assert len(stood) > 100 and len(stands) < 0.3 * len(stood)
    some = with_it[:: len(with_it) // 2000]
    kept = within(some[within(some, later, NEAR)], without, NEAR)
    assert len(kept) > 500 and kept.mean() > 0.98
