"""Messages to NumPy and back, value by value: by the plain twins, and by cv_bridge and sensor_msgs_py where
they are installed.
"""

import array
import time
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, PointCloud2
from support.ros_messages import table

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.levels import Levels
from gsemsplat_ros.ros import clouds, conversions, image_bridge, messages, object_messages
from gsemsplat_ros.ros.client.bench_messages import plain_cloud
from gsemsplat_ros.ros.conversions import ENCODINGS, image_message, image_to_rgb, make_header, stamp_ns
from gsemsplat_ros.scene.approach import Approach
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.objects import Object

HEADER = make_header('left_optical', 12_345_678_901)
RGB = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
OF_ROS = 'comes with a ROS distribution'


@pytest.fixture(params=['plain', 'cv_bridge'])
def images_by(request, monkeypatch):
    """Both ways of reading images."""
    if request.param == 'plain':
        monkeypatch.setattr(conversions, 'BRIDGE', None)
    elif conversions.BRIDGE is None:
        pytest.skip('cv_bridge ' + OF_ROS)


@pytest.fixture(params=['plain', 'sensor_msgs_py'])
def clouds_by(request, monkeypatch):
    """Both ways of making and reading clouds."""
    if request.param == 'plain':
        monkeypatch.setattr(clouds, 'point_cloud2', None)
    elif clouds.point_cloud2 is None:
        pytest.skip('sensor_msgs_py ' + OF_ROS)


def raw(encoding, pixels, step=None, width=6, height=4, big=0):
    pixels = np.ascontiguousarray(pixels)
    data = array.array('B', pixels.tobytes())
    return Image(
        header=HEADER,
        width=width,
        height=height,
        encoding=encoding,
        is_bigendian=big,
        step=step if step is not None else pixels.nbytes // height,
        data=data,
    )


def gray16(order):
    return (np.arange(24).reshape(4, 6) * 2731).astype(order + 'u2')


GRAY_OF_16 = np.repeat(
    np.rint(gray16('<') / 257).astype(np.uint8)[..., None], 3, 2
)  # as cv_bridge: 255 / 65535
YUYV = np.tile(np.array([[100, 128, 100, 128]], np.uint8), (4, 3)).reshape(4, 6, 2)  # gray: Y U Y V

CASES = {
    'rgb8': (raw('rgb8', RGB), RGB),
    'bgr8': (raw('bgr8', RGB[..., ::-1]), RGB),
    '8UC3 is BGR as in OpenCV': (raw('8UC3', RGB[..., ::-1]), RGB),
    'rgba8': (raw('rgba8', np.dstack([RGB, np.zeros((4, 6), np.uint8)])), RGB),
    'bgra8': (raw('bgra8', np.dstack([RGB[..., ::-1], np.zeros((4, 6), np.uint8)])), RGB),
    'mono8': (raw('mono8', RGB[..., 0]), RGB[..., [0, 0, 0]]),
    '8UC1': (raw('8UC1', RGB[..., 0]), RGB[..., [0, 0, 0]]),
    'mono16': (raw('mono16', gray16('<')), GRAY_OF_16),
    'mono16 big endian': (raw('mono16', gray16('>'), big=1), GRAY_OF_16),
    'mono16, padded rows': (raw('mono16', np.pad(gray16('<').view(np.uint8), ((0, 0), (0, 3)))), GRAY_OF_16),
    'rgb16': (raw('rgb16', RGB.astype('<u2') * 257), RGB),
    'bgr16 big endian': (raw('bgr16', (RGB[..., ::-1].astype('u2') * 257).astype('>u2'), big=1), RGB),
    'yuv422_yuy2': (raw('yuv422_yuy2', YUYV), np.full((4, 6, 3), 98, np.uint8)),  # 1.164 (100 - 16)
    'yuv422 is UYVY': (raw('yuv422', YUYV[..., ::-1]), np.full((4, 6, 3), 98, np.uint8)),
    'padded rows': (raw('bgr8', np.pad(RGB[..., ::-1].reshape(4, 18), ((0, 0), (0, 5)))), RGB),
}


