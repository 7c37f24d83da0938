"""An object is carried away while the node maps a room: map, answers and markers follow."""

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from support.room_node import BOX
from support.room_walk import WITH, WITHOUT, RoomWalk
from support.ros_client import ask
from support.ros_messages import table
from support.walked_room import SIZE
from visualization_msgs.msg import Marker, MarkerArray

MARKERS = '/r/gsemsplat/objects/markers'


def standing(cloud):
    """Points (N, 3) of the cloud that stand off the walls of the room."""
    points = table(cloud)
    points = np.stack([points[axis] for axis in 'xyz'], 1)
    return points[np.abs(np.concatenate((points, SIZE - points), 1)).min(1) > 0.25]


def test_map_answer_and_markers_follow_an_object_that_was_carried_away(client, start):
    walk = RoomWalk(client, start)
    client.listen(MarkerArray, MARKERS)
    before = standing(walk.along(WITH))
    assert len(before) > 300
    assert (np.abs(before - BOX.mean(0)) < (BOX[1] - BOX[0]) / 2 + 0.1).all(1).mean() > 0.95
    answer = ask(client, 'chair', node='/r')
    assert answer.success and answer.found and answer.header.frame_id == 'odom', answer.message
    at = answer.objects[0].pose.position
    np.testing.assert_allclose((at.x, at.y, at.z), BOX.mean(0), atol=0.2)
    client.until(lambda: shown(client), 'the marker of the object')

    after = standing(walk.along(WITHOUT))
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
