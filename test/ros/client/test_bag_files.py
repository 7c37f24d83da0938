"""Bags as other programs write them: foreign topics, compression, lost metadata, odd names, and damage."""

import shutil
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='`make setup` installs rosbags')
import lz4.frame
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image
from support.damaged import damaged
from support.mcap_writer import write_mcap

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros.client import bag_decompress
from gsemsplat_ros.ros.client.bag import Bag
from gsemsplat_ros.ros.client.bag_topics import IMAGE, INFO
from gsemsplat_ros.ros.client.player import stereo_messages

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.usefixtures('own_environment')
S = 10**9
START = 1_700_000_000 * S
TOPICS = '/left/camera_info', '/right/camera_info', '/left/image_raw', '/right/image_raw'
KINDS = INFO, INFO, IMAGE, IMAGE
STORE = get_typestore(Stores.ROS2_JAZZY)


def stereo_camera(count=4, change=None):
    """(topic, type, time, message in CDR) of a small stereo camera; change: called with each number and its
    messages."""
    random = np.random.default_rng(0)
    for number in range(count):
        images = random.integers(0, 256, (2, 48, 64, 3), np.uint8)
        camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
        at = START + number * S
        pair = Pair(View(images[0], camera, 'left', at), View(images[1], camera, 'left', at), 0.1)
        messages = stereo_messages(pair, at)
        if change:
            change(number, messages)
        for topic, kind, message in zip(TOPICS, KINDS, messages):
            yield topic, kind, at, serialize_message(message)


def with_rosbags(folder, messages, plugin='MCAP', mode=None):
    """The folder that rosbags writes."""
    writer = Writer2(folder, version=9, storage_plugin=StoragePlugin[plugin])
    if mode:
        writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=STORE) for topic, kind in zip(TOPICS, KINDS)
        }
        for topic, _, at, data in messages:
            writer.write(connections[topic], at, data)
    return folder


def ros1_bag(path, messages, compression=None):
    """A ROS 1 bag."""
    types = get_typestore(Stores.ROS1_NOETIC)
    writer = Writer1(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=types) for topic, kind in zip(TOPICS, KINDS)
        }
        for topic, kind, at, data in messages:
            writer.write(connections[topic], at, STORE.cdr_to_ros1(data, kind))
    return path


def as_mcap(messages):
    """For write_mcap."""
    return [(topic, kind, 'ros2msg', '', 'cdr', at, data) for topic, kind, at, data in messages]


def check(path, count=4):
    """All pairs come out, in order and as they were."""
    wanted = list(stereo_camera(count))
    with Bag(path, rectified=True) as bag:
        assert bag.counts == (count, count) and bag.topics.images == TOPICS[2:]
        assert bag.seconds == pytest.approx(count - 1, abs=1e-6)
        pairs = list(bag.pairs(count))
    assert [round(pair.seconds) for pair in pairs] == list(range(count))
    for number, pair in enumerate(pairs):
        sent = [deserialize_message(data, Image) for *_, data in wanted[4 * number + 2 : 4 * number + 4]]
        assert list(pair.messages[2:]) == sent
        assert pair.pair.baseline_m == pytest.approx(0.1)


FOREIGN = {
    'protobuf': ('foxglove.SceneUpdate', 'protobuf', b'\n\xff\xfe\x80', 'protobuf'),
    'JSON': ('Pose', 'jsonschema', b'{}', 'json'),
    'CBOR': ('Pose', '', b'', 'cbor'),
    'no schema': (None, '', b'', 'json'),
    'a schema of IDL': ('a/msg/B', 'ros2idl', b'module a {};', 'cdr'),
    'an unknown schema': ('a/msg/B', 'new', b'\xff', 'cdr'),
}


@pytest.mark.parametrize('profile', ['ros2', ''])
@pytest.mark.parametrize('form', ['one by one', 'chunks', 'no index', 'no summary', 'lz4', 'zstd'])
def test_foreign_topics_are_passed_over(tmp_path, profile, form):
    messages = as_mcap(stereo_camera())
    for number, schema in enumerate(FOREIGN.values()):
        messages.insert(3 * number, (f'/foreign{number}', *schema, START + number, b'\xff\0x'))
    settings = {
        'one by one': {},
        'chunks': dict(compress=bytes),
        'no index': dict(compress=bytes, index=False, summary=False),
        'no summary': dict(compress=bytes, summary=False),
        'lz4': dict(compress=lz4.frame.compress, compression='lz4'),
        'zstd': dict(compress=zstd.compress, compression='zstd'),
    }[form]
    check(write_mcap(tmp_path / 'a.mcap', messages, profile, **settings))


