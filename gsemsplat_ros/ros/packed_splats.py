"""Gaussians as PackedSplats, 28 bytes each, and what a reader makes of one."""

from __future__ import annotations

import numpy as np
from gsemsplat_msgs.msg import PackedSplats
from std_msgs.msg import Header

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.packed import SPLAT, pack
from gsemsplat_ros.gaussians.rows import thinned
from gsemsplat_ros.ros.conversions import sized

ENDING = '/packed'  # of the topic, behind that of the cloud of the same Gaussians


def packed_splats(gaussians: Gaussians, header: Header, max_points: int = 0) -> PackedSplats:
    """`max_points` > 0 thins them evenly; those of which a number is not finite are left out."""
    message = PackedSplats(header=header, layout=PackedSplats.ROOT_OF_COVARIANCE)
    splats = pack(gaussians, thinned(len(gaussians), max_points or len(gaussians)))
    if len(splats):
        np.frombuffer(sized(message.data, splats.nbytes), SPLAT)[:] = splats
    return message


def splats_of(message: PackedSplats) -> np.ndarray:
    """(N,) SPLAT, a view of the message's memory. Raises ValueError for another layout, and for data that is
    cut off."""
    if message.layout != PackedSplats.ROOT_OF_COVARIANCE or len(message.data) % SPLAT.itemsize:
        raise ValueError(
            f'packed splats of layout {message.layout} with {len(message.data)} bytes: wanted layout '
            f'{PackedSplats.ROOT_OF_COVARIANCE} and {SPLAT.itemsize} bytes a splat; are sender and reader of '
            'one version?'
        )
    return np.frombuffer(message.data, SPLAT)
