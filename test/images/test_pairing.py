"""Pairs by stamp, on both synchronisers where message_filters is installed; keyframes by motion; the
mailbox.
"""

import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from support.pictures import clouds

from gsemsplat_ros.images.keyframes import KeyframeSelector
from gsemsplat_ros.images.stereo import StereoPairer
from gsemsplat_ros.images.still import StillGate
from gsemsplat_ros.images.view import View

MS = 1_000_000
BACKENDS = ['plain', 'message_filters']


def message(stamp_ns):
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    try:
        from builtin_interfaces.msg import Time

        stamp = Time(sec=stamp.sec, nanosec=stamp.nanosec)
    except ImportError:
        pass
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp))


def synchroniser(backend, slop_s, pairs):
    synchronize = pytest.importorskip('gsemsplat_ros.ros.synchronize')
    if backend == 'message_filters':
        pytest.importorskip('message_filters', reason='message_filters comes with a ROS distribution')
        make = synchronize.filters_backend
    else:
        make = synchronize.plain_backend
    return synchronize.StereoSync(slop_s, lambda left, right: pairs.append((left, right)), make)


# case: slop [ms], arrivals (side, stamp [ms]), expected pairs (left, right) [ms]
CASES = {
    'equal stamps': (0, [(0, 10), (1, 10), (1, 20), (0, 20)], [(10, 10), (20, 20)]),
    'slop 0 wants equal stamps': (0, [(0, 10), (1, 11), (1, 10)], [(10, 10)]),
    'at the slop': (5, [(0, 100), (1, 105)], [(100, 105)]),
    'beyond the slop': (5, [(0, 100), (1, 106), (0, 133), (1, 139)], []),
    'right lags by 4 ms': (
        5,
        [(0, 0), (1, 4), (0, 33), (1, 37), (0, 66), (1, 70)],
        [(0, 4), (33, 37), (66, 70)],
    ),
    'right misses a frame': (5, [(0, 0), (1, 0), (0, 33), (0, 66), (1, 66)], [(0, 0), (66, 66)]),
    'nearest of several': (20, [(0, 0), (0, 12), (0, 30), (1, 13)], [(12, 13)]),
    'late arrival': (5, [(0, 0), (0, 33), (1, 33), (1, 0)], [(33, 33), (0, 0)]),
}


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', CASES)
def test_stereo_pairs_and_skew(case, backend):
    slop, arrivals, expected = CASES[case]
    pairs = []
    sync = synchroniser(backend, slop / 1e3, pairs)
    for side, stamp in arrivals:
        sync.add(side, message(stamp * MS))
    stamps = [tuple(m.header.stamp.sec * 1000 + m.header.stamp.nanosec // MS for m in pair) for pair in pairs]
    assert stamps == expected
    assert sync.pairs == len(expected)
    assert sync.received == [sum(side == s for side, _ in arrivals) for s in (0, 1)]
    assert sync.skew_ns == ((expected[-1][1] - expected[-1][0]) * MS if expected else None)
    newest = [next(stamp for side, stamp in reversed(arrivals) if side == s) for s in (0, 1)]
    assert sync.gap_ns == (newest[1] - newest[0]) * MS


def test_both_synchronisers_pair_alike():
    """60 random sequences: late, lost and exchanged images of 30 Hz."""
    for seed in range(60):
        random, found = np.random.default_rng(seed), []
        lost = random.uniform(size=(2, 60)) < 0.1
        stamps = np.arange(60) * 33 * MS + random.integers(-4 * MS, 4 * MS, (2, 60))
        arrivals = [
            (stamps[side, i] + random.integers(0, 60 * MS), side, int(stamps[side, i]))
            for side, i in np.argwhere(~lost).tolist()
        ]
        for backend in BACKENDS:
            pairs = []
            sync = synchroniser(backend, 0.005, pairs)
            for _, side, stamp in sorted(arrivals):
                sync.add(side, message(10**9 + stamp))
            found.append([[(m.header.stamp.sec, m.header.stamp.nanosec) for m in pair] for pair in pairs])
        assert found[0] == found[1] and len(found[0]) > 20, seed


@pytest.mark.parametrize('backend', BACKENDS)
def test_stereo_pairs_go_on_after_the_clock_jumped_back(backend):
    pairs = []
    sync = synchroniser(backend, 0.005, pairs)
    for i in range(20):  # left alone: its queue is full of late stamps
        sync.add(0, message((1000 + i) * 10**9))
    for stamp in (1, 2, 3):  # the bag starts again
        sync.add(0, message(stamp * 10**9))
        sync.add(1, message(stamp * 10**9))
    assert [pair[0].header.stamp.sec for pair in pairs] == [1, 2, 3]


def test_pairer_counts_what_found_no_partner():
    pairer = StereoPairer(slop_s=0.005, depth=3)
    for stamp in range(0, 100, 10):
        assert pairer.add(0, stamp * MS, 'left') is None
    assert pairer.dropped == [7, 0]
    assert pairer.add(1, 91 * MS, 'right') == ('left', 'right')
    assert (pairer.pairs, pairer.skew_ns) == (1, 1 * MS)
    assert pairer.add(1, 91 * MS, 'right') is None  # each item once
    pairer.add(1, 91 * MS, 'right again')
    assert pairer.dropped == [7, 1]


TEXTURE = clouds(960, 480)


def seen_at(x, stamp_s, frame='camera'):
    """A camera 640 px wide that slides along the texture."""
    return View(np.ascontiguousarray(TEXTURE[:, x : x + 640]), frame=frame, stamp_ns=int(stamp_s * 1e9))


def test_keyframes_follow_the_motion():
    selector = KeyframeSelector(min_motion=0.05, max_motion=0.3, min_overlap=0.4)
    assert selector.offer(seen_at(0, 0.0)) is None
    assert selector.offer(seen_at(16, 0.1)) is None  # 2.5 % of the width
    assert selector.reason == 'the image stands still'
    assert selector.motion.flow == pytest.approx(16 / 640, abs=2e-3)
    pair = selector.offer(seen_at(64, 0.2))  # 10 %
    assert (pair.first.stamp_ns, pair.second.stamp_ns) == (200_000_000, 0)  # the newest frame comes first
    assert selector.motion.flow == pytest.approx(64 / 640, abs=3e-3)
    assert selector.motion.overlap > 0.75  # a tenth of the keyframe has left the image
    assert selector.offer(seen_at(80, 0.3)) is None  # 2.5 % from the new keyframe
    assert selector.offer(seen_at(128, 0.4)).second.stamp_ns == 200_000_000
    assert selector.pairs == 2


def test_a_robot_that_stands_still_makes_no_pair():
    selector = KeyframeSelector(max_age_s=5.0)
    rng = np.random.default_rng(0)
    for i in range(100):
        view = seen_at(20, i / 10)
        noise = rng.integers(0, 8, view.image.shape, dtype=np.uint8)  # sensor noise
        assert selector.offer(View(cv2.add(view.image, noise), stamp_ns=view.stamp_ns)) is None
    assert selector.pairs == 0


@pytest.mark.parametrize(
    'second, reason',
    [
        (View(np.ascontiguousarray(TEXTURE[::-1, :640]), stamp_ns=10**8), 'too little of the keyframe'),
        (seen_at(280, 0.1), 'too little of the keyframe'),  # 44 % of the width
        (seen_at(64, 20.0), 'too old'),
        (seen_at(64, -1.0), 'time went backwards'),
        (seen_at(64, 0.1, frame='other'), 'camera changed'),
        (View(np.ascontiguousarray(TEXTURE[:240, :320]), stamp_ns=10**8), 'camera changed'),
    ],
)
def test_a_view_that_cannot_be_paired_becomes_the_keyframe(second, reason):
    selector = KeyframeSelector(min_motion=0.05, max_motion=0.3, max_age_s=10.0)
    selector.offer(seen_at(0, 0.0))
    assert selector.offer(second) is None
    assert reason in selector.reason
    assert selector.offer(second) is None
    assert selector.reason == 'the image stands still'  # measured against `second`


def test_a_blank_wall_makes_no_pair():
    selector = KeyframeSelector()
    wall = np.full((480, 640, 3), 90, np.uint8)
    for stamp in range(3):
        assert selector.offer(View(wall, stamp_ns=stamp)) is None
    assert 'too few' in selector.reason


def test_the_newest_input_wins():
    worker = pytest.importorskip('gsemsplat_ros.ros.worker')
    taken, failures, started, go_on = [], [], threading.Event(), threading.Event()

    def work(item):
        started.set()
        assert go_on.wait(30)
        taken.append(item)
        if item == 'bad':
            raise ValueError('cannot use it')

    thread = worker.Worker(work, failures.append)
    thread.mailbox.put('bad')
    assert started.wait(30)
    for item in range(10):  # while the first is worked on
        thread.mailbox.put(item)
    assert thread.mailbox.dropped == 9
    go_on.set()
    end = time.monotonic() + 30
    while len(taken) < 2:
        assert time.monotonic() < end
        time.sleep(0.001)
    assert thread.stop(30)
    assert taken == ['bad', 9]
    assert [str(f) for f in failures] == ['cannot use it']
    thread.mailbox.put('late')
    assert taken == ['bad', 9]


# Stereo: is there anything new to see?

ROOM = clouds(640, 480)


def gate_on(image=ROOM, **options):
    gate = StillGate(**options)
    assert gate.is_new(View(image)) and gate.reason == 'first image'
    gate.keep(View(image))
    return gate


def noisy(image, seed, gain=1.0, offset=0.0):
    noise = np.random.default_rng(seed).normal(scale=4.0, size=image.shape)
    return (image * gain + offset + noise).clip(0, 255).astype(np.uint8)


def test_a_standing_stereo_camera_sees_nothing_new():
    gate = gate_on()
    for i in range(50):  # with the noise of a sensor, and exposure that wanders
        assert not gate.is_new(View(noisy(ROOM, i, 1 + 0.1 * np.sin(i), 8 * np.cos(i)))), (
            i,
            gate.reason,
            gate.changed,
        )
    assert gate.skipped == 50 and gate.reason == 'the image stands still'


@pytest.mark.parametrize('pixels', [1, 3, 6])
def test_vibration_is_no_motion(pixels):
    gate = gate_on(TEXTURE[:, 100:740])
    for x in 100 - pixels, 100 + pixels:
        assert not gate.is_new(View(noisy(np.ascontiguousarray(TEXTURE[:, x : x + 640]), x))), gate.reason
    assert gate.motion.flow == pytest.approx(pixels / 640, abs=2e-3)


def test_a_camera_that_moves_sees_something_new_and_slow_motion_adds_up():
    gate = gate_on(TEXTURE[:, :640])
    for x in range(0, 9, 2):
        assert not gate.is_new(seen_at(x, 0.0, 'camera')), x
    assert gate.is_new(seen_at(24, 0.0)) and gate.reason == 'the camera moved'
    gate.keep(seen_at(24, 0.0))
    assert not gate.is_new(seen_at(27, 0.0))


@pytest.mark.parametrize('size, color', [((50, 50), (20, 20, 20)), ((120, 60), (250, 60, 60))])
def test_something_that_moved_before_a_standing_camera_is_noticed(size, color):
    gate = gate_on()
    there = ROOM.copy()
    there[200 : 200 + size[0], 300 : 300 + size[1]] = color
    view = View(noisy(there, 1))
    assert gate.is_new(view) and gate.reason == 'something moved before the camera'
    assert 0 < gate.changed < 0.1
    gate.keep(view)  # it stays there
    assert not gate.is_new(View(noisy(there, 2)))
    assert gate.is_new(View(ROOM))  # and goes


def test_a_white_wall_is_nothing_new_until_someone_stands_before_it():
    wall = np.full((480, 640, 3), 200, np.uint8)
    gate = gate_on(wall)
    assert not gate.is_new(View(noisy(wall, 0)))
    someone = wall.copy()
    someone[100:, 250:400] = 60
    assert gate.is_new(View(someone))


def test_a_view_is_new_when_the_camera_changed_or_the_gate_forgot_or_is_open():
    gate = gate_on()
    assert gate.is_new(View(np.ascontiguousarray(ROOM[::2, ::2]))) and gate.is_new(View(ROOM, frame='other'))
    assert not gate.is_new(View(ROOM))
    gate.forget()
    assert gate.is_new(View(ROOM))
    never = StillGate(0.0)
    for _ in range(3):
        assert never.is_new(View(ROOM))
        never.keep(View(ROOM))


def test_a_scene_that_failed_is_tried_again():
    gate = StillGate()
    assert gate.is_new(View(ROOM)) and gate.is_new(View(ROOM))  # nobody said keep