@pytest.mark.parametrize('case', CASES)
def test_image_to_rgb(case, images_by):
    message, expected = CASES[case]
    rgb = image_to_rgb(message)
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize(
    'pattern, offsets', [('rggb', (0, 0)), ('bggr', (1, 1)), ('grbg', (0, 1)), ('gbrg', (1, 0))]
)
def test_bayer_keeps_the_colours(pattern, offsets, images_by):
    colour = np.array([200, 120, 40], np.uint8)  # one colour everywhere: only the order can go wrong
    tile = np.array([[0, 1], [1, 2]])  # channel at (row, column) of RGGB
    rows, columns = np.indices((8, 10))
    mosaic = colour[tile[(rows + offsets[0]) % 2, (columns + offsets[1]) % 2]]
    rgb = image_to_rgb(raw(f'bayer_{pattern}8', mosaic, width=10, height=8))
    np.testing.assert_array_equal(rgb[2:-2, 2:-2], np.broadcast_to(colour, (4, 6, 3)))


def mosaic_of(rgb, pattern):
    """(H, W) of an (H, W, 3) picture behind a Bayer filter."""
    rows, columns = np.indices(rgb.shape[:2])
    channel = np.array(['rgb'.index(letter) for letter in pattern]).reshape(2, 2)[rows % 2, columns % 2]
    return np.take_along_axis(rgb, channel[..., None], 2)[..., 0]


