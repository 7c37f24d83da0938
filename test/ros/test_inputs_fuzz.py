"""Whatever a message holds, the conversions return a sound value or raise ValueError in one line; nothing
else.

Seeded: a failure says which case it was. No ROS process: the functions that the worker calls on raw messages.
"""

import dataclasses

import cv2
import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.exceptions import ParameterUninitializedException
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from support.damaged import damaged
from support.random_messages import FRAMES, NUMBERS, WORDS, header, number, random_image, random_info
from support.ros_messages import camera_info

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.ros import inputs, sources
from gsemsplat_ros.ros.calibration import Rectifier, baseline_of, camera_of
from gsemsplat_ros.ros.conversions import (
    compressed_to_rgb,
    image_message,
    image_to_rgb,
    make_header,
    stamp_ns,
)
from gsemsplat_ros.ros.parameters import Parameters, changed, declare
from gsemsplat_ros.ros.tf_buffer import PlainBuffer

PICTURE = np.kron(
    np.random.default_rng(3).integers(0, 256, (4, 5, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
)
FILES = [cv2.imencode(ending, PICTURE)[1].tobytes() for ending in ('.jpg', '.png', '.bmp', '.tiff')]
FILES += [
    cv2.imencode('.png', pixels)[1].tobytes() for pixels in (PICTURE.astype(np.uint16) << 4, PICTURE[..., 0])
]


def allowed(case, function, *arguments):
    """The value of the function, or None when it raised ValueError as it should."""
    try:
        return function(*arguments)
    except ValueError as error:
        text = str(error)
        assert text and '\n' not in text and len(text) < 1500, (case, text)
    except Exception as error:
        raise AssertionError(f'{case}: {type(error).__name__}: {error} of {arguments}') from error
    return None


def sound(pixels):
    return (
        pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.flags.c_contiguous
    )


def test_fuzz_images():
    rng, read = np.random.default_rng(11), 0
    for case in range(6000):
        message = random_image(rng)
        pixels = allowed(case, image_to_rgb, message)
        if pixels is not None:
            assert sound(pixels) and pixels.shape[:2] == (message.height, message.width), case
            read += 1
    assert 1000 < read < 5000


def test_fuzz_compressed_images(capfd):
    rng, read = np.random.default_rng(12), 0
    for case in range(3000):
        data = damaged(rng, FILES[rng.integers(len(FILES))])
        message = CompressedImage(header=header(rng), format=str(rng.choice(WORDS)))
        message.data = data if rng.random() < 0.95 else b''
        pixels = allowed(case, compressed_to_rgb, message)
        if pixels is not None:
            assert sound(pixels), case
            read += 1
    assert 300 < read < 2500
    capfd.readouterr()  # what libpng and libjpeg print


def test_fuzz_camera_info():
    rng, raw, used = np.random.default_rng(13), np.zeros((32, 40, 3), np.uint8), 0
    for case in range(6000):
        message = random_info(rng)
        camera = allowed(case, camera_of, message, 40, 32, '/info')
        assert camera is None or (isinstance(camera, Camera) and np.isfinite(camera.K).all()), case
        baseline = allowed(case, baseline_of, random_info(rng), message, '/info')
        assert baseline is None or 0 < baseline < float('inf'), case
        rectified = allowed(case, Rectifier(), raw, message, '/info')
        assert rectified is None or rectified.shape == raw.shape, case
        used += rectified is not None
    assert 500 < used < 5500


def textured(width, height):
    """(H, W, 3) uint8: corners everywhere, in several sizes."""
    noise = np.random.default_rng(5).normal(size=(height, width, 3))
    picture = sum(size * cv2.GaussianBlur(noise, (0, 0), size) for size in (1.0, 3.0, 8.0))
    return cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.mark.parametrize(
    'mode, rectified', [('stereo', True), ('stereo', False), ('sequential', True), ('sequential', False)]
)
def test_fuzz_sources(mode, rectified):
    """A camera that moves on by a few pixels with each message, and messages among them that are wrong."""
    rng, said, pairs = np.random.default_rng(14), [], 0
    sides, (width, height), whole = 2 if mode == 'stereo' else 1, (160, 120), textured(2000, 120)
    source = sources.make_source(
        Parameters(mode=mode, rectified=rectified), [('/image', '/info')] * sides, said.append
    )
    sound_infos = [
        camera_info(tx=tx, frame='left', width=width, height=height, fx=150.0) for tx in (0.0, -15.0)
    ]
    for case in range(500):
        images, infos, stamp = [], [], (case + 1) * 10**8
        for side in range(sides):
            if rng.random() < 0.1:
                images.append(random_image(rng))
            else:
                at = case * 4 % (2000 - width)
                pixels = np.ascontiguousarray(whole[:, at : at + width])
                images.append(image_message(pixels, make_header('left', stamp)))
            wrong = rng.random()
            infos.append(
                None
                if wrong < 0.05
                else random_info(rng, width, height)
                if wrong < 0.15
                else sound_infos[side]
            )
        pair = allowed(case, source.pair, inputs.Input(tuple(images), tuple(infos)))
        if pair is not None:
            assert isinstance(pair, Pair) and sound(pair.first.image) and sound(pair.second.image), case
            assert (pair.baseline_m is not None) == (mode == 'stereo'), case
            pairs += 1
    assert pairs > 20, source.selection


def test_fuzz_transforms():
    rng, buffer, found = np.random.default_rng(15), PlainBuffer(), 0
    for case in range(4000):
        q = rng.normal(size=4) if rng.random() < 0.2 else np.append(np.zeros(3), 1.0)
        q = [number(rng) for _ in range(4)] if rng.random() < 0.1 else (q / np.linalg.norm(q)).tolist()
        message = TransformStamped(
            header=make_header(str(rng.choice(FRAMES)), int(rng.integers(0, 10)) * 10**9),
            child_frame_id=str(rng.choice(FRAMES)),
            transform=Transform(
                translation=Vector3(x=number(rng), y=0.0, z=number(rng)),
                rotation=Quaternion(**dict(zip('xyzw', q))),
            ),
        )
        allowed(case, buffer.add, message, bool(rng.random() < 0.3))
        if case % 50 == 0:
            buffer = PlainBuffer()
        try:
            pose = buffer.lookup(str(rng.choice(FRAMES)), str(rng.choice(FRAMES)), stamp_ns(message.header))
            assert pose.shape == (4, 4) and np.isfinite(pose[:3, :3]).all(), case
            found += 1
        except LookupError as error:
            assert str(error), case
    assert found > 100


STRANGE = [
    None,
    True,
    False,
    0,
    1,
    -1,
    8,
    10**6,
    2**63 - 1,
    -(2**63),
    *NUMBERS,
    '',
    'stereo',
    'auto',
    'a\nb',
    'ü' * 300,
    [],
    [''],
    ['chair'],
    ['x'] * 33,
    ['  '],
    [1, 2],
    [0.5],
    [True],
    [b'\x01', b'\x02'],
    ['ä' * 500],
]


def strange(rng):
    value = STRANGE[rng.integers(len(STRANGE))]
    return number(rng) if rng.random() < 0.3 else value


def test_fuzz_parameters():
    """The check of a change, and a node of rclpy whose parameters are set."""
    rng, now, taken = np.random.default_rng(16), Parameters(), 0
    names = [f.name for f in dataclasses.fields(Parameters)] + ['use_sim_time', 'nothing']
    for case in range(4000):
        wanted = [Parameter(str(name), value=strange(rng)) for name in rng.choice(names, rng.integers(1, 4))]
        wanted = [p for p in wanted if _typed(now, p)]  # rclpy refuses the others before we are asked
        after = allowed(case, changed, now, wanted, bool(rng.integers(2)))
        assert after is None or isinstance(after, Parameters), case
        taken += after is not None and after != now
    assert taken > 100


def _typed(now, parameter):
    value = getattr(now, parameter.name, None)
    return value is None or isinstance(value, tuple) or type(value) is type(parameter.value)


def test_fuzz_parameters_of_a_node(domain):
    rng, context = np.random.default_rng(17), Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('parameters', context=context, start_parameter_services=False)
    try:
        held, taken, refused = [declare(node)], 0, 0

        def check(wanted):
            try:
                changed(held[0], wanted, running=False)
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
            return SetParametersResult(successful=True)

        node.add_on_set_parameters_callback(check)
        node.add_post_set_parameters_callback(
            lambda wanted: held.__setitem__(0, changed(held[0], wanted, running=False))
        )
        names = [f.name for f in dataclasses.fields(Parameters)]
        for case in range(1500):
            name, value = str(rng.choice(names)), strange(rng)
            try:
                result = node.set_parameters([Parameter(name, value=value)])[0]
            except ParameterUninitializedException:
                continue
            assert result.successful or result.reason, (case, name, value)
            taken, refused = taken + result.successful, refused + (not result.successful)
            if result.successful and value is not None:
                stored = node.get_parameter(name).value
                wanted = getattr(held[0], name)
                assert (
                    tuple(v.strip() for v in stored if v.strip()) == wanted
                    if isinstance(wanted, tuple)
                    else (stored == wanted)
                ), (case, name, value)
        assert taken > 100 and refused > 500
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
