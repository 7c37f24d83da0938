"""Bags: the stereo camera is found among their topics, its pairs are those that were recorded, and the demo
plays them.
"""

import json
import re

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='`make setup` installs rosbags')
from rclpy.serialization import serialize_message
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from support.demo_process import demo_process

from gsemsplat_ros.cli import main
from gsemsplat_ros.datasets.demo_pairs import load_scene
from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.ros.client.bag import Bag
from gsemsplat_ros.ros.client.bag_topics import COMPRESSED, IMAGE, INFO, StereoTopics, choose
from gsemsplat_ros.ros.client.player import stereo_messages
from gsemsplat_ros.ros.conversions import make_header, stamp_ns

pytestmark = pytest.mark.usefixtures('own_environment')
MS, S = 10**6, 10**9
START = 1_700_000_000 * S
INFRA = (
    '/camera/infra1/camera_info',
    '/camera/infra2/camera_info',
    '/camera/infra1/image_rect_raw',
    '/camera/infra2/image_rect_raw',
)
RAW = '/left/camera_info', '/right/camera_info', '/left/image_raw', '/right/image_raw'


def png(image: Image) -> CompressedImage:
    pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
    message = CompressedImage(header=image.header, format='rgb8; png compressed bgr8')
    message.data = cv2.imencode('.png', pixels[..., ::-1])[1].tobytes()
    return message


def recorded(
    path,
    names=('desk', 'toy'),
    topics=INFRA,
    kind='mcap',
    compressed=False,
    skew_ms=3.0,
    step_s=1.0,
    left_out=(),
):
    """Write a bag of the packaged rooms `names`, one after the other; returns its file."""
    old = kind == 'bag'
    types = get_typestore(Stores.ROS2_JAZZY)
    described = get_typestore(Stores.ROS1_NOETIC) if old else types
    path = path / ('room.bag' if old else 'room')
    writer = (
        Writer1(path)
        if old
        else Writer2(
            path, version=9, storage_plugin=getattr(StoragePlugin, {'mcap': 'MCAP', 'db3': 'SQLITE3'}[kind])
        )
    )
    kinds = [INFO, INFO] + 2 * [COMPRESSED if compressed else IMAGE]
    topics = [f'{name}/compressed' if what == COMPRESSED else name for name, what in zip(topics, kinds)]
    with writer:
        connections = [
            writer.add_connection(topic, what, typestore=described) for topic, what in zip(topics, kinds)
        ]
        other = writer.add_connection('/depth/image_rect_raw', IMAGE, typestore=described)
        for number, name in enumerate(names):
            stamp = START + round(number * step_s * S)
            messages = list(stereo_messages(load_scene(name).pair, stamp))
            if compressed:
                messages[2:] = map(png, messages[2:])
            for message, connection, late in zip(messages, connections, (0, 0, 0, skew_ms)):
                if connection.topic in left_out:
                    continue
                message.header = make_header('left', stamp + round(late * MS))
                data = serialize_message(message)
                data = types.cdr_to_ros1(data, connection.msgtype) if old else data
                writer.write(connection, stamp + round(late * MS), data)
                if connection is connections[2]:  # a depth image, which is no picture
                    writer.write(other, stamp, data)
    return path if old else next(path.glob(f'*.{kind}'))


@pytest.mark.parametrize(
    'kind, compressed', [('mcap', False), ('mcap', True), ('db3', False), ('bag', False)]
)
def test_pairs_come_out_as_they_were_recorded(tmp_path, kind, compressed):
    file = recorded(tmp_path, kind=kind, compressed=compressed)
    with Bag(file) as bag:
        ending = '/compressed' if compressed else ''
        assert bag.topics == StereoTopics(tuple(topic + ending for topic in INFRA[2:]), INFRA[:2], compressed)
        assert bag.rectified.value and bag.counts == (2, 2) and bag.seconds == pytest.approx(1.003, abs=1e-6)
        pairs = list(bag.pairs(5))
    assert [(round(pair.seconds, 6), round(pair.skew_ms, 6)) for pair in pairs] == [
        (0.003, 3.0),
        (1.003, 3.0),
    ]
    for name, found in zip(('desk', 'toy'), pairs):
        wanted = load_scene(name).pair
        assert (
            found.pair.baseline_m == pytest.approx(0.075) and found.pair.first.camera == wanted.first.camera
        )
        np.testing.assert_array_equal(found.pair.first.image, wanted.first.image)
        np.testing.assert_array_equal(found.pair.second.image, wanted.second.image)
        assert found.pair.skew_ns == 3 * MS and found.pair.first.frame == 'left'
    assert [stamp_ns(pair.messages[2].header) for pair in pairs] == [START, START + S]


