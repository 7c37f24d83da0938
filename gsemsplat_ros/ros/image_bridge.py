"""Images by cv_bridge, where ROS provides it and it works here.

cv_bridge is compiled against one NumPy and one OpenCV: beside others, which pip may have brought, it fails
when it is used, not when it is imported. So it is tried once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sensor_msgs.msg import Image

try:
    import cv_bridge
except ImportError:
    cv_bridge = None

# What every version of cv_bridge turns into the same rgb8 as `image_to_rgb` does itself; docs/cameras.md has
# the other encodings, and why not.
BRIDGED = frozenset(
    (
        *('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'yuv422', 'yuv422_yuy2'),
        *(f'bayer_{pattern}8' for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')),
    )
)


def make_bridge() -> Callable[[Image], np.ndarray] | None:
    """What makes (H, W, 3) uint8 RGB of an image of BRIDGED, of rows without filling bytes; rgb8 is a view of
    the message's memory. None where cv_bridge is missing or does not work."""
    if cv_bridge is None:
        return None
    bridge = cv_bridge.CvBridge()

    def read(message: Image) -> np.ndarray:
        return bridge.imgmsg_to_cv2(message, 'passthrough' if message.encoding == 'rgb8' else 'rgb8')

    trial = Image(width=2, height=1, encoding='bgr8', step=6, data=bytes(range(6)))
    try:
        works = np.array_equal(read(trial), [[[2, 1, 0], [5, 4, 3]]])
    except Exception:  # ImportError, AttributeError, SystemError: whatever does not fit
        works = False
    return read if works else None
