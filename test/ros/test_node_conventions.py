"""The conventions of ROS, each with what the node does about it."""

import numpy as np
import pytest
from sensor_msgs.msg import RegionOfInterest
from support.ros_messages import camera_info, raw_image

from gsemsplat_ros.mapping.fusion import START
from gsemsplat_ros.ros import messages
from gsemsplat_ros.ros.calibration import baseline_of, camera_of
from gsemsplat_ros.ros.conversions import image_to_rgb
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.policy import permissions
from gsemsplat_ros.scene.coded_file import CodeSpace


def test_rep_103_a_map_has_x_forward_y_left_z_up_and_cameras_x_right_y_down_z_forward():
    right, down, forward = START[:3, :3].T
    np.testing.assert_array_equal([forward, -right, -down], np.eye(3))
    assert START[:3, 3].tolist() == [0, 0, 0] and np.linalg.det(START[:3, :3]) == 1
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter to the left, about z
    pose = np.eye(4)
    pose[:3, :3] = turn
    q = messages.pose_message(pose, None).pose.orientation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, 0.5**0.5, 0.5**0.5], atol=1e-12)


def test_rep_104_binning_and_region_of_interest_and_the_baseline_are_those_of_camera_info():
    info = camera_info(tx=-6.0, width=640, height=480, fx=500.0)
    left = camera_info(tx=0.0, width=640, height=480, fx=500.0)
    assert baseline_of(left, info) == pytest.approx(6.0 / 500.0)
    info.binning_x = info.binning_y = 2
    info.roi = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=400)
    camera = camera_of(info, 200, 200)
    assert (camera.fx, camera.cx, camera.cy) == pytest.approx(
        (250.0, (319.5 - 100 + 0.5) / 2 - 0.5, (239.5 - 40 + 0.5) / 2 - 0.5)
    )


def test_rep_105_the_map_stands_in_a_frame_of_the_robots_tree_and_the_robot_in_base_link():
    space = CodeSpace('', '', '', 32)
    assert MapKeeper(Parameters(map_frame='/odom'), space).frame == 'odom'
    assert MapKeeper(Parameters(), space).frame == 'gsemsplat_map' and Parameters().base_frame == 'base_link'


def test_rep_117_what_is_nowhere_is_not_a_number():
    point = messages.point(None)
    assert np.isnan([point.x, point.y, point.z]).all()


@pytest.mark.parametrize('encoding, shape', [('16UC1', (48, 64, 2)), ('32FC1', (48, 64, 4))])
def test_rep_118_depth_images_are_no_pictures(encoding, shape):
    with pytest.raises(ValueError, match='holds measurements such as depth'):
        image_to_rgb(raw_image(encoding, shape))


def test_rep_135_what_the_node_says_lies_below_its_name_and_what_it_hears_is_the_drivers_to_name():
    for act, shared in {
        'publish': {'/diagnostics', '/parameter_events', '/rosout', '/tf'},
        'reply': {'/robot/query'},
        'subscribe': {'/clock', '/tf', '/tf_static'},
    }.items():
        own = set(permissions('robot')[act]) - shared
        assert own and all(
            name.startswith('/robot/' if act == 'subscribe' else '/robot/gsemsplat/') for name in own
        ), act
    moved = permissions('robot', {'left/image_raw': '/camera/left/image_rect'})['subscribe']
    assert '/camera/left/image_rect' in moved and '/robot/left/image_raw' not in moved