def test_a_folder_of_ros2_bag_record_is_a_bag_too(tmp_path):
    file = recorded(tmp_path)
    with Bag(file.parent) as bag:
        assert [round(pair.seconds) for pair in bag.pairs(2)] == [0, 1]


def test_pairs_are_spread_over_the_bag(tmp_path):
    file = recorded(tmp_path, names=('desk',) * 9, step_s=0.5)
    with Bag(file) as bag:
        assert [round(pair.seconds, 1) for pair in bag.pairs(3)] == [0.0, 1.5, 3.0]
        assert len(list(bag.pairs(100))) == 9


TOPICS = {
    'RealSense': ((IMAGE, *INFRA[2:]), INFRA[:2]),
    'two that were renamed': (
        (IMAGE, '/stereo/left_image', '/stereo/right_image'),
        ('/stereo/left_info', '/stereo/right_info'),
    ),
    'ZED': (
        (IMAGE, '/zed/zed_node/left/color/rect/image', '/zed/zed_node/right/color/rect/image'),
        ('/zed/zed_node/left/color/rect/camera_info', '/zed/zed_node/right/color/rect/camera_info'),
    ),
    'OAK-D, compressed': (
        (COMPRESSED, '/oak/left/image_rect/compressed', '/oak/right/image_rect/compressed'),
        ('/oak/left/camera_info', '/oak/right/camera_info'),
    ),
    'numbered': ((IMAGE, '/cam0/image_raw', '/cam1/image_raw'), ('/cam0/camera_info', '/cam1/camera_info')),
}


@pytest.mark.parametrize('name', TOPICS)
def test_the_stereo_camera_is_found_by_types_and_names(name):
    (kind, *images), infos = TOPICS[name]
    topics = (
        dict.fromkeys(images, kind)
        | dict.fromkeys(infos, INFO)
        | {
            '/color/image_raw': IMAGE,
            '/color/camera_info': INFO,
            '/left/depth': IMAGE,
            '/right/depth': IMAGE,
            '/tf': 'tf',
        }
    )
    assert choose(topics) == StereoTopics(tuple(images), infos, kind == COMPRESSED)


def test_of_several_the_rectified_ones_in_colour_that_are_not_compressed():
    topics = {
        f'/zed/{side}/{color}/{what}/image{ending}': COMPRESSED if ending else IMAGE
        for side in ('left', 'right')
        for color in ('gray', 'color')
        for what in ('raw', 'rect')
        for ending in ('', '/compressed')
    }
    topics |= {
        f'/zed/{side}/{color}/{what}/camera_info': INFO
        for side in ('left', 'right')
        for color in ('gray', 'color')
        for what in ('raw', 'rect')
    }
    assert choose(topics).images == ('/zed/left/color/rect/image', '/zed/right/color/rect/image')
    assert choose(topics).infos == ('/zed/left/color/rect/camera_info', '/zed/right/color/rect/camera_info')
    named = choose(topics, left='/zed/left/gray/raw/image')
    assert named.images[1] == '/zed/right/gray/raw/image' and not named.named_rectified
    assert choose(
        {'/a': IMAGE, '/b': IMAGE, '/a/camera_info': INFO, '/b/camera_info': INFO}, '/b', '/a'
    ).infos == ('/b/camera_info', '/a/camera_info')


@pytest.mark.parametrize(
    'topics, named, words',
    [
        ({}, {}, 'no stereo camera: wanted two image topics.*the bag has no topics'),
        ({'/scan': 'sensor_msgs/msg/LaserScan'}, {}, r'the bag has /scan \(LaserScan\)'),
        (
            {'/color/image_raw': IMAGE, '/color/camera_info': INFO, '/scan': 'x/msg/Y'},
            {},
            r'--left and --right; the bag has /color/camera_info \(CameraInfo\), /color/image_raw \(Image\)$',
        ),
        (
            {'/left/image_raw': IMAGE, '/right/image_raw': IMAGE, '/left/camera_info': INFO},
            {},
            'no camera_info belongs to /left/image_raw and /right/image_raw',
        ),
        ({'/left/image_raw': IMAGE}, dict(left='/nothing'), 'no images on /nothing'),
        ({f'/camera{n}/image': IMAGE for n in range(100, 140)}, {}, 'and 28 more'),
    ],
)
def test_a_bag_without_a_stereo_camera_says_what_it_has(topics, named, words):
    with pytest.raises(ValueError, match=words) as raised:
        choose(topics, **named)
    assert '\n' not in str(raised.value)


def _garbage(path):
    (path / 'x.mcap').write_bytes(b'\x89MCAP0\r\n' + bytes(1000))
    return path / 'x.mcap'


def _cut(path):
    file = recorded(path)
    file.write_bytes(file.read_bytes()[:1_000_000])
    return file


