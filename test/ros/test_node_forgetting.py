"""An object is carried away while the node maps a room: map, answers and markers follow."""

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from sensor_msgs.msg import PointCloud2
from support.room_node import BOX
from support.ros_client import EVERY_PAIR, LATCHED, Stereo, ask
from support.ros_messages import picture, table
from support.walked_room import SIZE, look
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from gsemsplat_ros.gaussians.rotations import rotation_to_quat
from gsemsplat_ros.ros.conversions import make_header

WALK = [look(1.2, 2.2, 0), look(1.4, 1.2, 30), look(1.4, 3.4, -30)]
MAP, MARKERS = '/r/gsemsplat/map', '/r/gsemsplat/objects/markers'
WITH, WITHOUT = (40, 90, 60), (160, 90, 60)  # the colour of an image says whether the box is there


@pytest.fixture
def walk(client, start):
    """Function: the node sees the room from all of WALK, in images of a colour; the newest map then."""
    process = start('-r', '__ns:=/r', '-p', 'map_frame:=odom', *EVERY_PAIR, program='room_node.py')
    process.wait_for('waiting for')
    for kind, topic in ((PointCloud2, '/r/gsemsplat/gaussians'), (PointCloud2, MAP), (MarkerArray, MARKERS)):
        client.listen(kind, topic)
    stereo = Stereo(client, '/r')
    tf = client.node.create_publisher(TFMessage, '/tf_static', LATCHED)

    def stand(pose):
        w, x, y, z = rotation_to_quat(pose[:3, :3]).tolist()
        place = Transform(
            translation=Vector3(**dict(zip('xyz', pose[:3, 3].tolist()))),
            rotation=Quaternion(w=w, x=x, y=y, z=z),
        )
        transform = TransformStamped(
            header=make_header('odom', 1), child_frame_id='left_optical', transform=place
        )
        tf.publish(TFMessage(transforms=[transform]))

    def walked(color):
        for pose in WALK:
            stand(pose)
            client.until(lambda: tf.get_subscription_count(), 'a listener of TF')
            cloud = stereo.scene(left=picture(color))
        stamp = cloud.header.stamp.sec
        heard = client.heard[MAP]
        return client.until(lambda: heard and heard[-1].header.stamp.sec >= stamp and heard[-1], 'the map')

    return walked


def standing(cloud):
    """Points (N, 3) of the cloud that stand off the walls of the room."""
    points = table(cloud)
    points = np.stack([points[axis] for axis in 'xyz'], 1)
    return points[np.abs(np.concatenate((points, SIZE - points), 1)).min(1) > 0.25]


def test_map_answer_and_markers_follow_an_object_that_was_carried_away(client, walk):
    before = standing(walk(WITH))
    assert len(before) > 300
    assert (np.abs(before - BOX.mean(0)) < (BOX[1] - BOX[0]) / 2 + 0.1).all(1).mean() > 0.95
    answer = ask(client, 'chair', node='/r')
    assert answer.success and answer.found and answer.header.frame_id == 'odom', answer.message
    at = answer.objects[0].pose.position
    np.testing.assert_allclose((at.x, at.y, at.z), BOX.mean(0), atol=0.2)
    client.until(lambda: shown(client), 'the marker of the object')

    after = standing(walk(WITHOUT))
    assert len(after) < 0.05 * len(before)
    answer = ask(client, 'chair', node='/r')
    assert answer.success and not answer.found and not answer.objects, answer.message
    client.until(lambda: not shown(client), 'its marker to go')


def shown(client):
    """The ids of the markers that a display shows after all messages so far."""
    ids: set = set()
    for message in client.heard[MARKERS]:
        for marker in message.markers:
            if marker.action == Marker.DELETEALL:
                ids.clear()
            elif marker.action == Marker.DELETE:
                ids.discard((marker.ns, marker.id))
            elif marker.ns == 'chair':
                ids.add((marker.ns, marker.id))
    return ids
