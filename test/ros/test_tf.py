"""TF: where a frame stood at a time. The same cases on the plain twin and on tf2_ros where it is
installed.
"""

import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from support.point_maps import CAMERA, rays, turned, wavy_depth
from support.ros_messages import START, S, tf

from gsemsplat_ros.geometry.pose import motion_scale, pair_pose
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros import tf_buffer as frames
from gsemsplat_ros.ros import tf_listener


@pytest.fixture(params=['plain', 'tf2_ros'])
def buffer(request):
    """An empty buffer of each kind."""
    if request.param == 'plain':
        return frames.PlainBuffer()
    pytest.importorskip('tf2_ros', reason='tf2_ros comes with a ROS distribution')
    return frames.Tf2Buffer()


def fill(buffer, *moving, static=()):
    for message in static:
        buffer.add(message, True)
    for message in moving:
        buffer.add(message, False)
    return buffer


def pose(xyz, yaw=0.0):
    return turned(yaw, (0, 0, 1), xyz)


def at(seconds):
    return START + round(seconds * S)


def robot(buffer):
    """map - odom (drifts) - base (drives and turns) - camera (fixed); odom - arm (fixed)."""
    return fill(
        buffer,
        *(tf('map', 'odom', t, (0, t, 0)) for t in (0, 1, 2)),
        *(tf('odom', 'base', t, (2 * t, 0, 0), yaw=0.5 * t) for t in (0, 1, 2)),
        static=[tf('base', 'camera', 0, (0.2, 0, 1.0), yaw=math.pi / 2), tf('odom', 'arm', 0, (0, 0, 5))],
    )


def test_a_chain_is_multiplied_up_at_the_time_asked(buffer):
    robot(buffer)
    expected = pose((0, 1, 0)) @ pose((2, 0, 0), 0.5) @ pose((0.2, 0, 1.0), math.pi / 2)
    np.testing.assert_allclose(buffer.lookup('map', 'camera', at(1)), expected, atol=1e-12)
    np.testing.assert_allclose(buffer.lookup('camera', 'map', at(1)), np.linalg.inv(expected), atol=1e-12)


@pytest.mark.parametrize('seconds', [0.25, 0.5, 1.75])
def test_between_two_stamps_it_is_interpolated(buffer, seconds):
    robot(buffer)  # lines are followed straight, turns at constant speed
    expected = (
        pose((0, seconds, 0)) @ pose((2 * seconds, 0, 0), 0.5 * seconds) @ pose((0.2, 0, 1.0), math.pi / 2)
    )
    np.testing.assert_allclose(buffer.lookup('map', 'camera', at(seconds)), expected, atol=1e-7)


def test_both_buffers_say_the_same():
    """2,400 random look-ups over moving and fixed frames, at times in and out of what is known, and at 0."""
    pytest.importorskip('tf2_ros', reason='tf2_ros comes with a ROS distribution')
    buffers, answered = (frames.PlainBuffer(), frames.Tf2Buffer()), 0
    random = np.random.default_rng(8)
    for t in np.arange(0, 5, 0.1):
        for parent, child in (('map', 'odom'), ('odom', 'base'), ('base', 'head')):
            if random.uniform() < 0.9:
                message = tf(parent, child, t, random.normal(size=3), yaw=random.uniform(-3, 3))
                for buffer in buffers:
                    buffer.add(message, False)
    for parent, child in (('head', 'camera'), ('base', 'arm')):
        message = tf(parent, child, 0, random.normal(size=3), yaw=random.uniform(-3, 3))
        for buffer in buffers:
            buffer.add(message, True)
    names = ['map', 'odom', 'base', 'head', 'camera', 'arm', 'moon']
    for _ in range(2400):
        target, source = random.choice(names, 2, replace=False)
        time_ns = 0 if random.uniform() < 0.1 else at(random.uniform(-0.5, 5.5))
        found = []
        for buffer in buffers:
            try:
                found.append(buffer.lookup(str(target), str(source), time_ns))
            except LookupError:
                found.append(None)
        assert (found[0] is None) == (found[1] is None), (target, source, time_ns)
        if found[0] is not None:
            answered += 1
            np.testing.assert_allclose(found[0], found[1], atol=1e-12)
    assert 1000 < answered < 2300


def test_branches_meet_at_their_common_frame(buffer):
    robot(buffer)
    expected = np.linalg.inv(pose((0, 0, 5))) @ pose((1, 0, 0), 0.25) @ pose((0.2, 0, 1.0), math.pi / 2)
    np.testing.assert_allclose(buffer.lookup('arm', 'camera', at(0.5)), expected, atol=1e-7)