def test_a_bag_of_foreign_topics_alone_names_them(tmp_path):
    schema = FOREIGN['protobuf']
    path = write_mcap(tmp_path / 'a.mcap', [('/scene', *schema, START, b'x')])
    with pytest.raises(ValueError, match=r'no topics; passed over, .* CDR of ROS 2: /scene \(protobuf\)$'):
        Bag(path)


@pytest.mark.parametrize(
    'plugin, mode',
    [
        *((plugin, mode) for plugin in ('MCAP', 'SQLITE3') for mode in (None, 'FILE', 'MESSAGE')),
        ('MCAP', 'STORAGE'),
    ],
)
@pytest.mark.parametrize('metadata', [True, False], ids=['metadata', 'no metadata'])
def test_compressed_bags_with_and_without_metadata(tmp_path, plugin, mode, metadata):
    folder = with_rosbags(tmp_path / 'room', stereo_camera(), plugin, mode)
    if not metadata:
        (folder / 'metadata.yaml').unlink()
    check(folder)
    check(next(path for path in folder.iterdir() if path.suffix != '.yaml'))


@pytest.mark.parametrize('plugin', ['MCAP', 'SQLITE3'])
def test_a_recording_in_several_files(tmp_path, plugin):
    (tmp_path / 'room').mkdir()
    messages = list(stereo_camera())
    for number, part in enumerate((messages[8:], messages[:8])):
        file = next(with_rosbags(tmp_path / f'part{number}', part, plugin).glob('part*'))
        shutil.move(file, tmp_path / 'room' / f'room_{1 - number}{file.suffix}')
    check(tmp_path / 'room')
    shutil.copy(tmp_path / 'room' / f'room_0{file.suffix}', tmp_path / 'room' / f'hall_0{file.suffix}')
    with pytest.raises(ValueError, match='holds 2 recordings: give one file, such as hall_0'):
        Bag(tmp_path / 'room')


@pytest.mark.parametrize('compression', [None, Writer1.CompressionFormat.BZ2, Writer1.CompressionFormat.LZ4])
def test_bags_of_ros_1(tmp_path, compression):
    check(ros1_bag(tmp_path / 'a.bag', stereo_camera(), compression))


@pytest.mark.parametrize('name', ['#1', 'a b?c=d', '100%41', "it's", 'ä ß', '-x', '\udcff'])
@pytest.mark.parametrize('plugin', ['MCAP', 'SQLITE3', 'ROS 1'])
def test_odd_characters_in_a_path(tmp_path, name, plugin):
    if plugin == 'ROS 1':
        check(ros1_bag(tmp_path / f'{name}.bag', stereo_camera(2)), 2)
        return
    folder = with_rosbags(tmp_path / 'room', stereo_camera(2), plugin)
    (folder / 'metadata.yaml').unlink()
    check(folder.rename(tmp_path / name), 2)
    file = next((tmp_path / name).iterdir())
    check(file.rename(tmp_path / f'{name}{file.suffix}'), 2)


def test_the_first_calibrated_camera_info_counts(tmp_path):
    """A driver sends zeros before it has loaded its calibration."""

    def change(number, messages):
        if number < 2:
            messages[0].k, messages[0].p = [0.0] * 9, [0.0] * 12
        if number < 1:
            messages[1].k, messages[1].p = [0.0] * 9, [0.0] * 12

    with Bag(with_rosbags(tmp_path / 'room', stereo_camera(change=change))) as bag:
        pairs = list(bag.pairs(4))
    assert len(pairs) == 4 and all(pair.pair.baseline_m == pytest.approx(0.1) for pair in pairs)


def test_a_bag_of_uncalibrated_cameras_is_refused(tmp_path):
    def change(number, messages):
        messages[0].k, messages[0].p = [0.0] * 9, [0.0] * 12

    with pytest.raises(ValueError, match='/left/camera_info is uncalibrated'):
        Bag(with_rosbags(tmp_path / 'room', stereo_camera(change=change)))