def _damaged(path):
    file = recorded(path)
    data = bytearray(file.read_bytes())
    data[2000:3000] = bytes(1000)
    file.write_bytes(data)
    return file


BAD = {
    'missing': (lambda path: path / 'no.mcap', 'no bag at .*no.mcap: give an .mcap'),
    'a picture': (
        lambda path: (path / 'x.png').write_bytes(b'png') and path / 'x.png',
        'cannot be read as a bag',
    ),
    'garbage': (_garbage, 'cannot be read as a bag|no stereo camera'),
    'an empty folder': (lambda path: path, 'cannot be read as a bag'),
    'cut off': (_cut, 'cannot be read as a bag'),
    'damaged': (_damaged, 'damaged|cannot be read as a bag|no stereo camera'),
    'no calibration': (
        lambda path: recorded(path, left_out=[INFRA[1]]),
        'there is no message on /camera/infra2/camera_info',
    ),
    'cameras that are not synchronised': (
        lambda path: recorded(path, skew_ms=40.0),
        'have stamps within 20 ms; the first ones differ by 40.0 ms',
    ),
    'one camera': (
        lambda path: recorded(path, left_out=[INFRA[3]]),
        'no two images of .* have stamps within',
    ),
}


@pytest.mark.parametrize('case', BAD)
def test_a_bag_that_cannot_be_played_is_refused_in_one_line(tmp_path, capsys, case):
    make, words = BAD[case]
    assert main(['demo', '--bag', str(make(tmp_path)), '--out', str(tmp_path / 'out')]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('gsemsplat')]
    assert len(said) == 1 and re.search(words, said[0]), said


def test_options_that_exclude_each_other(tmp_path, capsys):
    assert main(['demo', '--bag', 'x.mcap', '--scene', 'desk']) == 2
    assert 'give one of the two' in capsys.readouterr().err
    assert main(['demo', '--left', '/a']) == 2
    assert '--left belong to a bag' in capsys.readouterr().err
    assert main(['demo', '--raw']) == 2
    assert '--raw belong to a bag' in capsys.readouterr().err
    assert main(['demo', '--bag', 'x.mcap', '--raw', '--rectified']) == 2
    assert 'not allowed with argument' in capsys.readouterr().err


@pytest.mark.parametrize(
    'compressed', [pytest.param(False, marks=pytest.mark.heavy), True], ids=['raw', 'compressed']
)
def test_the_demo_plays_a_bag_through_the_node_and_asks(tmp_path, compressed):
    """The real node on a fake pipeline, which tells what it was sent."""
    file = recorded(tmp_path, compressed=compressed)
    out = tmp_path / 'out'
    out.mkdir()
    process = demo_process(out, '--bag', str(file), '--query', 'chair', 'sofa', '--json')
    text, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert 'infra1/image_rect_raw' in err and '2 and 2 images in 1.0 s, rectified' in err
    summary = json.loads(text.splitlines()[-1])
    assert summary == json.loads((out / 'summary.json').read_text())
    assert summary['bag']['compressed'] is compressed and summary['bag']['skew_ms'] == [3.0, 3.0]
    assert [pair['scene'] for pair in summary['pairs']] == ['0.00 s', '1.00 s']
    for pair in summary['pairs']:
        assert pair['scale_source'] == 'stereo baseline'
        assert [(q['text'], q['found']) for q in pair['queries']] == [('chair', True), ('sofa', False)]
    # the fake writes camera and baseline into the first Gaussian, and the pictures' first pixels into two
    # colours
    scene, wanted = read_ply(out / 'scene.ply', 'left'), load_scene('desk').pair
    assert scene.means[0].tolist() == pytest.approx([451.034, 299.038, 0.075], abs=1e-3)
    np.testing.assert_allclose(
        scene.colors[:2].numpy() * 255, [wanted.first.image[0, 0], wanted.second.image[0, 0]], atol=1.0
    )
    html = (out / 'report.html').read_text()
    assert 'Words for room' in html and '1.00 s' in html


@pytest.mark.heavy
def test_a_bag_answers_as_its_pictures_do(tmp_path):
    """Shipped weights: the same pair from the package and out of a bag."""
    results = []
    for extra in ('--scene', 'bedroom_chair'), ('--bag', str(recorded(tmp_path, names=('bedroom_chair',)))):
        out = tmp_path / extra[0].strip('-')
        assert main(['demo', *extra, '--query', 'armchair', 'bicycle', '--out', str(out), '--quiet']) == 0
        results.append(json.loads((out / 'summary.json').read_text())['pairs'][0])
    package, bag = results
    assert bag['gaussians'] == package['gaussians'] and bag['queries'][0]['found']
    for one, other in zip(package['queries'], bag['queries']):
        assert one['peak_pixel'] == other['peak_pixel'] and one['score'] == pytest.approx(
            other['score'], abs=1e-4
        )
