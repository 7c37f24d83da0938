"""The cost of the message of the Gaussians: in one copy, compared with the usual way."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from gsemsplat_ros.bench.stages import Stage
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.ros.clouds import gaussian_cloud
from gsemsplat_ros.ros.conversions import make_header


def message_stage(gaussians: Gaussians) -> Stage:
    """The cloud of the Gaussians that are drawn: by columns put together, turned to bytes and assigned, and
    in one copy.
    """
    header = make_header('camera', 0)
    return Stage(
        'messages', lambda: plain_cloud(gaussians, header), lambda: gaussian_cloud(gaussians, header)
    )


def plain_cloud(gaussians: Gaussians, header: Header) -> PointCloud2:
    """The same message the usual way: interleaved columns, then bytes, then the message's own array."""
    means, quats, scales, opacities, colors = (
        getattr(gaussians, name).cpu().numpy() for name in ('means', 'quats', 'scales', 'opacities', 'colors')
    )
    r, g, b = np.rint(np.clip(colors, 0, 1) * 255).T
    rgb = (r * 65536 + g * 256 + b).astype(np.uint32).view(np.float32)
    table = np.column_stack((means, rgb, opacities, scales, quats))
    return PointCloud2(
        header=header,
        height=1,
        width=len(means),
        point_step=48,
        row_step=48 * len(means),
        data=array.array('B', table.tobytes()),
    )