def _zeros(path, compress, kind, size):
    messages = as_mcap(stereo_camera(1))
    topic, *schema, at, data = messages[0]
    if kind == 'message':
        messages[0] = (topic, *schema, at, compress(data[:4] + bytes(size)))
        return write_mcap(path / 'a.mcap', messages)
    messages[0] = (topic, *schema, at, data[:4] + bytes(size))
    return write_mcap(path / 'a.mcap', messages, compress=compress, compression=kind)


@pytest.mark.parametrize('kind', ['message', 'zstd', 'lz4'])
def test_kilobytes_that_become_gigabytes_are_refused(tmp_path, kind):
    compress = lz4.frame.compress if kind == 'lz4' else zstd.compress
    path = _zeros(tmp_path, compress, kind, 300 << 20)
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ValueError, match=r'of [\d,]+ bytes holds more than 256 MiB') as error, Bag(path):
        pass
    assert str(error.value).isprintable()


def test_files_and_chunks_that_become_gigabytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_decompress, 'LARGEST', 1 << 20)
    (tmp_path / 'a.mcap.zstd').write_bytes(zstd.compress(bytes(3 << 20)))
    with pytest.raises(ValueError, match='the file holds more than 1 MiB'):
        Bag(tmp_path / 'a.mcap.zstd')
    monkeypatch.setattr(bag_decompress, 'LARGEST', 1 << 13)
    for name in 'BZ2', 'LZ4':
        path = ros1_bag(tmp_path / f'{name}.bag', stereo_camera(1), Writer1.CompressionFormat[name])
        with pytest.raises(ValueError, match='holds more than 0 MiB'):
            Bag(path)


def test_a_view_in_the_place_of_a_table_is_not_asked(tmp_path):
    """SQL of a file from outside may never end."""
    file = tmp_path / 'a.db3'
    with closing(sqlite3.connect(file)) as database:
        database.execute('CREATE TABLE topics (id, name, type, serialization_format)')
        database.execute(
            'CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) '
            'SELECT id, 1 AS topic_id, 1 AS timestamp, zeroblob(10) AS data FROM n'
        )
    with pytest.raises(ValueError, match='cannot be read as a bag: it has no tables of messages and topics'):
        Bag(file)


@pytest.mark.parametrize('topic', TOPICS[1:])
def test_a_topic_whose_name_is_damaged_is_named_in_one_line(tmp_path, topic):
    folder = with_rosbags(tmp_path / 'room', stereo_camera(1), 'SQLITE3')
    (file,) = folder.glob('*.db3')
    with closing(sqlite3.connect(file)) as database, database:
        database.execute('UPDATE topics SET name = ? WHERE name = ?', ('/\x02\n' + topic[3:], topic))
    with pytest.raises(ValueError, match='the bag has') as caught:
        Bag(file)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize('kind', ['mcap', 'mcap, compressed', 'db3', 'bag', 'zstd'])
def test_mutated_bags_are_read_or_refused_in_one_line(tmp_path, kind):
    messages, path = list(stereo_camera(2)), tmp_path / f'a.{kind.partition(",")[0]}'
    if kind.startswith('mcap'):
        packed = dict(compress=lz4.frame.compress, compression='lz4') if ',' in kind else dict(compress=bytes)
        write_mcap(path, as_mcap(messages), **packed)
    elif kind == 'bag':
        ros1_bag(path, messages)
    else:
        folder = with_rosbags(tmp_path / 'room', messages, 'SQLITE3', 'FILE' if kind == 'zstd' else None)
        file = next(file for file in folder.iterdir() if file.suffix != '.yaml')
        path = tmp_path / file.name
        file.rename(path)
    good, random, refused = path.read_bytes(), np.random.default_rng(2), 0
    for _ in range(150):
        path.write_bytes(damaged(random, good, least=1, head=1000))
        try:
            with Bag(path, rectified=True) as bag:
                list(bag.pairs(2))
        except ValueError as error:
            refused += 1
            assert str(error).isprintable() and str(path) in str(error)
    assert refused > 10


def test_plain_bags_of_ros_2_need_no_other_package(tmp_path, monkeypatch):
    folder = with_rosbags(tmp_path / 'room', stereo_camera())
    old = ros1_bag(tmp_path / 'a.bag', stereo_camera(1))
    for name in 'rosbags', 'rosbags.rosbag1', 'backports', 'lz4', 'lz4.frame':
        monkeypatch.setitem(sys.modules, name, None)
    check(folder)
    with pytest.raises(ValueError, match='needs the package rosbags: pip install rosbags'):
        Bag(old)
