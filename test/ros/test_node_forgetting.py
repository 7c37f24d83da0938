"""An object is carried away while the node maps a room: map, answers, markers and list of changes follow."""

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from builtin_interfaces.msg import Time
from gsemsplat_msgs.msg import Object
from gsemsplat_msgs.srv import Changes
from support.room_walk import WITH, WITHOUT, RoomWalk
from support.ros_client import ask
from support.ros_messages import table
from support.walked_room import BOX, SIZE
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
    assert shown(client)['chair', 1].text == 'chair #1 0.88'
    thing = answer.objects[0]
    assert (thing.id, thing.state, thing.texts) == (1, Object.THERE, ['chair'])
    assert thing.times_seen >= 3  # a pair is sent again where the answer is late
    assert thing.first_seen.sec < thing.last_seen.sec == answer.header.stamp.sec and not thing.gone_since.sec
    assert '; #1 last seen 0 s ago' in answer.message
    listed = changes(client, 0)
    assert [one.id for one in listed.appeared] == [1] and not listed.gone, listed.message

    after = standing(walk.along(WITHOUT))
    assert len(after) < 0.05 * len(before)
    answer = ask(client, 'chair', node='/r')
    assert answer.success and not answer.found and not answer.objects, answer.message
    assert '; #1 gone, last seen ' in answer.message
    client.until(lambda: not shown(client), 'its marker to go')
    listed = changes(client, thing.last_seen.sec + 1)
    assert not listed.appeared and listed.header.frame_id == 'odom', listed.message
    (went,) = listed.gone
    assert (went.id, went.label, went.state, went.last_seen) == (1, 'chair', Object.GONE, thing.last_seen)
    assert thing.last_seen.sec < went.gone_since.sec <= listed.header.stamp.sec
    assert not changes(client, went.gone_since.sec + 1).gone


def changes(client, since_s):
    """The response of ~/changes."""
    request = Changes.Request(since=Time(sec=since_s))
    response = client.call(Changes, '/r/gsemsplat/changes', request)
    assert response.success, response.message
    return response


def shown(client):
    """The markers that a display shows after all messages so far, by namespace and id."""
    ids: dict = {}
    for message in client.heard[MARKERS]:
        for marker in message.markers:
            if marker.action == Marker.DELETEALL:
                ids.clear()
            elif marker.action == Marker.DELETE:
                ids.pop((marker.ns, marker.id), None)
            elif marker.ns == 'chair':
                ids[marker.ns, marker.id] = marker
    return ids