def test_what_lies_above_the_common_frame_may_be_late(buffer):
    robot(buffer)
    fill(buffer, tf('odom', 'base', 3, (6, 0, 0)))  # map - odom ends at 2 s
    np.testing.assert_allclose(buffer.lookup('odom', 'camera', at(3))[:3, 3], (6.2, 0, 1), atol=1e-9)
    with pytest.raises(LookupError):
        buffer.lookup('map', 'camera', at(3))


def test_the_shorter_way_round_is_taken(buffer):
    """q and -q are one rotation: interpolation must not turn the long way."""
    angle = math.radians(40)
    fill(
        buffer,
        tf('odom', 'base', 0),
        tf('odom', 'base', 1, quat=(0.0, 0.0, -math.sin(angle / 2), -math.cos(angle / 2))),
    )
    np.testing.assert_allclose(buffer.lookup('odom', 'base', at(0.5)), pose((0, 0, 0), angle / 2), atol=1e-9)


@pytest.mark.parametrize(
    'target, source, seconds',
    [
        ('map', 'camera', -0.5),
        ('map', 'camera', 2.001),
        ('map', 'moon', 1),
        ('moon', 'camera', 1),
        ('other', 'camera', 1),
        ('map', '', 1),
    ],
)
def test_what_is_not_known_is_said_and_not_guessed(buffer, target, source, seconds):
    robot(buffer)
    fill(buffer, static=[tf('island', 'other')])
    with pytest.raises(LookupError) as error:
        buffer.lookup(target, source, at(seconds))
    assert len(str(error.value)) > 10


def test_the_reason_names_the_frame_and_the_times():
    buffer = robot(frames.PlainBuffer())
    cases = (
        (('map', 'camera', at(2.5)), "'base' under 'odom' from 1000.000 to 1002.000 s, wanted at 1002.500 s"),
        (('map', 'moon', at(1)), "frame 'moon' is unknown to TF"),
    )
    for asked, words in cases:
        with pytest.raises(LookupError, match=words):
            buffer.lookup(*asked)


def test_ten_seconds_are_kept(buffer):
    fill(buffer, *(tf('odom', 'base', t / 10, (t, 0, 0)) for t in range(0, 205, 5)))  # 0 to 20 s
    assert buffer.lookup('odom', 'base', at(10.25))[0, 3] == pytest.approx(102.5)
    with pytest.raises(LookupError):
        buffer.lookup('odom', 'base', at(9.0))


def test_late_messages_fall_into_place(buffer):
    fill(buffer, *(tf('odom', 'base', t, (t, 0, 0)) for t in (0, 2, 1, 4, 3)))
    for t in (0.5, 1.5, 2.5, 3.5):
        assert buffer.lookup('odom', 'base', at(t))[0, 3] == pytest.approx(t)


def test_the_last_of_two_with_one_stamp_counts():
    buffer = fill(frames.PlainBuffer(), tf('odom', 'base', 1, (1, 0, 0)), tf('odom', 'base', 1, (9, 0, 0)))
    assert buffer.lookup('odom', 'base', at(1))[0, 3] == 9


def test_stamp_zero_asks_for_the_newest_that_all_know(buffer):
    robot(buffer)
    fill(buffer, tf('odom', 'base', 3, (6, 0, 0)))
    assert buffer.lookup('odom', 'base', 0)[0, 3] == 6
    np.testing.assert_allclose(buffer.lookup('map', 'base', 0)[:3, 3], (4, 2, 0))  # map - odom ends at 2 s


def test_a_static_frame_holds_for_ever_and_may_be_sent_anew(buffer):
    fill(buffer, static=[tf('base', 'camera', 0, (1, 0, 0))])
    assert buffer.lookup('base', 'camera', at(10**6))[0, 3] == 1
    fill(buffer, static=[tf('base', 'camera', 5, (2, 0, 0))])
    assert buffer.lookup('base', 'camera', at(-5))[0, 3] == 2


def test_a_loop_of_frames_ends_in_words():
    buffer = fill(frames.PlainBuffer(), static=[tf('a', 'b'), tf('b', 'c'), tf('c', 'a'), tf('x', 'y')])
    with pytest.raises(LookupError, match='loop'):
        buffer.lookup('y', 'a', at(0))


@pytest.mark.parametrize(
    'message, words',
    [
        (tf('odom', 'odom'), 'two frames'),
        (tf('', 'base'), 'two frames'),
        (tf('/a', 'a'), 'two frames'),
        (tf('odom', 'base', xyz=(math.nan, 0, 0)), 'finite'),
        (tf('odom', 'base', xyz=(math.inf, 0, 0)), 'finite'),
        (tf('odom', 'base', quat=(0.0, 0.0, 0.0, 0.0)), 'quaternion of length 0'),
        (tf('odom', 'base', quat=(math.nan, 0.0, 0.0, 1.0)), 'unit quaternion'),
    ],
)
def test_what_is_no_transform_is_refused(message, words):
    with pytest.raises(ValueError, match=words) as error:
        frames.sample_of(message)
    assert '\n' not in str(error.value)


