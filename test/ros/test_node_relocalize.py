"""~/relocalize of the real node: an image, or the newest ones, are placed in the map, or refused."""

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from gsemsplat_msgs.srv import Relocalize
from sensor_msgs.msg import CameraInfo
from support.room_walk import POSES, WITH, RoomWalk
from support.walked_room import BASELINE, BOX, look, seen

from gsemsplat_ros.ros.conversions import image_message, make_header
from gsemsplat_ros.ros.tf_buffer import matrix

HERE = look(1.3, 2.0, 8)


def request(pose):
    """A picture of the room from this pose, with its calibration."""
    right = np.eye(4)
    right[0, 3] = BASELINE
    _, pair = seen(pose, pose @ right, thing=BOX)
    header, camera = make_header('left_optical', 77 * 10**9), pair.first.camera
    info = CameraInfo(header=header, width=camera.width, height=camera.height)
    info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    info.p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return Relocalize.Request(image=[image_message(pair.first.image, header)], camera_info=[info])


def pose_of(response):
    """Its pose (4, 4)."""
    at, turn = response.pose.position, response.pose.orientation
    return matrix(np.array([at.x, at.y, at.z]), np.array([turn.w, turn.x, turn.y, turn.z]))


def test_a_picture_is_placed_in_the_map_or_refused(client, start):
    walk = RoomWalk(client, start)

    def asked(request):
        return client.call(Relocalize, '/r/gsemsplat/relocalize', request)

    early = asked(Relocalize.Request())
    assert (early.success, early.message) == (False, 'no images yet: send one with its camera_info')
    assert 'the map has no keyframes' in asked(request(HERE)).message
    walk.along(WITH)
    placed = asked(request(HERE))
    assert placed.success, placed.message
    assert (placed.header.frame_id, placed.header.stamp.sec) == ('odom', 77)
    np.testing.assert_allclose(pose_of(placed), HERE, atol=0.02)
    assert 15 <= placed.inliers <= placed.points and placed.keyframe.sec > 0
    newest = asked(Relocalize.Request())
    assert newest.success, newest.message
    np.testing.assert_allclose(pose_of(newest), POSES[-1], atol=0.02)
    alone = request(HERE)
    alone.camera_info = []
    assert 'an image without its camera_info' in asked(alone).message
    blank = request(HERE)
    blank.image[0].data = bytes(len(blank.image[0].data))
    refused = asked(blank)
    assert not refused.success and 'image' in refused.message, refused.message
