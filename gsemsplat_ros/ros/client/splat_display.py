"""Bridge to RVizSplat, which draws splats in RViz (github.com/splat-ros/RVizSplat, Apache-2.0; docs/rviz.md).

Subscribes to the node's packed splats and republishes them as gsplat_msgs/SplatArray on /gsemsplat/splats.
That message holds a pose with a 6 x 6 covariance for every splat: about 400 bytes, fourteen times as much. So
the bridge is a process of its own, on the computer of RViz, for users of the plugin.
"""

from __future__ import annotations

import numpy as np
import rclpy
from gsemsplat_msgs.msg import PackedSplats
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from gsemsplat_ros.gaussians.packed import covariances_of
from gsemsplat_ros.gaussians.rows import thinned
from gsemsplat_ros.network.config import SH_C0
from gsemsplat_ros.ros.packed_splats import ENDING, splats_of
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.terminal.console import Failure

MAX_SPLATS = 200_000  # 80 MB; more are thinned evenly
LITTLE_ENDIAN = b'\x00\x01\x00\x00'  # how a serialized message begins (CDR encapsulation, OMG DDSI-RTPS 10.2)


def splat_array(packed: PackedSplats, max_splats: int = MAX_SPLATS) -> bytes:
    """Packed splats as a serialized gsplat_msgs/SplatArray: `Splat[] splats`, each

        geometry_msgs/PoseWithCovarianceStamped pose  # covariance: its 3 x 3 [m^2] at the top left;
                                                      # orientation: none, the plugin reads none
        uint8 opacity                                 # 0 to 255
        uint8 harmonics_deg                           # 0: one colour from all sides
        float32[] spherical_harmonics                 # R, G, B of degree 0: (colour - 0.5) / C0

    Written as one NumPy table: as many Python messages would take seconds. Raises ValueError for what
    `splats_of` refuses.
    """
    splats = splats_of(packed)
    splats = splats[thinned(len(splats), max_splats)]
    frame = packed.header.frame_id.encode() + b'\0'
    table = np.zeros(len(splats), _layout(len(frame)))
    table['sec'], table['nanosec'] = packed.header.stamp.sec, packed.header.stamp.nanosec
    table['frame_length'] = len(frame)
    table['frame'] = np.frombuffer(frame, np.uint8)
    table['position'] = splats['position']
    table['orientation'] = 0, 0, 0, 1
    table['covariance'][:, :3, :3] = covariances_of(splats)
    table['opacity'] = splats['rgba'][:, 3]
    table['harmonics_length'], table['harmonics'] = 3, (splats['rgba'][:, :3] / 255 - 0.5) / SH_C0
    return LITTLE_ENDIAN + np.uint32(len(splats)).astype('<u4').tobytes() + table.tobytes()


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
    """The bridge as a node; `topic`: of the cloud of the Gaussians. Raises Failure without gsplat_msgs."""

    def __init__(self, topic: str):
        try:
            from gsplat_msgs.msg import SplatArray
        except ImportError:
            raise Failure(
                'gsplat_msgs is missing: build splat-ros/splat_interfaces and splat-ros/RVizSplat in this '
                'workspace (docs/rviz.md) and source it'
            ) from None
        super().__init__('gsemsplat_splats')
        self._publisher = self.create_publisher(SplatArray, '/gsemsplat/splats', LATCHED)
        self.create_subscription(PackedSplats, topic + ENDING, self._on_splats, LATCHED)

    def _on_splats(self, packed: PackedSplats) -> None:
        try:
            count = len(splats_of(packed))
            if count > MAX_SPLATS:
                self.get_logger().warning(f'{count} Gaussians thinned to {MAX_SPLATS}', once=True)
            self._publisher.publish(splat_array(packed))
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