class FakeNode:
    """Takes subscriptions and does nothing with them."""

    def create_subscription(self, *args, **more):
        return object()

    def destroy_subscription(self, subscription):
        pass


@pytest.fixture
def listener(monkeypatch):
    """TfListener that hear what `add` is given, and what they complain about."""
    monkeypatch.setattr(tf_listener, 'TFMessage', SimpleNamespace)
    warnings = []
    listener = tf_listener.TfListener(FakeNode(), 'map', warnings.append, frames.PlainBuffer)
    yield listener, warnings
    listener.close()


def test_a_look_up_waits_for_odometry_that_comes_late_and_no_longer(listener):
    listener, _ = listener
    listener.add([tf('map', 'base', 0)], False)
    timer = threading.Timer(0.1, lambda: listener.add([tf('map', 'base', 2, (2, 0, 0))], False))
    timer.start()
    found, reason = listener.lookup('map', 'base', at(1), timeout_s=20.0)
    timer.join()
    assert found[0, 3] == 1 and reason == ''
    begin = time.monotonic()
    found, reason = listener.lookup('map', 'base', at(5), timeout_s=0.1)
    assert found is None and 'wanted at 1005.000 s' in reason
    assert 0.1 <= time.monotonic() - begin < 15.0
    threading.Timer(0.1, listener.close).start()  # a stop does not wait for TF
    begin = time.monotonic()
    assert listener.lookup('map', 'base', at(5), timeout_s=60.0)[0] is None
    assert time.monotonic() - begin < 30.0


def test_a_place_in_the_map_or_the_reason_why_not(listener):
    listener, warnings = listener
    listener.add(
        [tf('map', 'base', 0), tf('map', 'base', 1, (1, 0, 0)), tf('map', 'nan', xyz=(math.nan, 0, 0))], False
    )
    np.testing.assert_allclose(listener.map_from('base', at(0.5)), pose((0.5, 0, 0)))
    assert listener.reason == '' and len(warnings) == 1 and 'finite' in warnings[0]
    begin = time.monotonic()
    assert listener.map_from('camera', at(0.5)) is None
    assert time.monotonic() - begin < tf_listener.WAIT_S + 15.0
    assert "'camera' is unknown" in listener.reason and "map_frame 'map'" in warnings[-1]


def test_a_bag_that_starts_again_is_followed(listener):
    listener, _ = listener
    for start in (0, 0, -5):  # 0 to 100 s, again, and from five seconds earlier
        listener.add([tf('base', 'camera', 0, (0, 0, 1))], True)
        for t in range(start, 100):
            listener.add([tf('map', 'base', t, (t, start, 0))], False)
            place = listener.lookup('map', 'camera', at(t))[0]
            assert place is not None and tuple(place[:3, 3]) == (t, start, 1)


def test_of_a_bag_that_starts_again_nothing_older_is_left(listener):
    """Also where the old times hold what the new ones do not: the robot was carried away meanwhile."""
    listener, _ = listener
    for x in (0, 100):
        for t in range(40):
            listener.add([tf('map', 'base', t / 10, (x, 0, 0))], False)
            assert listener.lookup('map', 'base', at(t / 10))[0][0, 3] == x
    assert listener.lookup('map', 'base', at(0.2))[0][0, 3] == 100 and listener.complaint == ''


def test_when_the_clock_of_the_node_jumps_back_what_moves_is_forgotten(listener):
    listener, _ = listener
    listener.add([tf('base', 'camera', 0, (0, 0, 1))], True)
    listener.add([tf('map', 'base', 7)], False)
    assert listener.lookup('map', 'camera', 0)[0] is not None
    listener.clear()
    assert listener.lookup('map', 'camera', 0)[0] is None
    assert listener.lookup('base', 'camera', 0)[0][2, 3] == 1


