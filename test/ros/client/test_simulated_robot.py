"""What the robot of the simulated house says: /clock, TF, camera_info, images; and the bag of it."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='`make setup` installs rosbags')
pytest.importorskip('tf2_msgs', reason='`make setup` builds tf2_msgs')
pytest.importorskip('moderngl', reason='moderngl is not installed')
from geometry_msgs.msg import PoseStamped

from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros.client.bag import Bag
from gsemsplat_ros.ros.client.bag_writer import BagWriter
from gsemsplat_ros.ros.client.simulated_robot import BEGIN_NS, SimulatedRobot, yaw_of
from gsemsplat_ros.ros.conversions import compressed_to_rgb, stamp_ns, time_ns
from gsemsplat_ros.simulation.floor_plan import FloorPlan
from gsemsplat_ros.simulation.robot import LEFT, base_from, parent_from_base, stereo_camera

CAMERA = stereo_camera(128, 96)
WALLS = [[(0, 0), (6, 0)], [(6, 0), (6, 4)], [(6, 4), (0, 4)], [(0, 4), (0, 0)]]
PLAN = FloorPlan(np.array([[(0, 0), (6, 4)]], float), np.array(WALLS, float), ())
START, NEXT = np.array([1.0, 2.0, 0.5]), np.array([1.5, 2.0, 1.0])


def picture(pose, stamp_ns):
    """A pair of blocks of grey, others at each pose."""
    blocks = np.random.default_rng(round(10 * pose[0])).integers(0, 255, (12, 16, 1), np.uint8)
    image = np.kron(blocks, np.ones((8, 8, 3), np.uint8))
    view = View(image, CAMERA, LEFT, stamp_ns)
    return Pair(view, view, 0.12)


class Ears:
    """A ROS node and a player that keep what they are told; heard: by topic."""

    def __init__(self):
        self.heard, self.node = {}, self

    def create_publisher(self, kind, topic, qos):
        self.heard[topic] = []
        return SimpleNamespace(publish=self.heard[topic].append, get_subscription_count=lambda: 1)

    def until(self, condition, deadline_s):
        return bool(condition())

    def wait_for_node(self, messages):
        self.shown = []

    def play(self, messages, stamp):
        self.shown.append((messages, stamp))


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    """What is heard of a robot at two places, and its bag."""
    path, ears = tmp_path_factory.mktemp('bag') / 'house.mcap', Ears()
    with BagWriter(path) as bag:
        robot = SimulatedRobot(SimpleNamespace(pair=picture, plan=PLAN), ears, ears, bag, START)
        robot.wait_for_node()
        robot.look()
        robot.go(NEXT)
        robot.look()
        assert not path.exists(), 'it is there only when it is whole'
    return ears, robot, path


def matrix(transform):
    """(4, 4) of a TransformStamped."""
    t, q = transform.transform.translation, transform.transform.rotation
    pose = np.eye(4)
    pose[:3, :3] = quats_to_rotations(np.array([q.w, q.x, q.y, q.z]))
    pose[:3, 3] = t.x, t.y, t.z
    return pose


def test_tf_leads_from_the_map_to_the_cameras(drive):
    ears, _, _ = drive
    mounts = {t.child_frame_id: matrix(t) for t in ears.heard['/tf_static'][0].transforms}
    assert set(mounts) == {'left_optical', 'right_optical'}
    for message, pose in zip(ears.heard['/tf'], (START, NEXT)):
        first, second = message.transforms
        named = [(t.header.frame_id, t.child_frame_id) for t in (first, second)]
        assert named == [('map', 'odom'), ('odom', 'base_link')]  # REP 105
        np.testing.assert_allclose(matrix(first), parent_from_base(START), atol=1e-12)
        base = matrix(first) @ matrix(second)
        np.testing.assert_allclose(base, parent_from_base(pose), atol=1e-12)
        np.testing.assert_allclose(mounts['left_optical'], base_from(LEFT), atol=1e-12)
    ahead = base @ mounts['left_optical'] @ [0, 0, 1, 1]  # 1 m ahead of the camera
    np.testing.assert_allclose(
        ahead[:2] - (base @ [0, 0.06, 0, 1])[:2], [np.cos(1.0), np.sin(1.0)], atol=1e-9
    )


def test_time_is_simulated_and_one_for_all_messages(drive):
    ears, robot, _ = drive
    assert robot.seconds == pytest.approx(1.0)  # half a metre at 0.5 m/s, slower than half a radian
    later = BEGIN_NS + 1_000_000_000
    assert [time_ns(c.clock) for c in ears.heard['/clock']] == [BEGIN_NS, BEGIN_NS, later]
    for (messages, stamp), tf, wanted in zip(ears.shown, ears.heard['/tf'], (BEGIN_NS, later)):
        stamps = [stamp, *(stamp_ns(m.header) for m in (*messages, *tf.transforms))]
        assert stamps == [wanted] * len(stamps)


def test_camera_info_and_images(drive):
    ears, _, _ = drive
    (left, right, image, _), _ = ears.shown[1]
    focal = 64 / np.tan(np.radians(40))
    np.testing.assert_allclose(left.k, [focal, 0, 63.5, 0, focal, 47.5, 0, 0, 1])
    assert (left.p[3], right.p[3]) == (0, pytest.approx(-0.12 * focal)) and left.width == 128
    assert {left.header.frame_id, right.header.frame_id, image.header.frame_id} == {LEFT}
    assert (
        image.format.startswith('rgb8; jpeg')
        and np.abs(compressed_to_rgb(image) - picture(NEXT, 0).first.image.astype(float)).max() < 20
    )


def test_the_bag_holds_what_was_said(drive):
    ears, _, path = drive
    with Bag(path) as bag:
        assert bag.topics.compressed and bag.counts == (2, 2) and bag.seconds == pytest.approx(1.0)
        pairs = list(bag.pairs(2))
        assert [pair.seconds for pair in pairs] == [0.0, pytest.approx(1.0)]
        for pair, (messages, _) in zip(pairs, ears.shown):
            assert pair.messages[2] == messages[2] and (pair.messages[1].p == messages[1].p).all()
            assert pair.pair.baseline_m == pytest.approx(0.12)
    assert [p.name for p in path.parent.iterdir()] == ['house.mcap']


def test_a_failed_drive_leaves_no_bag(tmp_path):
    with pytest.raises(RuntimeError), BagWriter(tmp_path / 'house.mcap'):
        raise RuntimeError('of the drive')
    assert not list(tmp_path.iterdir())


def test_navigate_to_pose_ends_at_the_goal(drive):
    _, robot, _ = drive
    goal = PoseStamped()
    goal.header.frame_id = 'map'
    goal.pose.position.x, goal.pose.position.y = 5.0, 3.0
    goal.pose.orientation.z, goal.pose.orientation.w = np.sin(-0.35), np.cos(-0.35)
    assert yaw_of(goal) == pytest.approx(-0.7)
    poses = robot.navigate_to_pose(goal)
    np.testing.assert_allclose(poses[-1], [5, 3, -0.7], atol=1e-9)
    goal.header.frame_id = 'odom'
    with pytest.raises(ValueError, match="the goal is in frame 'odom': wanted 'map'"):
        robot.navigate_to_pose(goal)