RAMP = np.tile(np.arange(256, dtype=np.uint8).repeat(2), (32, 1))
RAMPS = np.dstack([RAMP, RAMP[:, ::-1], RAMP // 2])  # red, green, blue
OF_16_BITS = {
    'mono16': np.dstack([RAMP] * 3),
    **dict.fromkeys(('rgb16', 'bgr16', 'rgba16', 'bgra16'), RAMPS),
    **dict.fromkeys((f'bayer_{pattern}16' for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')), RAMPS),
}


def deep_image(encoding, rgb, bits, big=0):
    """An image message whose 16-bit values fill `bits`."""
    values = np.rint(rgb * ((2**bits - 1) / 255)).astype('>u2' if big else '<u2')
    if encoding == 'mono16':
        values = values[..., 0]
    elif encoding.startswith('bayer'):
        values = mosaic_of(values, encoding[6:10])
    else:
        values = values[..., ::-1] if encoding.startswith('bgr') else values
        if 'a16' in encoding:
            values = np.dstack([values, np.full_like(values[..., 0], 65535)]).astype(values.dtype)
    return raw(encoding, values, width=rgb.shape[1], height=rgb.shape[0], big=big)


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
@pytest.mark.parametrize('big', [0, 1])
@pytest.mark.parametrize('encoding', OF_16_BITS)
def test_a_ramp_of_10_to_16_bits_stays_a_ramp(encoding, big, bits):
    wanted = OF_16_BITS[encoding]
    error = np.abs(image_to_rgb(deep_image(encoding, wanted, bits, big)).astype(int) - wanted)[2:-2, 2:-2]
    assert error.max() <= 2 and error.mean() < 0.5


def test_the_levels_of_a_camera_only_grow():
    levels = Levels()

    def shown(brightest, bits):
        return image_to_rgb(
            deep_image('mono16', OF_16_BITS['mono16'] // (255 // brightest), bits), levels
        ).max()

    assert shown(255, 10) == 255 and levels.white == 1023
    assert shown(51, 10) == 51 and shown(255, 10) == 255  # a dark image in between changes nothing
    assert shown(255, 12) == 255 and levels.white == 4095
    assert shown(255, 10) == 64 and levels.white == 4095  # less light on 12 bits


def test_black_and_hot_pixels_say_nothing_of_the_levels():
    levels, values = Levels(), np.zeros((480, 640), np.uint16)
    for value in (0, 4000):
        values[::100, ::200] = value  # 20 of 307,200 pixels
        assert image_to_rgb(raw('mono16', values, width=640, height=480), levels)[1, 1].tolist() == [0, 0, 0]
        assert levels.white == 255


@pytest.mark.parametrize(
    'message, words',
    [
        (raw('32FC1', np.full((4, 6), np.nan, np.float32)), ['32FC1', 'NaN', 'rgb8', 'depth']),
        (raw('16UC1', gray16('<')), ['16UC1', 'depth']),
        (raw('16UC3', np.zeros((4, 18), np.uint16)), ["'16UC3'", 'wanted one of']),
        (raw('8SC1', np.zeros((4, 6), np.uint8)), ["'8SC1'", 'wanted one of']),
        (raw('nv21', np.zeros((6, 6), np.uint8)), ["'nv21'", 'wanted one of']),
        (raw('mono16', gray16('<'), step=11), ['step 11', 'at least 12']),
        (raw('jpeg', RGB), ["'jpeg'", 'rgb8', 'bayer_rggb8']),
        (raw('', RGB), ["''", 'wanted one of']),
        (raw('rgb8', RGB[:3]), ['6x4', '54 bytes']),
        (raw('rgb8', RGB, step=17), ['step 17', 'at least 18']),
        (raw('rgb8', RGB, width=7), ['7x4']),
        (raw('rgb8', RGB, width=0), ['0x4']),
        (raw('rgb8', RGB, height=2**31), ['72 bytes']),
        (raw('yuv422', np.zeros((4, 10), np.uint8), width=5), ['even width']),
    ],
)
def test_what_is_no_picture_is_refused_with_words(message, words, images_by):
    with pytest.raises(ValueError) as error:
        image_to_rgb(message)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_images_read_as_in_cv_bridge(encoding, monkeypatch):
    """The table of docs/cameras.md."""
    if conversions.BRIDGE is None:
        pytest.skip('cv_bridge ' + OF_ROS)
    size, channels, _ = ENCODINGS[encoding]
    pixels = np.random.default_rng(2).integers(0, 256, (8, 12, channels * size), dtype=np.uint8)
    message = raw(encoding, pixels, width=12, height=8)
    bridged = image_to_rgb(message)
    monkeypatch.setattr(conversions, 'BRIDGE', None)
    plain = image_to_rgb(message)
    if encoding in image_bridge.BRIDGED:
        np.testing.assert_array_equal(bridged, plain)
    elif size == 2:
        # a mosaic of 16 bits is scaled before it is interpolated, there after
        theirs = image_bridge.cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8')
        assert np.abs(plain.astype(int) - theirs).max() <= (2 if encoding.startswith('bayer') else 1)


def test_cv_bridge_is_asked_for_what_it_reads_alike(monkeypatch):
    asked = []

    class CvBridge:
        def imgmsg_to_cv2(self, message, wanted):
            asked.append((message.encoding, wanted))
            pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)
            return pixels if wanted == 'passthrough' else pixels[..., ::-1]

    monkeypatch.setattr(image_bridge, 'cv_bridge', SimpleNamespace(CvBridge=CvBridge))
    monkeypatch.setattr(conversions, 'BRIDGE', image_bridge.make_bridge())
    asked.clear()
    for encoding in ('rgb8', 'bgr8'):
        message = raw(encoding, RGB)
        assert (image_to_rgb(message) == (RGB if encoding == 'rgb8' else RGB[..., ::-1])).all()
    for message in (
        raw('8UC3', RGB),
        raw('uyvy', YUYV),
        raw('mono16', gray16('<')),
        raw('bgr8', RGB, big=1),
        raw('bgr8', np.pad(RGB.reshape(4, 18), ((0, 0), (0, 5)))),
    ):
        assert image_to_rgb(message).shape == (4, 6, 3)
    assert asked == [('rgb8', 'passthrough'), ('bgr8', 'rgb8')]
    with pytest.raises(ValueError, match='even width'):
        image_to_rgb(raw('yuv422', np.zeros((4, 10), np.uint8), width=5))


@pytest.mark.parametrize('fault', [ImportError('numpy.core.multiarray failed to import'), KeyError(16), None])
def test_a_cv_bridge_that_does_not_work_here_is_left_alone(monkeypatch, fault):
    """It is compiled against another NumPy or OpenCV."""

    def imgmsg_to_cv2(self, message, wanted):
        if fault:
            raise fault
        return np.zeros((1, 2, 3), np.uint8)

    broken = type('CvBridge', (), {'imgmsg_to_cv2': imgmsg_to_cv2})
    monkeypatch.setattr(image_bridge, 'cv_bridge', SimpleNamespace(CvBridge=broken))
    assert image_bridge.make_bridge() is None


def test_images_written():
    message = image_message(RGB, HEADER)
    assert (message.encoding, message.width, message.height, message.step) == ('rgb8', 6, 4, 18)
    assert message.header == HEADER and stamp_ns(message.header) == 12_345_678_901
    np.testing.assert_array_equal(image_to_rgb(message), RGB)
    values = np.array([[0.5, np.nan], [1.0, 0.0]], np.float32)
    message = deserialize_message(serialize_message(image_message(values, HEADER)), Image)
    assert (message.encoding, message.step) == ('32FC1', 8)
    np.testing.assert_array_equal(np.frombuffer(message.data, '<f4').reshape(2, 2), values)


# Scenes and answers


def gaussians(count, code_dim=32, seed=3):
    g = torch.Generator().manual_seed(seed)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1)
    return Gaussians(
        means=torch.randn(count, 3, generator=g),
        quats=quats,
        frame='left_optical',
        scales=torch.rand(count, 3, generator=g) * 0.01,
        opacities=torch.rand(count, generator=g),
        colors=torch.rand(count, 3, generator=g) * 1.2 - 0.1,
        codes=torch.randn(count, code_dim, generator=g),
    )


@pytest.mark.parametrize('codes', [False, True])
def test_cloud_fields_and_values(codes, clouds_by):
    scene = gaussians(50)
    cloud = deserialize_message(
        serialize_message(clouds.gaussian_cloud(scene, HEADER, codes=codes)), PointCloud2
    )
    names = list(clouds.FIELDS) + [f'code_{i}' for i in range(32)] * codes
    assert [f.name for f in cloud.fields] == names
    assert all(f.datatype == 7 and f.count == 1 for f in cloud.fields)  # FLOAT32
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (
        1,
        50,
        4 * len(names),
        200 * len(names),
    )
    assert cloud.header == HEADER and cloud.is_dense and not cloud.is_bigendian
    points = table(cloud)
    columns = {
        'x': scene.means[:, 0],
        'y': scene.means[:, 1],
        'z': scene.means[:, 2],
        'opacity': scene.opacities,
        **{f'scale_{i}': scene.scales[:, i] for i in range(3)},
        **{f'rot_{i}': scene.quats[:, i] for i in range(4)},  # w x y z
        **({f'code_{i}': scene.codes[:, i] for i in range(32)} if codes else {}),
    }
    for name, values in columns.items():
        np.testing.assert_array_equal(points[name], values.numpy(), err_msg=name)
    packed = np.ascontiguousarray(points['rgb']).view('<u4')
    for shift, channel in ((16, 0), (8, 1), (0, 2)):
        color = np.rint(scene.colors[:, channel].clamp(0, 1).numpy() * 255)
        np.testing.assert_array_equal((packed >> shift) & 255, color)
    assert not (packed >> 24).any()


def test_cloud_is_thinned_evenly(clouds_by):
    scene = gaussians(1000)
    points = table(clouds.gaussian_cloud(scene, HEADER, max_points=100))
    chosen = np.linspace(0, 999, 100).astype(int)
    np.testing.assert_array_equal(points['x'], scene.means[chosen, 0].numpy())
    assert len(table(clouds.gaussian_cloud(scene, HEADER, max_points=1000))) == 1000
    assert len(table(clouds.gaussian_cloud(scene.select(slice(0)), HEADER))) == 0


def test_clouds_are_read(clouds_by):
    for scene in (gaussians(20), gaussians(0)):
        for codes in (False, True):
            cloud = clouds.gaussian_cloud(scene, HEADER, codes=codes)
            points = clouds.cloud_points(cloud)
            assert set(clouds.FIELDS) <= set(points.dtype.names) and len(points) == len(scene)
            np.testing.assert_array_equal(points['z'], scene.means[:, 2].numpy())
            read = clouds.cloud_to_gaussians(cloud)
            np.testing.assert_array_equal(read.quats.numpy(), scene.quats.numpy())
            assert read.frame == 'left_optical'
    cloud.fields[3].count = 2
    with pytest.raises(ValueError, match='no field rgb of float32'):
        clouds.cloud_points(cloud)


def test_clouds_read_alike_in_sensor_msgs_py():
    point_cloud2 = pytest.importorskip('sensor_msgs_py.point_cloud2', reason=OF_ROS)
    scene = gaussians(20)
    points = point_cloud2.read_points(clouds.gaussian_cloud(scene, HEADER, codes=True))
    np.testing.assert_array_equal(points['z'], scene.means[:, 2].numpy())
    np.testing.assert_array_equal(points['code_31'], scene.codes[:, 31].numpy())


@pytest.mark.parametrize('codes', [False, True])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_of_gaussians_that_are_not_finite_none_is_in_a_cloud(codes, bad, clouds_by):
    scene, names, said = gaussians(40), ('means', 'quats', 'scales', 'opacities', 'colors', 'codes'), []
    for row, name in enumerate(names):
        getattr(scene, name).view(40, -1)[3 * row, -1] = bad
    bad_rows = range(0, 3 * (len(names) if codes else len(names) - 1), 3)
    rows = [n for n in range(40) if n not in bad_rows]
    cloud = clouds.gaussian_cloud(scene, HEADER, codes=codes, say=said.append)
    points = table(cloud)
    assert cloud.is_dense and cloud.width == len(points) == len(rows)
    assert cloud.row_step == len(cloud.data) == cloud.point_step * len(rows)
    np.testing.assert_array_equal(points['z'], scene.means[rows, 2].numpy())
    assert np.isfinite(np.frombuffer(cloud.data, np.float32)).all()
    (words,) = said
    assert words.startswith(f'{len(bad_rows)} of 40 Gaussians are NaN or infinite') and '\n' not in words
    scene.means[:] = bad
    assert not clouds.gaussian_cloud(scene, HEADER, codes=codes).width


def test_a_cloud_is_that_of_the_usual_way(clouds_by):
    scene, said = gaussians(5000), []
    scene.means[7:9] = torch.tensor([3e38, -3e38, 1e-40])  # finite, however large or small
    cloud = clouds.gaussian_cloud(scene, HEADER, say=said.append)
    assert cloud.data == plain_cloud(scene, HEADER).data and not said


def test_a_cloud_is_filled_nearly_as_fast_as_its_bytes_are_copied(monkeypatch):
    """400,000 Gaussians are two views of 512 x 384. By the twin: sensor_msgs_py copies once more."""
    monkeypatch.setattr(clouds, 'point_cloud2', None)
    scene = gaussians(400_000, code_dim=1)
    data = np.frombuffer(clouds.gaussian_cloud(scene, HEADER).data, np.uint8)

    def seconds(work):
        start = time.thread_time()
        work()
        return time.thread_time() - start

    fill = min(seconds(lambda: clouds.gaussian_cloud(scene, HEADER)) for _ in range(5))
    copy = min(seconds(lambda: data + 1) for _ in range(5))
    assert fill < 5 * copy


def test_quaternion_of_every_rotation():
    rng = np.random.default_rng(4)
    turns = [
        *rng.normal(size=(20, 3)),
        np.zeros(3),
        np.array([np.pi, 0, 0]),
        np.array([0, np.pi, 0]),
        np.array([0, 0, np.pi]),
        np.array([np.pi - 1e-7, 0, 0]),
    ]
    for turn in turns:
        rotation = cv2.Rodrigues(turn)[0]
        q = messages.quaternion(rotation)
        angle = np.linalg.norm(turn)
        assert abs(q.x**2 + q.y**2 + q.z**2 + q.w**2 - 1) < 1e-12 and q.w >= 0
        axis = turn / angle if angle else turn
        expected = np.append(axis * np.sin(angle / 2), np.cos(angle / 2))
        assert abs(expected @ [q.x, q.y, q.z, q.w]) == pytest.approx(1, abs=1e-9)
    assert messages.quaternion(cv2.Rodrigues(np.array([0.3, 0, 0]))[0]).x == pytest.approx(np.sin(0.15))


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_of_numbers_that_are_not_finite_none_is_in_a_message(bad):
    """NaN stands where nothing is, and nowhere else."""
    pose = np.eye(4)
    pose[0, 3] = bad
    turn = np.eye(4)
    turn[0, 0] = bad
    answer = Answer(
        'chair', 0.5, True, 0.75, (1.0, 2.0, 3.0), (4.0, 5.0), (Object((1, 1, 1), (1, 1, 1), 0.75),)
    )
    header, wrong = make_header('camera', 0), []
    for make in (
        lambda: messages.pose_message(pose, header),
        lambda: messages.pose_message(turn, header),
        lambda: messages.transform_message(pose, 'map', header),
        lambda: messages.relevancy_message(replace(answer, score=bad), header),
        lambda: messages.relevancy_message(replace(answer, peak_point=(0.0, bad, 0.0)), header),
        lambda: messages.relevancy_message(replace(answer, peak_pixel=(0.0, bad)), header),
        lambda: messages.approach_message(Approach((0.0, 0.0, bad), (1.0, 0.0, 0.0, 0.0))),
        lambda: messages.approach_message(Approach((0.0, 0.0, 0.0), (bad, 0.0, 0.0, 0.0))),
        *(
            lambda thing=thing: object_messages.object_markers([replace(answer, objects=(thing,))], header)
            for thing in (Object((bad, 1, 1), (1, 1, 1), 0.75), Object((1, 1, 1), (1, bad, 1), 0.75))
        ),
        lambda: object_messages.object_messages(
            replace(answer, objects=(Object((1, 1, 1), (1, 1, 1), bad),))
        ),
    ):
        with pytest.raises(ValueError, match='wanted finite numbers') as error:
            wrong.append(make())
        assert '\n' not in str(error.value) and not wrong
    nothing = messages.relevancy_message(replace(answer, peak_point=None, peak_pixel=None), header)
    assert np.isnan([nothing.peak.x, nothing.peak.y, nothing.peak.z, nothing.peak_u, nothing.peak_v]).all()
