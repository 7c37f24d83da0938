"""The real node's map follows TF that corrects itself, as that of a SLAM does."""

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from support.room_walk import WITHOUT, RoomWalk
from support.ros_messages import table
from support.walked_room import SIZE, look

BLUE, WRONG_TF = (160, 90, 200), 0.4  # m, along y, while the images are blue: as in room_node.py
POSES = [look(1.3 + 0.15 * k, 2.2, 8 * k) for k in range(5)]


def off_the_walls(cloud):
    """0.9 quantile of the distances [m] of its points from walls, floor and ceiling of the room."""
    points = table(cloud)
    points = np.stack([points[axis] for axis in 'xyz'], 1)
    return np.quantile(np.abs(np.concatenate((points, SIZE - points), 1)).min(1), 0.9)


def test_the_map_follows_tf_that_jumps(client, start):
    walk = RoomWalk(client, start)
    wrong = np.array(POSES)
    wrong[:, 1, 3] += WRONG_TF
    assert off_the_walls(walk.along(BLUE, wrong[:4])) > 0.15
    assert off_the_walls(walk.along(WITHOUT, POSES[4:])) < 0.06
