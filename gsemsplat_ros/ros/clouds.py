"""Gaussians as PointCloud2, and back.

The cloud is filled in one pass by our own few lines also where sensor_msgs_py is installed: `create_cloud`
wants the interleaved fields in an array of its own and copies that once more. Its `read_points` reads ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.rows import FIELDS, columns_of, fill_rows, thinned
from gsemsplat_ros.ros.conversions import sized


def gaussian_cloud(
    gaussians: Gaussians,
    header: Header,
    max_points: int = 0,
    codes: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> PointCloud2:
    """Gaussians as PointCloud2: FIELDS, then code_0 ... if `codes`; each field is a little-endian FLOAT32.

    `max_points` > 0 thins them evenly. Those of which a number is NaN or infinite are left out, and `say`
    hears of it.
    """
    index = thinned(len(gaussians), max_points or len(gaussians))
    columns = columns_of(gaussians, index, codes)
    names = [*FIELDS, *(f'code_{i}' for i in range(columns[-1].shape[1]))]
    step, count = 4 * len(names), len(index)
    cloud = PointCloud2(
        header=header,
        height=1,
        is_bigendian=False,
        point_step=step,
        is_dense=True,
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(names)
        ],
    )
    if count:
        points = np.frombuffer(sized(cloud.data, count * step), np.float32).reshape(count, -1)
        count = fill_rows(points, points.view(np.uint32), *columns)
        del points  # or the array could not be cut
        if count < len(index):
            del cloud.data[count * step :]
            say(
                f'{len(index) - count} of {len(index)} Gaussians are NaN or infinite and left out of the '
                'cloud: are the weights or the calibration damaged?'
            )
    cloud.width, cloud.row_step = count, count * step
    return cloud


def cloud_to_gaussians(cloud: PointCloud2) -> Gaussians:
    """Gaussians of a `gaussian_cloud`, on the CPU, without codes. Raises ValueError for a cloud that lacks
    something, or holds a number that is not finite."""
    points = cloud_points(cloud)

    def tensor(*names: str) -> torch.Tensor:
        return torch.from_numpy(columns(points, *names))

    if not all(np.isfinite(points[name]).all() for name in FIELDS if name != 'rgb'):
        raise ValueError('the cloud holds numbers that are not finite: wanted Gaussians')
    return Gaussians(
        tensor('x', 'y', 'z'),
        tensor('rot_0', 'rot_1', 'rot_2', 'rot_3'),
        tensor('scale_0', 'scale_1', 'scale_2'),
        tensor('opacity')[:, 0],
        torch.from_numpy(colors_of(points).astype(np.float32) / 255),
        torch.zeros(len(points), 0),
        cloud.header.frame_id,
    )


def cloud_points(cloud: PointCloud2) -> np.ndarray:
    """(N,) structured: FIELDS, each a float32, a view of the message's memory. Raises ValueError for a cloud
    that lacks one of them, or data.
    """
    offsets = {field.name: field.offset for field in cloud.fields if field.datatype == PointField.FLOAT32}
    missing = [name for name in FIELDS if name not in offsets]
    if missing:
        raise ValueError(
            f'the cloud has no field {missing[0]} of float32: wanted one of gsemsplat, with Gaussians'
        )
    count, needed = cloud.width * cloud.height, max(offsets[name] for name in FIELDS) + 4
    if cloud.is_bigendian or cloud.point_step < needed or len(cloud.data) < count * cloud.point_step:
        raise ValueError(
            f'the cloud has {len(cloud.data)} bytes for {count} points of {cloud.point_step} bytes'
            f'{", big-endian" if cloud.is_bigendian else ""}: wanted points of at least {needed} bytes, '
            'little-endian, and all of them'
        )
    kind = np.dtype(
        {
            'names': list(FIELDS),
            'formats': ['<f4'] * len(FIELDS),
            'offsets': [offsets[name] for name in FIELDS],
            'itemsize': cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, kind, count)


def columns(points: np.ndarray, *names: str) -> np.ndarray:
    """(N, names) float32 of `cloud_points`."""
    return np.stack([points[name] for name in names], axis=1)


def colors_of(points: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB of `cloud_points`."""
    packed = np.ascontiguousarray(points['rgb']).view(np.uint32)
    return np.stack([packed >> shift & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)