@pytest.mark.parametrize(
    'frames', [('wheel',), ('base_link',), ('odom',), ('wheel', 'arm'), ('wheel', 'base_link')]
)
@pytest.mark.parametrize('rate', [20, 5, 1, 0.2])
@pytest.mark.parametrize('behind', [2.0, 30.0, -3.0])
def test_a_second_publisher_of_a_frame_makes_nothing_forgotten(listener, frames, rate, behind):
    """10 s of TF: map - odom at 2 Hz and 1 s ahead, as AMCL dates it, odom - base_link and wheels at 20 Hz.
    Images at 5 Hz learn their place within 0.2 s, whatever the second publisher's clock and rate are."""
    listener, warnings = listener
    parents = {'odom': 'map', 'base_link': 'odom', 'wheel': 'base_link', 'arm': 'base_link'}
    listener.add([tf('base_link', 'camera')], True)
    events = [(t / 2, 'odom') for t in range(20)] + [
        (t / 20, child) for t in range(200) for child in ('base_link', 'wheel', 'arm')
    ]
    events += [(t / rate + 0.01, 'rival') for t in range(round(10 * rate))]
    events += [(t / 5 + 0.03, 'image') for t in range(10, 50)]
    waiting, placed = [], 0
    for t, what in sorted(events):
        if what == 'image':
            waiting.append(t)
        elif what == 'rival':
            listener.add([tf(parents[child], child, t - behind) for child in frames], False)
        else:
            listener.add([tf(parents[what], what, t + (what == 'odom'))], False)
        for taken in tuple(waiting):
            if listener.lookup('map', 'camera', at(taken - 0.1))[0] is not None:
                placed += 1
                waiting.remove(taken)
            elif t - taken >= 0.2:
                waiting.remove(taken)
    assert placed == 40
    assert f'two publishers of {frames[0]!r}' in listener.complaint or len(frames) == 2
    if frames == ('wheel',) and behind == 2.0:
        assert "two publishers of 'wheel' differ by 2.0 s" in listener.complaint
        assert warnings and all('differ by 2.0 s: stop one of them' in words for words in warnings)


def test_without_tf2_msgs_the_node_goes_on_and_says_so(monkeypatch):
    monkeypatch.setattr(tf_listener, 'TFMessage', None)
    monkeypatch.setattr(tf_listener, 'WAIT_S', 30.0)
    warnings = []
    listener = tf_listener.TfListener(FakeNode(), 'odom', warnings.append)
    begin = time.monotonic()
    assert listener.map_from('camera', at(0)) is None
    assert time.monotonic() - begin < 15.0  # nothing to wait for
    assert 'tf2_msgs is not installed' in warnings[0] and 'tf2_msgs is not installed' in listener.reason
    listener.close()


# What it is for: the scale of two images of one moving camera


def moved_pair(first_from_second, map_from_first=None):
    """Two views of a camera that moved so, their places in the map known."""
    map_from_first = turned(1.2, (0.1, 0.3, 1), (10, -4, 1)) if map_from_first is None else map_from_first
    image = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
    return Pair(
        View(image, CAMERA, map_from_camera=map_from_first),
        View(image, CAMERA, map_from_camera=map_from_first @ first_from_second),
    )


def test_scale_comes_from_the_way_that_the_camera_went():
    """The network's room is 2.5 times too small; odometry knows that the camera moved by half a metre."""
    way = turned(0.15, (0, 1, 0), (0.3, 0, 0.4))
    pair = moved_pair(way)
    np.testing.assert_allclose(pair.first_from_second, way, atol=1e-12)
    points = rays(CAMERA) * wavy_depth(CAMERA)[..., None]
    in_first = (points @ way[:3, :3].T + way[:3, 3]) / 2.5
    placed = pair_pose(pair, None, points[..., 2] / 2.5, in_first, np.ones(points.shape[:2]), CAMERA)
    assert placed.scale_source == 'tf' and placed.scale == pytest.approx(2.5, rel=1e-3)
    np.testing.assert_allclose(placed.first_from_second, way, atol=1e-3)
    unknown = pair_pose(
        Pair(pair.first, View(pair.second.image, CAMERA)),
        None,
        points[..., 2] / 2.5,
        in_first,
        np.ones(points.shape[:2]),
        CAMERA,
    )
    assert (unknown.scale_source, unknown.scale) == ('network', 1.0)


@pytest.mark.parametrize(
    'network, metric',
    [
        (turned(0, (0, 1, 0), (1, 0, 0)), turned(0, (0, 1, 0), (0.04, 0, 0))),  # moved too little
        (turned(0, (0, 1, 0), (1, 0, 0)), turned(0.3, (0, 1, 0), (0.5, 0, 0))),  # another turn
        (turned(0, (0, 1, 0), (1, 0, 0)), turned(0, (0, 1, 0), (0.4, 0.3, 0))),  # another direction
        (turned(0, (0, 1, 0), (1, 0, 0)), turned(0, (0, 1, 0), (-0.5, 0, 0))),  # the other way round
        (turned(0, (0, 1, 0), (0, 0, 0)), turned(0, (0, 1, 0), (0.5, 0, 0))),
    ],
)  # the images saw no motion
def test_odometry_that_disagrees_with_the_images_gives_no_scale(network, metric):
    assert motion_scale(network, metric) is None


def test_odometry_that_agrees_gives_the_ratio_of_the_ways():
    assert motion_scale(
        turned(0.1, (0, 1, 0), (0.2, 0, 0)), turned(0.12, (0, 1, 0), (0.5, 0.1, 0))
    ) == pytest.approx(math.hypot(0.5, 0.1) / 0.2)
