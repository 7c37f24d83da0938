"""What the node says about frames, and who comes later: TF of its own map, ~/map for Nav2, frames that lead
astray.
"""

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import Relevancy
from gsemsplat_msgs.srv import LoadMap, SaveMap
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from support.point_maps import turned
from support.ros_client import EVERY_PAIR, LATCHED, Stereo, ask
from support.ros_messages import LEFT, RIGHT, camera_info, picture
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from gsemsplat_ros.ros.conversions import stamp_ns
from gsemsplat_ros.ros.inputs import Input
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.sources import make_source

ONCE = QoSProfile(depth=10, durability=DurabilityPolicy.VOLATILE)


@pytest.fixture(scope='module')
def node(client, start, tmp_path_factory):
    """Function: a stereo camera before a node of this name and parameters."""
    client.listen(DiagnosticArray, '/diagnostics', 10)

    def started(name, *parameters):
        folder = tmp_path_factory.mktemp('maps')
        start('-r', f'__ns:={name}', '-p', f'map_directory:={folder}', *EVERY_PAIR, *parameters).wait_for(
            'waiting for'
        )
        client.listen(PointCloud2, f'{name}/gsemsplat/gaussians')
        return Stereo(client, name)

    return started


def inputs(stereo, holds, **messages):
    """The next message of the node's inputs in /diagnostics that `holds`, while pairs are sent."""
    name, client = f'{stereo.name}/gsemsplat: inputs', stereo.client
    seen, sent = len(client.heard['/diagnostics']), []

    def found():
        if len(client.heard['/diagnostics']) != len(sent):
            sent[:] = client.heard['/diagnostics']
            stereo.send(**messages)
        statuses = [
            s for report in client.heard['/diagnostics'][seen:] for s in report.status if s.name == name
        ]
        return [s for s in statuses if holds(s)]

    return client.until(found, 'such inputs')[-1]


def test_who_listens_to_tf_later_learns_where_the_map_lies(client, node):
    """While the camera stands or its scenes are left out; the transform is of the images of the map."""
    stereo = node('/own')
    stereo.scene()
    for _ in range(2):  # the second listener comes when the first has heard it
        subscription = client.listen(TFMessage, '/tf', ONCE)
        heard = client.heard['/tf']
        client.until(lambda: len(heard) > 1, 'TF of the map, repeated')
        (place,) = heard[-1].transforms
        assert (place.header.frame_id, place.child_frame_id) == ('left_optical', 'own/gsemsplat_map')
        assert stamp_ns(place.header) == stereo.stamp
        client.node.destroy_subscription(subscription)
    assert client.call(Trigger, '/own/gsemsplat/clear_map', Trigger.Request()).success
    subscription = client.listen(TFMessage, '/tf', ONCE)
    client.next('/diagnostics')
    client.next('/diagnostics', lambda report: report.status[0].name.startswith('/own/'))
    assert len(client.heard['/tf']) <= 1  # one may have been on its way: an empty map lies nowhere
    client.node.destroy_subscription(subscription)


def test_the_map_reaches_a_volatile_subscriber_that_joins_later(client, node):
    """As Nav2's ObstacleLayer: best effort, volatile. The map of a file, too."""
    stereo = node('/late')
    topic = '/late/gsemsplat/map'
    client.listen(PointCloud2, topic, LATCHED)
    stereo.scene()
    client.until(lambda: client.heard[topic], 'the map for the first')
    for request in (None, 'save', 'load'):
        if request == 'save':
            saved = client.call(SaveMap, '/late/gsemsplat/save_map', SaveMap.Request(path='a'))
            assert saved.success
        if request == 'load':
            assert client.call(LoadMap, '/late/gsemsplat/load_map', LoadMap.Request(path='a')).success
        client.heard[topic].clear()
        latched = client.heard[topic]
        subscription = client.node.create_subscription(
            PointCloud2, topic, latched.append, qos_profile_sensor_data
        )
        client.until(lambda: latched, 'the map for the later one')
        assert latched[-1].width > 0
        client.node.destroy_subscription(subscription)


