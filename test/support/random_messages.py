"""Messages of cameras as a broken driver, a wrong calibration or a foreign publisher sends them, seeded."""

import array

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from gsemsplat_ros.ros.conversions import ENCODINGS, make_header

FRAMES = ['', 'left', 'right', 'map', 'base', '/left', 'a' * 300, 'Äpfel', 'x\ny']
NUMBERS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    300.0,
    1e-300,
    1e300,
    -1e300,
    float('nan'),
    float('inf'),
    float('-inf'),
    2.0**31,
]
SIZES = [0, 1, 2, 3, 7, 8, 16, 17, 2**15, 2**16, 2**31, 2**32 - 1]
WORDS = [
    '',
    'jpeg',
    'png',
    '32FC1',
    '16UC1',
    'RGB8',
    'rgb8 ',
    'bayer',
    'bayer_rggb8; png compressed ',
    'bayer_grbg16; jpeg compressed mono8',
    'mono16; png compressed ',
    'rgb16; png compressed bgr16',
    ';',
    '8UC7',
    'a' * 1000,
    'rgb8\n',
    '\x01',
    'ü',
]


def number(rng):
    return (
        float(rng.choice(NUMBERS)) if rng.random() < 0.3 else float(rng.normal() * 10 ** rng.uniform(-3, 4))
    )


def header(rng):
    return make_header(
        str(rng.choice(FRAMES)), int(rng.integers(0, 2**31)) * 10**9 + int(rng.integers(10**9))
    )


def random_image(rng):
    """A sound image, most often with one or two fields that are not."""
    encoding = str(rng.choice(list(ENCODINGS)))
    size, channels, _ = ENCODINGS[encoding]
    width, height = (int(n) for n in rng.integers(1, 20, 2))
    step = width * channels * size + int(rng.integers(0, 4))
    message = Image(
        header=header(rng),
        width=width,
        height=height,
        encoding=encoding,
        step=step,
        is_bigendian=int(rng.integers(0, 3)),
    )
    length = step * height
    for _ in range(rng.integers(0, 3)):
        match rng.integers(5):
            case 0:
                message.width = int(rng.choice(SIZES))
            case 1:
                message.height = int(rng.choice(SIZES))
            case 2:
                message.step = int(rng.choice(SIZES))
            case 3:
                message.encoding = str(rng.choice([*WORDS, *ENCODINGS]))
            case 4:
                length = int(rng.integers(0, 2000))
    message.data = array.array('B', rng.bytes(length))
    return message


def random_info(rng, width=40, height=32):
    """A sound camera_info of raw images, most often with one or two fields that are not."""
    fx = float(rng.uniform(10, 100))
    message = CameraInfo(
        header=header(rng),
        width=width,
        height=height,
        distortion_model='plumb_bob',
        d=rng.normal(scale=0.05, size=5).tolist(),
        r=np.eye(3).ravel().tolist(),
        k=[fx, 0.0, width / 2, 0.0, fx, height / 2, 0.0, 0.0, 1.0],
        p=[fx, 0.0, width / 2, -fx * 0.1, 0.0, fx, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    for _ in range(rng.integers(0, 4)):
        field = str(rng.choice(['k', 'r', 'p', 'd', 'all', 'size', 'model', 'binning', 'roi', 'many']))
        if field in 'krp':
            getattr(message, field)[rng.integers(9)] = number(rng)
        elif field == 'd':
            message.d = [number(rng) for _ in range(rng.integers(0, 20))]
        elif field == 'all':
            message.k = [number(rng) for _ in range(9)]
            message.p = [number(rng) for _ in range(12)]
        elif field == 'size':
            message.width, message.height = (int(n) for n in rng.choice(SIZES, 2))
        elif field == 'model':
            message.distortion_model = str(
                rng.choice([*WORDS, 'equidistant', 'fisheye', 'rational_polynomial'])
            )
            message.d = [number(rng) / 100 for _ in range(rng.choice([4, 5, 8, 12, 14]))]
        elif field == 'binning':
            message.binning_x, message.binning_y = (int(n) for n in rng.choice(SIZES, 2))
        elif field == 'roi':
            message.roi = RegionOfInterest(
                x_offset=int(rng.choice(SIZES)),
                y_offset=int(rng.choice(SIZES)),
                width=int(rng.choice([0, width, *SIZES])),
                height=int(rng.choice([0, height, *SIZES])),
            )
        elif field == 'many':
            message.r = rng.normal(size=9).tolist()
    return message
