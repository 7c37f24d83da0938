"""What comes in before the network sees it: compressed images, raw images rectified, keyframes of one
camera.
"""

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from sensor_msgs.msg import CompressedImage, RegionOfInterest
from support.pictures import clouds
from support.ros_messages import info

from gsemsplat_ros.images.keyframes import KeyframeSelector
from gsemsplat_ros.images.motion import small_gray
from gsemsplat_ros.images.view import View
from gsemsplat_ros.ros import inputs, sources
from gsemsplat_ros.ros.calibration import Rectifier
from gsemsplat_ros.ros.conversions import compressed_to_rgb, image_message, make_header
from gsemsplat_ros.ros.parameters import Parameters, declare

S = 10**9
PICTURE = clouds(320, 240)


def encoded(pixels, ending, *flags):
    return cv2.imencode(ending, pixels, list(flags))[1].tobytes()


def compressed(data, kind='bgr8; jpeg compressed bgr8', stamp_ns=0, frame='head'):
    message = CompressedImage(header=make_header(frame, stamp_ns), format=kind)
    message.data = data
    return message


# Compressed transport

BGR, RGBA = PICTURE[..., ::-1], np.dstack([PICTURE[..., ::-1], np.full((240, 320), 200, np.uint8)])


@pytest.mark.parametrize(
    'data, kind, tolerance',
    [
        (encoded(BGR, '.png'), 'rgb8; png compressed bgr8', 0),
        (encoded(BGR, '.png'), 'png', 0),  # a driver's own word
        (encoded(PICTURE, '.png'), 'rgb8; png compressed rgb8', 0),  # stored without exchanging red and blue
        (encoded(RGBA, '.png'), 'bgra8; png compressed bgra8', 0),
        (encoded(BGR, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 95), 'rgb8; jpeg compressed bgr8', 12),
        (encoded(BGR, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 95), 'jpeg', 12),
        (encoded(BGR, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 95) + bytes(500), '', 12),  # padded by a USB camera
    ],
)
def test_compressed_images_are_read(data, kind, tolerance):
    rgb = compressed_to_rgb(compressed(data, kind))
    assert rgb.shape == (240, 320, 3) and rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - PICTURE).max() <= tolerance


GRAY = PICTURE[..., 0]
MOSAIC = GRAY.copy()  # RGGB of one colour
MOSAIC[::2, ::2], MOSAIC[1::2, 1::2] = 200, 40
MOSAIC[::2, 1::2] = MOSAIC[1::2, ::2] = 120
DEEP = MOSAIC.astype(np.uint16)


@pytest.mark.parametrize(
    'data, kind',
    [
        (encoded(GRAY, '.png'), 'mono8; png compressed '),
        (encoded(GRAY, '.png'), 'png'),
        (encoded(GRAY.astype(np.uint16) * 257, '.png'), 'mono16; png compressed '),
        (encoded(GRAY.astype(np.uint16) << 4, '.png'), 'mono16; png compressed '),  # 12 bits
        (encoded(GRAY, '.png'), 'bayer_rggb8; png compressed mono8'),  # converted: no mosaic any more
        (encoded(GRAY, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 100), 'bayer_rggb8; jpeg compressed mono8'),
        (encoded(GRAY, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 100), 'mono16; jpeg compressed mono8'),
    ],
)
def test_compressed_gray_becomes_rgb(data, kind):
    rgb = compressed_to_rgb(compressed(data, kind)).astype(int)
    assert np.abs(rgb - GRAY[..., None]).max() <= (3 if 'jpeg' in kind else 1)


@pytest.mark.parametrize(
    'data, kind',
    [
        (
            encoded(MOSAIC, '.png'),
            'bayer_rggb8; png compressed ',
        ),  # image_transport stores the mosaic as it is
        (encoded(DEEP * 257, '.png'), 'bayer_rggb16; png compressed '),
        (encoded(DEEP << 4, '.png'), 'bayer_rggb16; png compressed '),
        (encoded(MOSAIC, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 100), 'bayer_rggb8; jpeg compressed '),
        (
            encoded(np.full((240, 320, 3), (40, 120, 200), np.uint8), '.png'),
            'bayer_rggb8; png compressed bgr8',
        ),
        (
            encoded(np.full((240, 320, 3), (40, 120, 200), np.uint8), '.jpg'),
            'bayer_rggb8; jpeg compressed bgr8',
        ),
    ],
)
def test_compressed_mosaics_have_their_colours(data, kind):
    inside = compressed_to_rgb(compressed(data, kind))[2:-2, 2:-2].astype(int)
    assert np.abs(inside - (200, 120, 40)).max() <= (4 if 'jpeg' in kind else 1)


