"""config/gsemsplat.rviz shows what the node sends: every topic, type and quality of service, against a
running node.
"""

import ast
import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
import torch
import yaml
from geometry_msgs.msg import Point, PoseWithCovarianceStamped, Quaternion
from gsemsplat_msgs.msg import PackedSplats
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.serialization import serialize_message

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.ros.client.splat_display import SplatDisplay, splat_array
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.ros.packed_splats import packed_splats
from gsemsplat_ros.ros.qos import LATCHED

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / 'config' / 'gsemsplat.rviz').read_text())['Visualization Manager']
DISPLAYS = {display['Name']: display for display in CONFIG['Displays']}
WITH_TOPIC = {name: display['Topic'] for name, display in DISPLAYS.items() if 'Topic' in display}
# of variances up to 0.01 m^2, packed as roots of half precision [m^2]
COVARIANCE_ERROR = 1e-5
# What the displays of rviz_default_plugins take.
TYPES = {
    'PointCloud2': 'sensor_msgs/msg/PointCloud2',
    'MarkerArray': 'visualization_msgs/msg/MarkerArray',
    'Image': 'sensor_msgs/msg/Image',
    'Pose': 'geometry_msgs/msg/PoseStamped',
}
POLICIES = {
    'Reliable': ReliabilityPolicy.RELIABLE,
    'Best Effort': ReliabilityPolicy.BEST_EFFORT,
    'Transient Local': DurabilityPolicy.TRANSIENT_LOCAL,
    'Volatile': DurabilityPolicy.VOLATILE,
    'Keep Last': HistoryPolicy.KEEP_LAST,
}


def message_type(display):
    return TYPES[display['Class'].removeprefix('rviz_default_plugins/')]


def profile(topic):
    """The quality of service that RViz asks for."""
    return QoSProfile(
        depth=topic['Depth'],
        reliability=POLICIES[topic['Reliability Policy']],
        durability=POLICIES[topic['Durability Policy']],
        history=POLICIES[topic['History Policy']],
        liveliness=LivelinessPolicy.AUTOMATIC,
    )


@pytest.fixture(scope='module')
def node(start):
    process = start('-p', 'queries:=[chair]')
    process.wait_for('waiting for')
    return process


def test_all_is_shown_at_once():
    shown = {display['Class'].rpartition('/')[2] for display in DISPLAYS.values() if display['Enabled']}
    assert {'Image', 'PointCloud2', 'MarkerArray', 'TF', 'Pose'} <= shown
    values = {topic['Value'] for name, topic in WITH_TOPIC.items() if DISPLAYS[name]['Enabled']}
    assert values == {
        '/left/image_raw',
        '/gsemsplat/relevancy/image',
        '/gsemsplat/gaussians',
        '/gsemsplat/map',
        '/gsemsplat/objects/markers',
        '/gsemsplat/pose',
    }
    assert len(DISPLAYS) == len(CONFIG['Displays']), 'two displays of one name'
    clouds = [display for display in DISPLAYS.values() if display['Class'].endswith('PointCloud2')]
    assert all(display['Color Transformer'] == 'RGB8' for display in clouds), 'the cloud has a field rgb'


@pytest.mark.parametrize(
    'name', [name for name, topic in WITH_TOPIC.items() if topic['Value'].startswith('/gsemsplat/')]
)
def test_the_node_sends_what_rviz_asks_for(name, node, client):
    topic = WITH_TOPIC[name]
    published = client.until(
        lambda: client.node.get_publishers_info_by_topic(topic['Value']), f'a publisher for {name}'
    )
    assert [info.topic_type for info in published] == [message_type(DISPLAYS[name])]
    compatible, reason = qos_check_compatible(published[0].qos_profile, profile(topic))
    assert compatible == QoSCompatibility.OK, reason
    assert topic['Durability Policy'] == 'Transient Local', 'an RViz that is started later sees nothing'


