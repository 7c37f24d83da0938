"""The robot of a simulated house as ROS sees it: /clock, TF (REP 105), stereo images; and its bag."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import Status
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.ros.client.bag_writer import BagWriter
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.player import TOPICS, Messages, Player, Received, stereo_messages
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.ros.messages import transform_message
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.simulation import motion
from gsemsplat_ros.simulation.robot import BASE, LEFT, MAP, ODOM, RADIUS, RIGHT, base_from, parent_from_base
from gsemsplat_ros.simulation.route import shortest_way
from gsemsplat_ros.simulation.world import World
from gsemsplat_ros.terminal.console import Failure

QUALITY = 95  # of the JPEG images
BEGIN_NS = 1_000_000_000  # simulated time of the first pose
# m: in finer ones, splinters at the edges of doorways stand in the way of the approach pose
VOXEL = 0.08
# of the node: it takes its time from /clock and its poses from TF
PARAMETERS = {
    'use_sim_time': True,
    'image_transport': 'compressed',
    'map_frame': MAP,
    'base_frame': BASE,
    'robot_radius_m': RADIUS,
    'map_voxel_m': VOXEL,
    'map_max_gaussians': 400_000,
    'max_points': 200_000,
}


class SimulatedRobot:
    """Stands at `pose` (x, y, yaw) in a house, and shows what it sees to the node.

    path: all poses so far; seconds: the simulated time [s].
    """

    def __init__(self, world: World, client: Client, player: Player, bag: BagWriter, start: np.ndarray):
        self.world, self.pose, self.seconds = world, np.asarray(start, float), 0.0
        self.path: list[np.ndarray] = []
        self._client, self._player, self._bag = client, player, bag
        self._map_from_odom = parent_from_base(self.pose)  # odometry begins at the start (REP 105)
        node = client.node
        self._clock = node.create_publisher(Clock, '/clock', QoSProfile(depth=1))
        self._tf = node.create_publisher(TFMessage, '/tf', QoSProfile(depth=100))
        self._static = node.create_publisher(TFMessage, '/tf_static', LATCHED)

    @property
    def status(self) -> Status:
        """The node's newest."""
        return self._player.status

    @property
    def stamp_ns(self) -> int:
        """The simulated time."""
        return BEGIN_NS + round(self.seconds * 1e9)

    def wait_for_node(self) -> None:
        """Wait until the node hears all that the robot says. Raises Failure if it does not."""
        self._tick()
        mounts = [transform_message(base_from(side), side, self._header(BASE)) for side in (LEFT, RIGHT)]
        self._send('/tf_static', self._static, TFMessage(transforms=mounts), latched=True)
        self._player.wait_for_node(self._messages(self.world.pair(self.pose, self.stamp_ns)))
        if not self._client.until(lambda: self._tf.get_subscription_count(), 30.0):
            raise Failure('the node does not listen to /tf: is tf2_msgs installed?')

    def look(self) -> tuple[Pair, Received]:
        """Show the node what is seen from here, and wait for what it makes of it. Raises Failure if it makes
        nothing."""
        self._tick()
        self._send('/tf', self._tf, self._transforms())
        pair = self.world.pair(self.pose, self.stamp_ns)
        messages = self._messages(pair)
        for topic, message in zip(TOPICS, messages):
            ending = '/compressed' if isinstance(message, CompressedImage) else ''
            self._bag.write(f'/{topic}{ending}', message, self.stamp_ns)
        self.path.append(self.pose)
        return pair, self._player.play(messages, self.stamp_ns)

    def go(self, pose: np.ndarray) -> None:
        """Be at the next pose of a way, at the time that it takes to get there."""
        self.seconds += float(motion.seconds([self.pose, pose])[1])
        self.pose = np.asarray(pose, float)

    def navigate_to_pose(self, goal: PoseStamped) -> np.ndarray:
        """The poses (N, 3) to a goal in MAP on the shortest free way: the part of Nav2's action of that name
        which a demo needs. Raises ValueError, in the place of its error, where none leads there."""
        if goal.header.frame_id != MAP:
            raise ValueError(f"the goal is in frame '{goal.header.frame_id}': wanted '{MAP}'")
        at = goal.pose.position
        way = shortest_way(self.world.plan, self.pose[:2], np.array([at.x, at.y]), RADIUS)
        return motion.driven(way, float(self.pose[2]), yaw_of(goal))

    def _tick(self) -> None:
        self._clock.publish(Clock(clock=self._header('').stamp))

    def _transforms(self) -> TFMessage:
        """map -> odom -> base_link: a localisation without errors, and odometry from the start."""
        odom_from_base = np.linalg.inv(self._map_from_odom) @ parent_from_base(self.pose)
        return TFMessage(
            transforms=[
                transform_message(self._map_from_odom, ODOM, self._header(MAP)),
                transform_message(odom_from_base, BASE, self._header(ODOM)),
            ]
        )

    def _send(self, topic: str, publisher: Any, message: Any, latched: bool = False) -> None:
        publisher.publish(message)
        self._bag.write(topic, message, self.stamp_ns, latched)

    def _messages(self, pair: Pair) -> Messages:
        left, right, *images = stereo_messages(pair, self.stamp_ns)
        packed = [jpeg(view.image, image.header) for view, image in zip((pair.first, pair.second), images)]
        return left, right, packed[0], packed[1]

    def _header(self, frame: str) -> Header:
        return make_header(frame, self.stamp_ns)


def yaw_of(goal: PoseStamped) -> float:
    """Where an upright pose looks to [rad]."""
    turn = goal.pose.orientation
    return float(np.arctan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y**2 + turn.z**2)))


def jpeg(rgb: np.ndarray, header: Header) -> CompressedImage:
    """An image (H, W, 3) uint8 RGB as a JPEG message."""
    done, data = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, rgb.shape
    return CompressedImage(header=header, format='rgb8; jpeg compressed bgr8', data=data.tobytes())