def test_images_without_a_frame_are_said_and_nothing_is_placed_in_no_frame(client, node):
    stereo = node('/nameless')
    nameless = dict(
        left=picture(LEFT, frame=''),
        right=picture(RIGHT, frame=''),
        left_info=camera_info(frame=''),
        right_info=camera_info(tx=-6.0, frame=''),
    )
    for kind, topic, qos in (
        (TFMessage, '/tf', ONCE),
        (PointCloud2, '/nameless/gsemsplat/gaussians', LATCHED),
        (PointCloud2, '/nameless/gsemsplat/map', LATCHED),
        (PoseStamped, '/nameless/gsemsplat/pose', LATCHED),
        (MarkerArray, '/nameless/gsemsplat/objects/markers', LATCHED),
        (Relevancy, '/nameless/gsemsplat/relevancy', LATCHED),
    ):
        client.listen(kind, topic, qos)
    words = (
        'frame_id is empty: set it in the driver'  # WARN, not the ERROR of a machine that is late with all
    )
    status = inputs(stereo, lambda s: s.level == b'\x01' and words in s.message, **nameless)
    assert '/nameless/left/image_raw: frame_id is empty' in status.message
    client.until(lambda: client.heard['/nameless/gsemsplat/map'], 'the map, whose frame has a name')
    answer = ask(client, 'chair', node='/nameless')
    assert answer.success and answer.found and answer.objects and not answer.approach_found
    assert 'no approach: frame_id of the images is empty' in answer.message
    assert (answer.header.frame_id, answer.peak_u) == ('', 17.0)
    (said,) = client.until(lambda: client.heard['/nameless/gsemsplat/relevancy'], 'the answer')[-1:]
    assert said.found and said.peak.x != said.peak.x  # a point in no frame is nowhere
    assert not any('nameless' in t.child_frame_id for m in client.heard['/tf'] for t in m.transforms)
    for topic in ('gaussians', 'pose', 'objects/markers'):
        assert not client.heard[f'/nameless/gsemsplat/{topic}'], topic
    # camera_info may know the frame
    nameless |= dict(left_info=camera_info(), right_info=camera_info(tx=-6.0, frame='right_optical'))
    status = inputs(stereo, lambda s: 'going on with that of' in s.message, **nameless)
    assert "/nameless/left/camera_info, 'left_optical'" in status.message
    assert client.next('/nameless/gsemsplat/gaussians').header.frame_id == 'left_optical'
    inputs(stereo, lambda s: s.message == 'receiving')  # all is well again


class Placed:
    """In the place of TfListener: every frame stands so in odom, and so does the robot, turned by `yaw`."""

    def __init__(self, turn, yaw=0.0):
        self.map_frame, self.odom_from_camera = 'odom', turn
        self.odom_from_base = turned(yaw, (0, 0, 1), (0, 0, 0))

    def lookup(self, target, source, stamp):
        assert target == 'base_link'
        return np.linalg.inv(self.odom_from_base) @ self.odom_from_camera, ''

    def map_from(self, frame, stamp):
        return self.odom_from_camera


def source_of(mode, tf, **headers):
    """A source of this mode that has seen one input, and what it complained about in the log."""
    said, stereo = [], mode == 'stereo'
    topics = [(side, f'{side}_info') for side in ('left', 'right')][: 1 + stereo]
    source = make_source(Parameters(mode=mode), topics, said.append, tf)
    frame, info_frame = headers.get('frame', 'a_optical'), headers.get('info_frame', 'a_optical')
    infos = camera_info(frame=info_frame), camera_info(tx=-6.0, frame='right')
    images = picture(LEFT, frame=frame), picture(RIGHT, frame='right')
    source.pair(Input(images[: 1 + stereo], infos[: 1 + stereo]))
    return source, said


AHEAD = np.array(
    [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]
)  # odom_from_camera: looks along x
UP = np.eye(4)  # looks up, as the optical frame of a camera; of a camera's body: x ahead, z up
DOWN = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.mark.parametrize('mode', ['stereo', 'sequential'])
@pytest.mark.parametrize(
    'frame, turn, doubtful',
    [
        ('camera_link', UP, True),
        ('camera_link', UP @ turned(0.5, (0, 1, 0), (0, 0, 1)), True),  # mounted downwards by 30 degrees
        ('camera_link', AHEAD, False),  # the name says little, its axes are right
        ('head_camera', AHEAD @ turned(0.7, (1, 0, 0), (0, 0, 0)), False),
        ('head_camera', DOWN, False),
        ('camera_link_optical', UP, True),  # as static_transform_publisher leaves it, without a rotation
        ('ceiling_optical_frame', UP @ turned(1.57, (0, 0, 1), (0, 0, 0)), False),  # it looks up
    ],
)
def test_a_frame_whose_z_axis_points_up_is_said_to_be_not_optical(mode, frame, turn, doubtful):
    source, said = source_of(mode, Placed(turn), frame=frame, info_frame=frame)
    words = [w for w in source.selection.complaints if f"'{frame}', whose z axis points up in 'odom'" in w]
    assert len(words) == doubtful and words == [w for w in said if 'z axis' in w]
    assert source.selection.complaints == tuple(words)


@pytest.mark.parametrize('mode', ['stereo', 'sequential'])
def test_a_camera_info_of_another_camera_is_said_in_both_modes(mode):
    source, said = source_of(mode, None, info_frame='thermal')
    (complaint,) = source.selection.complaints
    assert complaint in said
    assert "left is in frame 'a_optical' but left_info in 'thermal'" in complaint
    (complaint,) = source_of(mode, None, info_frame='')[0].selection.complaints
    assert (
        complaint
        == "left_info: frame_id is empty: set it in the driver; going on with that of left, 'a_optical'"
    )
    assert source_of(mode, None)[0].selection.complaints == ()