def test_the_image_is_the_one_the_node_hears(node, client):
    topic = WITH_TOPIC['Image']
    heard = client.until(
        lambda: client.node.get_subscriptions_info_by_topic(topic['Value']), 'the node to listen'
    )
    assert [info.topic_type for info in heard] == [message_type(DISPLAYS['Image'])]
    # cameras send as they like: only a best-effort, volatile subscriber hears all of them
    for reliability in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT):
        camera = QoSProfile(
            depth=1,
            reliability=reliability,
            durability=DurabilityPolicy.VOLATILE,
            liveliness=LivelinessPolicy.AUTOMATIC,
        )
        assert qos_check_compatible(camera, profile(topic))[0] == QoSCompatibility.OK


def test_launch_file_gives_rviz_the_names_of_the_node():
    tree = ast.parse((ROOT / 'launch' / 'gsemsplat.launch.py').read_text())
    constants = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    outputs = {f'/gsemsplat/{topic}' for topic in ast.literal_eval(constants['OUTPUTS'])}
    values = {topic['Value'] for topic in WITH_TOPIC.values()}
    assert values == outputs | {ast.literal_eval(constants['SHOWN_INPUT'])}
    arguments = {name.elts[0].value: name.elts[1] for name in constants['ARGUMENTS'].elts}
    assert ast.literal_eval(arguments['fixed_frame']) == CONFIG['Global Options']['Fixed Frame']


class Cdr:
    """Serializes plainly, number by number: the twin of splat_display's table."""

    def __init__(self):
        self.data = bytearray()

    def add(self, kind, *values):
        for value in values:
            self.data += b'\0' * (-len(self.data) % struct.calcsize(kind)) + struct.pack('<' + kind, value)


def splats_plainly(gaussians, frame, sec, nanosec):
    out = Cdr()
    out.add('I', len(gaussians))
    for mean, covariance, opacity, colour in zip(
        gaussians.means.tolist(),
        gaussians.covariances().double().numpy(),
        gaussians.opacities.tolist(),
        gaussians.colors.numpy(),
    ):
        out.add('i', sec)
        out.add('I', nanosec, len(frame) + 1)
        out.data += frame.encode() + b'\0'
        out.add('d', *mean, 0, 0, 0, 1)
        full = np.zeros((6, 6))
        full[:3, :3] = covariance
        out.add('d', *full.ravel())
        out.add('B', round(255 * opacity), 0)
        out.add('I', 3)
        out.add('f', *((np.rint(colour * 255) / 255 - 0.5) / 0.28209479177387814))
    return bytes(out.data)


def some_gaussians(count, dtype=torch.float32):
    random = torch.Generator().manual_seed(3)

    def rand(*shape):
        return torch.rand(*shape, generator=random, dtype=dtype)

    return Gaussians(
        rand(count, 3),
        torch.nn.functional.normalize(rand(count, 4) - 0.5, dim=1),
        rand(count, 3) * 0.1,
        rand(count),
        rand(count, 3),
        torch.zeros(count, 0, dtype=dtype),
        'camera',
    )