def test_compressed_colours_of_12_bits():
    data = encoded(BGR.astype(np.uint16) << 4, '.png')
    rgb = compressed_to_rgb(compressed(data, 'rgb16; png compressed bgr16')).astype(int)
    assert np.abs(rgb - PICTURE).max() <= 1


def test_a_compressed_image_stays_as_it_lies_on_the_sensor():
    """EXIF may ask to turn it: camera_info describes the pixels as they are stored."""
    import io

    from PIL import Image

    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(out, 'JPEG', exif=exif, quality=95)
    assert compressed_to_rgb(compressed(out.getvalue())).shape == (240, 320, 3)


JPEG, PNG = encoded(BGR, '.jpg'), encoded(BGR, '.png')
BOMB = PNG[:16] + (60000).to_bytes(4, 'big') * 2 + PNG[24:]


@pytest.mark.parametrize(
    'data, kind, words',
    [
        (b'', 'jpeg', 'no JPEG or PNG'),
        (b'hello', 'jpeg', 'no JPEG or PNG'),
        (encoded(BGR, '.bmp'), 'bmp', 'no JPEG or PNG'),
        (JPEG[:200], 'jpeg', 'damaged'),
        (JPEG[:-2], 'jpeg', 'cut off'),
        (JPEG[: len(JPEG) // 2], 'jpeg', 'cut off'),
        (PNG[: len(PNG) // 2], 'png', 'cut off or damaged'),
        (PNG[:60] + b'####' + PNG[64:], 'png', 'cut off or damaged'),
        (BOMB, 'png', 'damaged'),
        (PNG, '16UC1; compressedDepth png', 'holds depth'),
        (PNG, '32FC1; compressedDepth rvl', 'holds depth'),
        (encoded(DEEP, '.png'), '16UC1; png compressed ', 'holds depth'),
        (JPEG, '16UC1; jpeg compressed mono8', 'holds depth'),
        (encoded(GRAY, '.tiff'), 'mono8; tiff compressed ', 'no JPEG or PNG.*format set to jpeg or png'),
        (encoded(GRAY // 16, '.jpg'), 'mono16; jpeg compressed mono8', 'nearly black.*format of .* to png'),
        (JPEG, 'j' * 10**6, ''),
    ],
)
def test_damaged_compressed_images_are_refused_in_one_line(data, kind, words):
    if not words:
        assert compressed_to_rgb(compressed(data, kind)).shape == (240, 320, 3)
        return
    with pytest.raises(ValueError, match=words) as error:
        compressed_to_rgb(compressed(data, kind))
    assert '\n' not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_a_header_that_claims_gigabytes_is_not_believed():
    import struct
    import zlib

    ihdr = b'IHDR' + struct.pack('>IIBBBBB', 12000, 12000, 8, 2, 0, 0, 0)
    data = PNG[:8] + struct.pack('>I', 13) + ihdr + struct.pack('>I', zlib.crc32(ihdr)) + PNG[33:]
    with pytest.raises(ValueError, match='claims 12000x12000 px'):
        compressed_to_rgb(compressed(data, 'png'))


def test_compressed_images_meet_their_camera_info():
    P = (350.0, 0, 160.0, 0, 0, 350.0, 120.0, 0, 0, 0, 1, 0)
    infos = (
        info(P=P, K=(350, 0, 160, 0, 350, 120, 0, 0, 1), width=320, height=240),
        info(P=P[:3] + (-35.0,) + P[4:], K=(350, 0, 160, 0, 350, 120, 0, 0, 1), width=320, height=240),
    )
    images = tuple(
        compressed(PNG, 'bgr8; png compressed bgr8', 12_345_678_901, 'left_optical') for _ in range(2)
    )
    source = sources.make_source(
        Parameters(image_transport='compressed'), [('/l', '/li'), ('/r', '/ri')], print
    )
    pair = source.pair(inputs.Input(images, infos))
    np.testing.assert_array_equal(pair.first.image, PICTURE)
    assert pair.baseline_m == pytest.approx(0.1) and pair.first.camera.fx == 350
    assert (pair.first.frame, pair.first.stamp_ns) == ('left_optical', 12_345_678_901)
    with pytest.raises(ValueError, match='^/l: compressed image of 100 bytes'):
        source.pair(inputs.Input((compressed(PNG[:100]), images[1]), infos))


@pytest.mark.parametrize('mode', ['stereo', 'sequential'])
@pytest.mark.parametrize('width, height', [(15, 480), (640, 31), (1, 1), (34, 1100)])
def test_small_images_and_long_strips_are_refused_by_topic(mode, width, height):
    image = image_message(np.zeros((height, width, 3), np.uint8), make_header('head', 0))
    source = sources.make_source(Parameters(mode=mode), [('/l', '/li'), ('/r', '/ri')], print)
    with pytest.raises(ValueError, match=f'^/l: image of {width}x{height} px: wanted at least 32 px a side'):
        source.pair(inputs.Input((image, image), (None, None)))


def deep_message(picture, white, stamp_ns=0):
    """mono16 whose brightest pixels are `white`."""
    values = np.rint(picture * (white / 255)).astype('<u2')
    message = image_message(np.zeros((*picture.shape, 3), np.uint8), make_header('head', stamp_ns))
    message.encoding, message.step = 'mono16', values.strides[0]
    message.data = values.tobytes()
    return message


def test_the_images_of_a_stereo_pair_are_scaled_alike():
    """Each of them may be the first that fills 12 bits."""
    picture = cv2.normalize(GRAY, None, 0, 255, cv2.NORM_MINMAX)
    infos = tuple(
        info(P=(350.0, 0, 160.0, tx, 0, 350.0, 120.0, 0, 0, 0, 1, 0), width=320, height=240)
        for tx in (0.0, -35.0)
    )
    for left, right in ((1023, 4095), (4095, 1023)):
        source = sources.make_source(Parameters(), [('/l', '/li'), ('/r', '/ri')], print)
        images = deep_message(picture, left), deep_message(picture, right)
        pair = source.pair(inputs.Input(images, infos))
        for view, white in ((pair.first, left), (pair.second, right)):
            assert np.abs(view.image[..., 0] - picture * (white / 4095)).max() <= 1


def test_a_keyframe_of_other_levels_is_forgotten():
    source = sources.make_source(Parameters(mode='sequential'), [('/l', '/li')], print)

    def offer(shift, white):
        moved = np.roll(GRAY, shift, 1)
        image = deep_message(cv2.normalize(moved, None, 0, 255, cv2.NORM_MINMAX), white, shift * 10**7)
        return source.pair(inputs.Input((image,), (None,)))

    assert offer(0, 1000) is None and offer(20, 1000) is not None
    assert offer(40, 4000) is None and source.selection.reason == 'first image: waiting for motion'
    pair = offer(60, 4000)
    assert abs(int(pair.first.image.max()) - pair.second.image.max()) <= 1


@pytest.fixture
def node_with(domain):
    """Function: a node with these ROS arguments."""
    context, nodes = Context(), []
    rclpy.init(context=context, domain_id=domain)

    def make(*arguments):
        nodes.append(rclpy.create_node('gsemsplat', context=context, cli_args=['--ros-args', *arguments]))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    'transport, remaps, topics',
    [
        ('raw', [], ['/left/image_raw', '/right/image_raw']),
        ('compressed', [], ['/left/image_raw/compressed', '/right/image_raw/compressed']),
        ('raw', ['left/image_raw:=/zed/left', 'right/image_raw:=/zed/right'], ['/zed/left', '/zed/right']),
        (
            'compressed',
            ['left/image_raw:=/zed/left', 'right/image_raw:=/zed/right'],
            ['/zed/left/compressed', '/zed/right/compressed'],
        ),
        (
            'raw',
            [
                'left/image_raw:=right/image_raw',
                'right/image_raw:=left/image_raw',
            ],  # exchanged: remapped once
            ['/right/image_raw', '/left/image_raw'],
        ),
    ],
)
def test_remapped_image_topics_keep_their_transport(node_with, transport, remaps, topics):
    node = node_with(
        '-p', f'image_transport:={transport}', *(word for remap in remaps for word in ('-r', remap))
    )
    subscriptions = inputs.Subscriptions(node, declare(node), lambda raw: None)
    assert [s.topic_name for s in subscriptions._subscriptions[::2]] == topics
    assert [heard.topic for heard in subscriptions.heard[::2]] == topics
    subscriptions.close()


# Raw images


def plain_rectified(raw, description):
    """Each pixel of the rectified image by hand: its ray, turned back into the raw camera, distorted, looked
    up.
    """
    K, R, P, D = (np.asarray(v, float) for v in (description.k, description.r, description.p, description.d))
    K, R, P = K.reshape(3, 3), R.reshape(3, 3), P.reshape(3, 4)[:, :3]
    height, width = raw.shape[:2]
    v, u = np.mgrid[:height, :width].astype(float)
    rays = (
        np.stack(((u - P[0, 2]) / P[0, 0], (v - P[1, 2]) / P[1, 1], np.ones_like(u)), -1) @ R
    )  # R^T applied to rows
    x, y = rays[..., 0] / rays[..., 2], rays[..., 1] / rays[..., 2]
    r2 = x * x + y * y
    if description.distortion_model == 'equidistant':
        r = np.sqrt(r2)
        theta = np.arctan(r)
        bent = theta * (1 + D[0] * theta**2 + D[1] * theta**4 + D[2] * theta**6 + D[3] * theta**8)
        factor = np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1)
        x, y = x * factor, y * factor
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(D, (0, 8 - len(D)))
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    u, v = K[0, 0] * x + K[0, 2], K[1, 1] * y + K[1, 2]
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    u0, v0 = (np.clip(np.floor(c).astype(int), 0, n - 2) for c, n in ((u, width), (v, height)))
    a, b = (u - u0)[..., None], (v - v0)[..., None]
    mixed = (
        (1 - a) * (1 - b) * raw[v0, u0]
        + a * (1 - b) * raw[v0, u0 + 1]
        + (1 - a) * b * raw[v0 + 1, u0]
        + a * b * raw[v0 + 1, u0 + 1]
    )
    return mixed, inside


@pytest.mark.parametrize(
    'model, D',
    [
        ('plumb_bob', (-0.3, 0.1, 0.001, -0.002, 0.02)),
        ('plumb_bob', (0.0, 0.0, 0.0, 0.0, 0.0)),
        ('rational_polynomial', (-0.2, 0.1, 0.001, -0.002, 0.01, 0.05, 0.01, 0.002)),
        ('equidistant', (-0.05, 0.01, 0.003, -0.001)),
    ],
)
@pytest.mark.parametrize('turn', [(0, 0, 0), (0.02, -0.05, 0.03)])
def test_rectified_pixels_are_those_that_the_camera_model_says(model, D, turn):
    description = info(
        K=(260.0, 0, 158.0, 0, 255.0, 121.0, 0, 0, 1),
        D=D,
        model=model,
        width=320,
        height=240,
        P=(230.0, 0, 163.0, 0, 0, 230.0, 118.0, 0, 0, 0, 1, 0),
    )
    description.r = cv2.Rodrigues(np.array(turn, float))[0].ravel().tolist()
    rectified = Rectifier()(PICTURE, description).astype(float)
    expected, inside = plain_rectified(PICTURE, description)
    assert inside.mean() > 0.6
    difference = np.abs(rectified - expected)[inside]
    assert difference.max() < 4 and difference.mean() < 0.5  # OpenCV looks up in steps of 1/32 pixel
    beyond = ~cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert not rectified[beyond].any()


def test_maps_are_made_once_and_anew_when_the_calibration_changes(monkeypatch):
    made = []
    original = Rectifier._make
    monkeypatch.setattr(Rectifier, '_make', staticmethod(lambda *a: made.append(a) or original(*a)))
    rectify = Rectifier()
    for D in (-0.1,) * 5, (-0.1,) * 5, (-0.2,) * 5, (-0.2,) * 5:
        rectify(PICTURE, info(K=(260.0, 0, 158.0, 0, 255.0, 121.0, 0, 0, 1), D=D, width=320, height=240))
    assert len(made) == 2


def raw_info(**more):
    return info(
        **{
            **dict(
                K=(260.0, 0, 158.0, 0, 255.0, 121.0, 0, 0, 1),
                D=(-0.1, 0.01, 0.0, 0.0, 0.0),
                width=320,
                height=240,
            ),
            **more,
        }
    )


def with_r(*r):
    description = raw_info()
    description.r = list(map(float, r))
    return description


@pytest.mark.parametrize(
    'description, words',
    [
        (raw_info(D=(-0.1, 0.01, 0.0)), "'plumb_bob' with 3 coefficients"),
        (raw_info(D=(-0.1,) * 5, model='equidistant'), "'equidistant' with 5 coefficients"),
        (raw_info(D=(float('nan'),) * 5), 'not finite'),
        (raw_info(D=(float('inf'),) * 5), 'not finite'),
        (with_r(1, 1, 1, 1, 1, 1, 1, 1, 1), 'no rotation'),
        (with_r(1, 0, 0, 0, 1, 0, 0, 0, -1), 'no rotation'),
        (with_r(*[float('nan')] * 9), 'no rotation'),
        (raw_info(P=(260.0, 0, 5000.0, 0, 0, 255.0, 121.0, 0, 0, 0, 1, 0)), 'the principal point lies'),
        (raw_info(P=(26.0, 0, 160.0, 0, 0, 26.0, 120.0, 0, 0, 0, 1, 0)), 'field of view of 162 degrees'),
        (with_r(0, 0, 1, 0, 1, 0, -1, 0, 0), 'of the rectified image.*of another camera'),
        (raw_info(roi=RegionOfInterest(x_offset=0, y_offset=0, width=100, height=100)), '100x100 px'),
        (raw_info(K=(260.0, 0, 158.0, 0, 0.0, 121.0, 0, 0, 1)), 'uncalibrated'),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused_in_one_line(description, words):
    with pytest.raises(ValueError, match=words) as error:
        Rectifier()(PICTURE, description, '/left/camera_info')
    assert '\n' not in str(error.value) and '/left/camera_info' in str(error.value)


# Keyframes

BIG = clouds(1280, 960)
SIDE = np.array([[1, 0, 320.0], [0, 1, 240.0], [0, 0, 1]])  # the middle 640 x 480 of BIG


def seen(warp, stamp_s=0.0):
    """A camera of 640 x 480 px over BIG whose pixel p shows pixel SIDE @ warp @ p; and so does the next
    one.
    """
    image = cv2.warpPerspective(BIG, SIDE @ warp, (640, 480), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return View(image, stamp_ns=round(stamp_s * S))


def moved(dx=0.0, dy=0.0, turn=0.0, zoom=1.0):
    """The picture shifts by (dx, dy) px after it was turned [rad] and zoomed about the middle."""
    c, s = np.cos(turn) * zoom, np.sin(turn) * zoom
    middle = np.array([319.5, 239.5])
    A = np.array([[c, -s], [s, c]])
    picture = np.eye(3)  # old pixel to new pixel
    picture[:2, :2], picture[:2, 2] = A, middle - A @ middle + (dx, dy)
    return picture


WARPS = {
    'shift': moved(dx=50),
    'back': moved(dx=-50),
    'up': moved(dy=-40),
    'both': moved(30, 40),
    'turn': moved(turn=0.2),
    'ahead': moved(zoom=1.15),
    'backwards': moved(zoom=0.88),
    'all': moved(25, -15, 0.1, 1.05),
}


@pytest.mark.parametrize('name', WARPS)
def test_parallax_and_overlap_are_what_the_warp_says(name):
    """The median motion of the pixels; the part of the old image that is still in the new one, less what
    cannot be followed at the edges."""
    picture = WARPS[name]
    selector = KeyframeSelector(min_motion=0.01, max_motion=0.9, min_overlap=0.1)
    selector.offer(seen(np.eye(3)))
    pair = selector.offer(seen(np.linalg.inv(picture), 0.1))
    v, u = np.mgrid[:480:8, :640:8]
    old = np.stack((u.ravel(), v.ravel(), np.ones(u.size)))
    new = (picture @ old)[:2] / (picture @ old)[2]
    inside = (new >= 0).all(0) & (new[0] < 640) & (new[1] < 480)
    flow = np.median(np.linalg.norm(new - old[:2], axis=0)[inside]) / 640
    assert pair is not None and pair.second.stamp_ns == 0
    assert selector.motion.flow == pytest.approx(
        flow, rel=0.15, abs=0.002
    )  # corners lie unevenly over the image
    assert inside.mean() - 0.2 < selector.motion.overlap < inside.mean() + 0.08


@pytest.mark.parametrize('seconds', [0.1, 1.0, 3600.0])
def test_it_is_motion_that_makes_a_keyframe_and_not_time(seconds):
    selector = KeyframeSelector(max_age_s=10.0)
    for i in range(5):
        assert selector.offer(seen(np.eye(3), i * seconds)) is None
    assert selector.pairs == 0 and selector.dropped == 0
    assert selector.offer(seen(moved(dx=-64), 4 * seconds + 0.1)) is not None


def test_a_dropped_pair_is_counted_named_and_the_newest_image_goes_on():
    warnings = []
    source = sources.make_source(Parameters(mode='sequential'), [('/image', '/camera_info')], warnings.append)

    def offer(warp, stamp_s):
        message = image_message(seen(warp).image, make_header('head', round(stamp_s * S)))
        return source.pair(inputs.Input((message,), (None,)))

    assert offer(np.eye(3), 0.0) is None
    assert offer(moved(dx=300), 0.1) is None  # 47 % of the width
    assert warnings == ['pair dropped: too little of the keyframe is still seen: a new one']
    assert source.selection.dropped == 1
    pair = offer(moved(dx=260), 0.2)  # 6 % from the one that was dropped
    assert (pair.first.stamp_ns, pair.second.stamp_ns) == (2 * S // 10, S // 10)
    last = source.selection
    assert (last.reason, last.pairs, last.dropped) == ('pair', 1, 1)
    assert last.motion == pytest.approx(40 / 640, abs=2e-3)
    assert offer(moved(dx=200), 60.0) is None and 'too old' in warnings[-1]


def test_a_tall_or_tiny_image_costs_no_memory():
    for shape in (1, 1), (1, 3000), (60000, 1), (40, 30), (30000, 20):
        image, selector = np.zeros((*shape, 3), np.uint8), KeyframeSelector()
        for stamp in range(3):
            assert selector.offer(View(image, stamp_ns=stamp)) is None
        assert max(small_gray(image).shape) <= 320


# Images that are lost on the way


@pytest.mark.parametrize(
    'images, infos, is_lost',
    [
        (118, 118, False),
        (117, 120, False),
        (69, 101, True),
        (19, 93, True),
        (60, 120, True),
        (0, 90, False),
        (3, 9, False),
    ],
)
def test_far_fewer_images_than_camera_infos_are_said(monkeypatch, images, infos, is_lost):
    """The counts of a camera at 10 Hz whose driver has or lacks the transport for large messages."""
    now = 100.0
    monkeypatch.setattr(inputs.time, 'monotonic', lambda: now)
    image, info = inputs.Heard('/left/image_raw', True, True), inputs.Heard('/left/camera_info', False, True)
    for topic, count in ((image, images), (info, infos)):
        for number in range(count):
            now = 100 + 9 * number / count
            topic.now(round(now * S))
    now = 109.0
    words = inputs.lost(image, info)
    assert bool(words) == is_lost
    if is_lost:
        assert f'{images} images on /left/image_raw to {infos} camera_infos in 10 s' in words
        assert 'fastdds_large_messages.xml' in words and '\n' not in words
    now = 130.0  # what was is not said any more
    assert inputs.lost(image, info) == ''
