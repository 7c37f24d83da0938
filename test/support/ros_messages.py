"""Messages of cameras and TF, and point clouds as tables."""

import math

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from sensor_msgs.msg import CameraInfo, Image

from gsemsplat_ros.ros.conversions import image_message, make_header

LEFT, RIGHT = (200, 100, 50), (10, 20, 30)  # colours of the two cameras


def picture(color, width=64, height=48, frame='left_optical', stamp_ns=0) -> Image:
    """An rgb8 image of one colour, with a white block, so that it shows something."""
    pixels = np.full((height, width, 3), color, np.uint8)
    pixels[height // 3 : -height // 6, width // 16 : width * 7 // 16] = 255
    return image_message(pixels, make_header(frame, stamp_ns))


def raw_image(encoding, shape, **changes) -> Image:
    """An image of ones; `changes` overwrite fields, to make it invalid."""
    pixels = np.ones(shape, np.uint8)
    message = picture(LEFT, width=shape[1], height=shape[0])
    message.encoding, message.step, message.data = encoding, pixels.nbytes // shape[0], pixels.tobytes()
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def camera_info(
    tx=0.0, frame='left_optical', stamp_ns=0, width=64, height=48, fx=50.0, d=(0.0,) * 5
) -> CameraInfo:
    """A rectified camera; tx = -fx x baseline for the right one."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return CameraInfo(
        header=make_header(frame, stamp_ns),
        width=width,
        height=height,
        distortion_model='plumb_bob',
        d=list(d),
        k=[fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        p=[fx, 0.0, cx, float(tx), 0.0, fx, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


HEADER = make_header('left_optical', 12_345_678_901)


def info(
    K=(400.0, 0, 319.5, 0, 410.0, 239.5, 0, 0, 1),
    P=None,
    D=(),
    model='plumb_bob',
    width=640,
    height=480,
    **more,
):
    P = (K[0], 0, K[2], 0, 0, K[4], K[5], 0, 0, 0, 1, 0) if P is None else P
    return CameraInfo(
        header=HEADER,
        width=width,
        height=height,
        k=[float(v) for v in K],
        p=[float(v) for v in P],
        d=list(D),
        distortion_model=model,
        r=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        **more,
    )


def table(cloud):
    """The points of a cloud as a structured array, by the fields of the message."""
    dtype = np.dtype(
        {
            'names': [f.name for f in cloud.fields],
            'offsets': [f.offset for f in cloud.fields],
            'formats': ['<f4'] * len(cloud.fields),
            'itemsize': cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, dtype)


S = 10**9


START = 1000 * S


def tf(parent, child, seconds=0.0, xyz=(0.0, 0.0, 0.0), yaw=0.0, quat=None):
    """A transform `seconds` after START, turned about z by `yaw` [rad]."""
    x, y, z, w = quat or (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
    return TransformStamped(
        header=make_header(parent, START + round(seconds * S)),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(**dict(zip('xyz', map(float, xyz)))), rotation=Quaternion(x=x, y=y, z=z, w=w)
        ),
    )
