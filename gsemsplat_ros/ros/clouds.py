"""Gaussians as PointCloud2, and back: by sensor_msgs_py where ROS provides it, else by a plain twin.

sensor_msgs_py is no package of the Python package index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.rows import FIELDS, columns_of, fill_rows, thinned
from gsemsplat_ros.ros.conversions import sized

try:
    from sensor_msgs_py import point_cloud2
except ImportError:
    point_cloud2 = None

Fill = Callable[[np.ndarray], int]  # writes (N, fields) float32; how many rows of it


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
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]
    create = create_by_package if point_cloud2 else create_plainly
    cloud = create(header, fields, len(index), lambda rows: fill_rows(rows, rows.view(np.uint32), *columns))
    if cloud.width < len(index):
        say(
            f'{len(index) - cloud.width} of {len(index)} Gaussians are NaN or infinite and left out of the '
            'cloud: are the weights or the calibration damaged?'
        )
    return cloud


def create_by_package(header: Header, fields: list[PointField], count: int, fill: Fill) -> PointCloud2:
    """A dense cloud of at most `count` points by sensor_msgs_py, which copies them once more than the twin:
    1.7 times as long for 400,000 Gaussians (10.4 against 6.3 ms)."""
    rows = np.empty((count, len(fields)), np.float32)
    cloud = point_cloud2.create_cloud(header, fields, rows[: fill(rows)])
    cloud.is_dense = True  # it does not look
    return cloud


def create_plainly(header: Header, fields: list[PointField], count: int, fill: Fill) -> PointCloud2:
    """The plain twin, filled in place."""
    step = 4 * len(fields)
    cloud = PointCloud2(
        header=header, height=1, is_bigendian=False, point_step=step, is_dense=True, fields=fields
    )
    if count:
        rows = np.frombuffer(sized(cloud.data, count * step), np.float32).reshape(count, -1)
        cloud.width = fill(rows)
        del rows  # or the array could not be cut
        del cloud.data[cloud.width * step :]
    cloud.row_step = cloud.width * step
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
    offsets = {
        field.name: field.offset
        for field in cloud.fields
        if field.datatype == PointField.FLOAT32 and field.count == 1
    }
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
    if point_cloud2:
        try:
            return point_cloud2.read_points(cloud, FIELDS)
        except (AssertionError, KeyError, TypeError, ValueError) as error:  # of fields that we do not read
            raise ValueError(f'sensor_msgs_py cannot read the cloud: {error}') from None
    return read_plainly(cloud, offsets)


def read_plainly(cloud: PointCloud2, offsets: Mapping[str, int]) -> np.ndarray:
    """The plain twin of `read_points`; `offsets`: of at least FIELDS."""
    kind = np.dtype(
        {
            'names': list(FIELDS),
            'formats': ['<f4'] * len(FIELDS),
            'offsets': [offsets[name] for name in FIELDS],
            'itemsize': cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, kind, cloud.width * cloud.height)


def columns(points: np.ndarray, *names: str) -> np.ndarray:
    """(N, names) float32 of `cloud_points`."""
    return np.stack([points[name] for name in names], axis=1)


def colors_of(points: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB of `cloud_points`."""
    packed = np.ascontiguousarray(points['rgb']).view(np.uint32)
    return np.stack([packed >> shift & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)
