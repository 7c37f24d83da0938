"""Messages to NumPy and back: images, stamps, bytes.

Images come through cv_bridge (image_bridge.py) where that gives the same values as the conversions here,
which serve where it is not installed, and for the other encodings (docs/cameras.md). Nothing here loops over
pixels, points or bytes in Python.
"""

from __future__ import annotations

import array
import contextlib
import io

import cv2
import numpy as np
import PIL.Image
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from gsemsplat_ros.images.image_file import MAX_PIXELS
from gsemsplat_ros.images.levels import Levels
from gsemsplat_ros.ros.image_bridge import BRIDGED, make_bridge

# encoding -> (bytes a channel, channels, OpenCV conversion to RGB or None; alpha of 16 bits is gone by then).
# 8UC1 and 8UC3 follow OpenCV: gray, BGR. REP 118's encodings for depth (16UC1, 32FC1) are no pictures.
ENCODINGS: dict[str, tuple[int, int, int | None]] = {
    'rgb8': (1, 3, None),
    'bgr8': (1, 3, cv2.COLOR_BGR2RGB),
    '8UC3': (1, 3, cv2.COLOR_BGR2RGB),
    'rgba8': (1, 4, cv2.COLOR_RGBA2RGB),
    'bgra8': (1, 4, cv2.COLOR_BGRA2RGB),
    '8UC4': (1, 4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, 1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, 1, cv2.COLOR_GRAY2RGB),
    'mono16': (2, 1, cv2.COLOR_GRAY2RGB),
    'rgb16': (2, 3, None),
    'bgr16': (2, 3, cv2.COLOR_BGR2RGB),
    'rgba16': (2, 4, None),
    'bgra16': (2, 4, cv2.COLOR_BGR2RGB),
    'yuv422': (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (1, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (1, 2, cv2.COLOR_YUV2RGB_YUY2),
    'bayer_rggb8': (1, 1, cv2.COLOR_BayerRGGB2RGB),
    'bayer_bggr8': (1, 1, cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg8': (1, 1, cv2.COLOR_BayerGBRG2RGB),
    'bayer_grbg8': (1, 1, cv2.COLOR_BayerGRBG2RGB),
    'bayer_rggb16': (2, 1, cv2.COLOR_BayerRGGB2RGB),
    'bayer_bggr16': (2, 1, cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg16': (2, 1, cv2.COLOR_BayerGBRG2RGB),
    'bayer_grbg16': (2, 1, cv2.COLOR_BayerGRBG2RGB),
}
MEASUREMENTS = '16UC1', '16SC1', '32FC1', '32FC3', '64FC1'

BRIDGE = make_bridge()
NEARLY_BLACK = 20  # of 255: white of 12 bits is 16, and JPEG adds a few levels
# as the image lies on the sensor, whatever EXIF says: the calibration is of that
AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def quoted(text: str) -> str:
    """A string from a message for a line of the log: quoted, on one line, at most 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + '...')


def image_to_rgb(message: Image, levels: Levels | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB, contiguous.

    16-bit values are scaled by `levels`, which the images of a camera or stereo pair share (None: by this
    image alone): as in cv_bridge where all 16 bits are filled, brighter where fewer are.

    Raises ValueError for an encoding that is no colour or gray picture, and for a step or data length that
    does not fit the size. rgb8 without padding is a view of the message's memory: nothing is copied.
    """
    width, height, step, encoding = message.width, message.height, message.step, message.encoding
    if encoding in MEASUREMENTS:
        raise ValueError(
            f'image encoding {quoted(encoding)} holds measurements such as depth (possibly NaN), not a '
            f'picture: wanted one of {", ".join(ENCODINGS)}; is the topic remapped to a depth image?'
        )
    if encoding not in ENCODINGS:
        raise ValueError(
            f'image encoding {quoted(encoding)} is unknown: wanted one of {", ".join(ENCODINGS)}'
        )
    size, channels, conversion = ENCODINGS[encoding]
    row = width * channels * size
    if not width or not height or step < row or len(message.data) != step * height:
        raise ValueError(
            f'image of {width}x{height} px, {encoding}, step {step}, has {len(message.data)} bytes '
            f'of data: wanted a step of at least {max(row, 1)} and step x height bytes'
        )
    if channels == 2 and width % 2:
        raise ValueError(f'image of {width}x{height} px, {encoding}: wanted an even width')
    if BRIDGE and encoding in BRIDGED and step == row and not message.is_bigendian:
        return BRIDGE(message)
    pixels = np.frombuffer(message.data, np.uint8).reshape(height, step)[:, :row]
    if size == 2:
        values = np.ascontiguousarray(pixels).view('>u2' if message.is_bigendian else '<u2')
        values = values.reshape(height, width, channels)[:, :, :3]  # alpha says nothing of brightness
        pixels = (levels or Levels()).to_8_bits(np.ascontiguousarray(values, np.uint16))
    else:
        pixels = pixels.reshape(height, width, channels)  # copies only padded rows
    if conversion is None:
        return np.ascontiguousarray(pixels)
    return cv2.cvtColor(np.ascontiguousarray(pixels), conversion)


def compressed_to_rgb(message: CompressedImage, levels: Levels | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG or PNG; 16-bit values are scaled as in `image_to_rgb`.

    The format is that of image_transport: 'bayer_rggb8; jpeg compressed mono8' is the encoding of the raw
    image, the codec, and what was given to it. Raises ValueError for measurements, and for data that is
    neither JPEG nor PNG, is cut off or damaged, or claims more than MAX_PIXELS. JPEG has no checksum: damage
    in its middle can pass, as blocks of wrong colour.
    """
    kind, data = message.format, np.frombuffer(message.data, np.uint8)
    encoding, _, codec = (part.strip() for part in kind.partition(';'))
    wanted = f'compressed image of {data.size} bytes, format {quoted(kind)}, '
    if 'compresseddepth' in kind.lower() or encoding in MEASUREMENTS:
        raise ValueError(wanted + 'holds depth, not a picture: is the topic remapped to a depth image?')
    try:
        # reads the size, decodes nothing
        with PIL.Image.open(io.BytesIO(message.data), formats=('JPEG', 'PNG')) as header:
            (width, height), jpeg = header.size, header.format != 'PNG'
    except Exception:  # PIL raises whatever its parsers stumble over
        raise ValueError(
            wanted + "is no JPEG or PNG, or is damaged: wanted the topic of image_transport 'compressed', "
            'with its format set to jpeg or png'
        ) from None
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(wanted + f'claims {width}x{height} px: wanted at most {MAX_PIXELS} pixels')
    # OpenCV fills what is missing of a JPEG with gray: the end marker must be there
    pixels = None
    if not jpeg or b'\xff\xd9' in data.tobytes().rstrip(b'\0')[-16:]:
        with contextlib.suppress(cv2.error):
            pixels = cv2.imdecode(data, AS_STORED)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise ValueError(wanted + f'{width}x{height} px, is cut off or damaged')
    if jpeg and encoding.endswith('16') and pixels.max() <= NEARLY_BLACK:
        raise ValueError(
            wanted
            + 'is nearly black: JPEG holds the upper 8 of 16 bits, and the sensor fills the lower ones; '
            'set the format of image_transport to png'
        )
    pixels = (levels or Levels()).to_8_bits(pixels)
    converted = codec.partition('compressed')[2].strip()
    if pixels.ndim == 3:
        return pixels if converted.startswith('rgb') else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    # a mosaic is stored as it is, unless converted to gray
    mosaic = encoding.startswith('bayer_') and encoding in ENCODINGS and not converted
    conversion = ENCODINGS[encoding][2] if mosaic else None
    return cv2.cvtColor(pixels, conversion or cv2.COLOR_GRAY2RGB)


def stamp_ns(header: Header) -> int:
    """The stamp in nanoseconds."""
    return time_ns(header.stamp)


def time_ns(time: Time) -> int:
    """The time in nanoseconds."""
    return time.sec * 1_000_000_000 + time.nanosec


def make_header(frame: str, stamp_ns: int) -> Header:
    """A header with this frame and time [ns]."""
    return Header(frame_id=frame, stamp=time_message(stamp_ns))


def time_message(stamp_ns: int) -> Time:
    """A time [ns] as a message."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def sized(data: array.array, count: int) -> array.array:
    """The empty `data` of a new message, grown in place to `count` > 0 zero bytes, for NumPy to write into.

    The cheapest public way: assigning an ndarray checks every element (170 ms for 4 MB), assigning bytes or
    an array copies once more, and the private `_data` belongs to generated code.
    """
    assert len(data) == 0 and count > 0, (len(data), count)
    data.append(0)
    data *= count
    return data


def image_message(image: np.ndarray, header: Header) -> Image:
    """(H, W, 3) uint8 as rgb8, (H, W) float32 as 32FC1.

    Filled in place also where cv_bridge is installed: its copies take 13 times as long (0.77 against 0.06 ms
    for 640 x 480 px), and its `cv2_to_imgmsg` fails beside an OpenCV that numbers its types otherwise.
    """
    assert (image.dtype, image.ndim) in ((np.uint8, 3), (np.float32, 2)), (image.dtype, image.shape)
    height, width = image.shape[:2]
    encoding = 'rgb8' if image.ndim == 3 else '32FC1'
    message = Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=image.nbytes // height,
    )
    np.frombuffer(sized(message.data, image.nbytes), image.dtype).reshape(image.shape)[:] = image
    return message