# with and without filling bytes behind the name of the frame
@pytest.mark.parametrize('frame', ['c', 'camera', 'left_camera_optical_frame', 'x' * 15, ''])
def test_splats_are_those_that_were_packed(frame):
    gaussians = some_gaussians(7)
    data = splat_array(packed_splats(gaussians, make_header(frame, 5 * 10**9 + 77)))
    plain = splats_plainly(gaussians, frame, 5, 77)
    assert data[:4] == b'\x00\x01\x00\x00' and len(data) == 4 + len(plain)
    body = np.frombuffer(data[4:], np.uint8), np.frombuffer(plain, np.uint8)
    first = -(-(4 + 12 + len(frame) + 1) // 8) * 8  # where the first position begins
    assert (body[0][:first] == body[1][:first]).all(), 'count, stamp and frame'
    numbers = [np.frombuffer(b[first : first + 344].tobytes(), '<f8') for b in body]
    np.testing.assert_allclose(*numbers, atol=COVARIANCE_ERROR)
    np.testing.assert_array_equal(*(b[first + 344 : first + 352] for b in body))
    np.testing.assert_allclose(
        *(np.frombuffer(b[first + 352 : first + 364].tobytes(), '<f4') for b in body), rtol=1e-6
    )
    size = (len(plain) - 4) // 7  # each begins where the one before ended
    last = [np.frombuffer(b[-364:-20].tobytes(), '<f8') for b in body]
    np.testing.assert_allclose(*last, atol=COVARIANCE_ERROR)
    assert size * 7 + 4 == len(plain) and size % 8 == 0


def test_the_first_part_is_what_ros_writes():
    """The pose of a splat, by ROS's own serializer."""
    gaussians, header = some_gaussians(1), make_header('odom', 9 * 10**9)
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = gaussians.covariances()[0].numpy()
    pose = PoseWithCovarianceStamped(header=header)
    pose.pose.pose.position = Point(**dict(zip('xyz', gaussians.means[0].tolist())))
    pose.pose.pose.orientation = Quaternion(w=1.0)
    pose.pose.covariance = covariance.ravel()
    wanted = serialize_message(pose)[4:]  # 12 + 5 characters, filled to 24, then 344 bytes
    got = splat_array(packed_splats(gaussians, header))[8:]
    # behind the count all moves by four bytes: the name is filled up to a multiple of eight elsewhere
    assert got[:17] == wanted[:17]
    np.testing.assert_allclose(
        np.frombuffer(got[20 : 20 + 344], '<f8'),
        np.frombuffer(wanted[24 : 24 + 344], '<f8'),
        atol=COVARIANCE_ERROR,
    )


def test_many_splats_are_thinned_and_others_refused():
    packed = packed_splats(some_gaussians(50), make_header('c', 0))
    few = splat_array(packed, max_splats=10)
    assert (
        struct.unpack('<I', few[4:8]) == (10,) and len(few) == 8 + 10 * (len(splat_array(packed)) - 8) // 50
    )
    assert splat_array(packed_splats(some_gaussians(0), make_header('c', 0)))[4:] == b'\0\0\0\0'
    for layout, cut in ((2, 0), (1, 3)):
        packed.layout = layout
        del packed.data[len(packed.data) - cut :]
        with pytest.raises(
            ValueError, match=f'layout {layout} with {1400 - cut} bytes: wanted layout 1 and 28'
        ):
            splat_array(packed)


def test_the_bridge_hears_packed_splats_and_sends_splat_arrays(client, domain, monkeypatch):
    """The messages of the plugin are no package of an index: another type carries their bytes."""
    stand_in = SimpleNamespace(SplatArray=PackedSplats)
    monkeypatch.setitem(sys.modules, 'gsplat_msgs', SimpleNamespace(msg=stand_in))
    monkeypatch.setitem(sys.modules, 'gsplat_msgs.msg', stand_in)
    packed, sent = packed_splats(some_gaussians(9), make_header('odom', 5)), []
    publisher = client.node.create_publisher(PackedSplats, '/bridged/map/packed', LATCHED)
    client.node.create_subscription(PackedSplats, '/gsemsplat/splats', sent.append, LATCHED, raw=True)
    publisher.publish(packed)
    rclpy.init(args=[], domain_id=domain)
    try:
        display = SplatDisplay('/bridged/map')
        executor = SingleThreadedExecutor()
        executor.add_node(display)
        client.until(lambda: sent or executor.spin_once(0.05), 'the splats')
        display.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert sent == [splat_array(packed)]


@pytest.mark.skipif(importlib.util.find_spec('gsplat_msgs') is not None, reason='RVizSplat is installed')
def test_missing_plugin_is_named(domain):
    environment = {
        **os.environ,
        'ROS_DOMAIN_ID': str(domain),
        'AMENT_PREFIX_PATH': os.environ.get('AMENT_PREFIX_PATH', ''),
    }
    done = subprocess.run(
        [sys.executable, '-m', 'gsemsplat_ros.cli', 'splats'],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr == (
        'gsemsplat: gsplat_msgs is missing: build splat-ros/splat_interfaces and splat-ros/RVizSplat in this '
        'workspace (docs/rviz.md) and source it\n'
    )


def test_fixed_frame_is_that_of_the_demo():
    from gsemsplat_ros.datasets.demo_pairs import FRAME

    assert CONFIG['Global Options']['Fixed Frame'] == FRAME
