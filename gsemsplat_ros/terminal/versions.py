"""Versions of this package and of its libraries."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = {'PyTorch': 'torch', 'NumPy': 'numpy', 'numba': 'numba', 'rclpy': 'rclpy', 'gsplat': 'gsplat'}


def versions() -> dict[str, str]:
    """Name -> version, without packages that are not installed; also ROS distribution and machine."""
    found = {
        'gsemsplat_ros': _version('gsemsplat_ros') or 'source checkout',
        'Python': platform.python_version(),
    }
    found.update({name: v for name, package in PACKAGES.items() if (v := _version(package))})
    if 'ROS_DISTRO' in os.environ:
        found['ROS 2'] = os.environ['ROS_DISTRO']
    found['machine'] = f'{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores'
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
