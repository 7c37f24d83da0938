"""Bridge to RVizSplat, which draws splats in RViz (github.com/RVizSplat/RVizSplat, Apache-2.0; docs/rviz.md).

Subscribes to the node's Gaussians (PointCloud2) and republishes them as gsplat_msgs/SplatArray on
/gsemsplat/splats. That message holds a pose with a 6 x 6 covariance for every splat: about 400 bytes, eight
times as much as the cloud. So the bridge is a process of its own, for users of the plugin.
"""

from __future__ import annotations

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.gaussians.rows import thinned
from gsemsplat_ros.network.config import SH_C0
from gsemsplat_ros.ros.clouds import cloud_points, colors_of, columns
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.terminal.console import Failure

MAX_SPLATS = 200_000  # 80 MB; larger clouds are thinned evenly
LITTLE_ENDIAN = b'\x00\x01\x00\x00'  # how a serialized message begins (CDR encapsulation, OMG DDSI-RTPS 10.2)


def splat_array(cloud: PointCloud2, max_splats: int = MAX_SPLATS) -> bytes:
    """A cloud of ros/clouds.py as a serialized gsplat_msgs/SplatArray: `Splat[] splats`, each

        geometry_msgs/PoseWithCovarianceStamped pose  # covariance: the Gaussian's 3 x 3 [m^2] at its top left
        uint8 opacity                                 # 0 to 255
        uint8 harmonics_deg                           # 0: one colour from all sides
        float32[] spherical_harmonics                 # R, G, B of degree 0: (colour - 0.5) / C0

    Written as one NumPy table: as many Python messages would take seconds. Raises ValueError for a cloud that
    lacks a field.
    """
    points = cloud_points(cloud)
    points = points[thinned(len(points), max_splats)]
    frame = cloud.header.frame_id.encode() + b'\0'
    table = np.zeros(len(points), _layout(len(frame)))
    table['sec'], table['nanosec'] = cloud.header.stamp.sec, cloud.header.stamp.nanosec
    table['frame_length'] = len(frame)
    table['frame'] = np.frombuffer(frame, np.uint8)
    table['position'] = columns(points, 'x', 'y', 'z')
    quats = columns(points, 'rot_0', 'rot_1', 'rot_2', 'rot_3').astype(np.float64)  # w, x, y, z
    table['orientation'] = quats[:, [1, 2, 3, 0]]
    scales = columns(points, 'scale_0', 'scale_1', 'scale_2').astype(np.float64)
    axes = quats_to_rotations(quats) * scales[:, None]
    table['covariance'][:, :3, :3] = axes @ axes.transpose(0, 2, 1)
    table['opacity'] = np.rint(np.clip(points['opacity'], 0, 1) * 255)
    table['harmonics_length'], table['harmonics'] = 3, (colors_of(points) / 255 - 0.5) / SH_C0
    return LITTLE_ENDIAN + np.uint32(len(points)).astype('<u4').tobytes() + table.tobytes()


def _layout(frame_length: int) -> np.dtype:
    """One Splat as CDR lays it out, a number on a multiple of its size. A Splat begins four bytes after a
    multiple of eight, the first one behind the count of all, and ends so: all have one layout."""
    name, offset = 4 + 12, -(-(4 + 12 + frame_length) // 8) * 8  # of the frame's characters, of the position
    fields = {
        'sec': ('<i4', 4),
        'nanosec': ('<u4', 8),
        'frame_length': ('<u4', 12),
        'frame': ((np.uint8, frame_length), name),
        'position': (('<f8', 3), offset),
        'orientation': (('<f8', 4), offset + 24),
        'covariance': (('<f8', (6, 6)), offset + 56),
        'opacity': (np.uint8, offset + 344),
        'harmonics_deg': (np.uint8, offset + 345),
        'harmonics_length': ('<u4', offset + 348),
        'harmonics': (('<f4', 3), offset + 352),
    }
    return np.dtype(
        {
            'names': list(fields),
            'formats': [kind for kind, _ in fields.values()],
            'offsets': [at - 4 for _, at in fields.values()],
            'itemsize': offset + 364 - 4,
        }
    )


class SplatDisplay(Node):
    """The bridge as a node; `topic`: of the Gaussians. Raises Failure without gsplat_msgs."""

    def __init__(self, topic: str):
        try:
            from gsplat_msgs.msg import SplatArray
        except ImportError:
            raise Failure(
                'gsplat_msgs is missing: build RVizSplat in this workspace (docs/rviz.md) and source it'
            ) from None
        super().__init__('gsemsplat_splats')
        self._publisher = self.create_publisher(SplatArray, '/gsemsplat/splats', LATCHED)
        self.create_subscription(PointCloud2, topic, self._on_cloud, LATCHED)

    def _on_cloud(self, cloud: PointCloud2) -> None:
        if cloud.width * cloud.height > MAX_SPLATS:
            self.get_logger().warning(
                f'{cloud.width * cloud.height} Gaussians thinned to {MAX_SPLATS}', once=True
            )
        try:
            self._publisher.publish(splat_array(cloud))
        except ValueError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)


def run(topic: str) -> None:
    """Show the Gaussians of `topic` until SIGINT. Raises Failure without the plugin's messages."""
    rclpy.init(args=[])
    try:
        rclpy.spin(SplatDisplay(topic))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
