"""What breaks on robots, made to break: after each fault the diagnostics name it, and the node answers again.

Node and cameras are processes of their own; the pipeline is a fake. test_node_shipped.py has the real one.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from gsemsplat_msgs.srv import LoadMap, SaveMap
from sensor_msgs.msg import PointCloud2
from support.node_process import DEADLINE_S
from support.ros_client import ask
from support.ros_messages import camera_info, picture

from gsemsplat_ros.ros.conversions import stamp_ns

S = 10**9
NAME = '/f'
CLOUD = f'{NAME}/gsemsplat/gaussians'


class Camera:
    """camera_program.py."""

    def __init__(self, domain):
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'support.camera_program', NAME],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            text=True,
            env=dict(os.environ, ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST'),
        )

    def tell(self, line):
        self._process.stdin.write(line + '\n')
        self._process.stdin.flush()

    @property
    def alive(self):
        return self._process.poll() is None

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


class Robot:
    """The node, its camera, and somebody who listens."""

    def __init__(self, client, process, domain, folder):
        self.client, self.process, self.folder, self._domain = client, process, folder, domain
        self.camera = Camera(domain)

    def status(self, part, condition):
        """The message and the values of the next status of this part that fulfils `condition(message,
        values)`.
        """
        found = []

        def holds(report):
            for status in report.status:
                values = {v.key: v.value for v in status.values}
                if status.name == f'{NAME}/gsemsplat: {part}' and condition(status.message, values):
                    found[:] = [status.message, values]
                    return True

        self.client.next('/diagnostics', holds)
        return found

    def lives(self):
        """New pictures become scenes, and the node answers."""
        self.client.next(CLOUD)
        self.client.next(CLOUD)
        answer = ask(self.client, 'chair', node=NAME)
        assert answer.success and answer.found, answer.message
        assert 'Traceback' not in self.process.output, self.process.output[-3000:]

    def restart_camera(self):
        self.camera.kill()
        self.camera = Camera(self._domain)

    def save(self, name):
        return self.client.call(SaveMap, f'{NAME}/gsemsplat/save_map', SaveMap.Request(path=name))

    def load(self, name):
        return self.client.call(LoadMap, f'{NAME}/gsemsplat/load_map', LoadMap.Request(path=name))


@pytest.fixture(scope='module')
def diagnostics(client):
    """The diagnostics of all nodes are heard."""
    client.listen(DiagnosticArray, '/diagnostics', 10)


@pytest.fixture(scope='module')
def running(client, diagnostics, start, domain, tmp_path_factory):
    """The one Robot of this module."""
    folder = tmp_path_factory.mktemp('maps')
    process = start('-r', f'__ns:={NAME}', '-p', f'map_directory:={folder}')
    client.listen(PointCloud2, CLOUD)
    process.wait_for('waiting for')
    robot = Robot(client, process, domain, folder)
    yield robot
    robot.camera.kill()


@pytest.fixture
def robot(running):
    """A robot whose node answers; afterwards its camera sends both images again, ten times a second."""
    running.lives()
    yield running
    if not running.camera.alive:
        running.restart_camera()
    running.camera.tell('right 1')
    running.camera.tell('dark 0')
    running.camera.tell('step 0.1')


def test_a_killed_publisher_is_named_and_its_successor_is_heard(robot):
    robot.camera.kill()
    message, _ = robot.status('inputs', lambda message, values: message.startswith('late: '))
    assert f'{NAME}/left/image_raw (' in message and f'{NAME}/right/image_raw (' in message
    assert ask(robot.client, 'chair', node=NAME).found  # of the scene that it has
    robot.restart_camera()  # whose stamps begin anew
    robot.lives()
    robot.status('inputs', lambda message, values: message == 'receiving')


def test_one_camera_that_drops_is_named_and_comes_back(robot):
    robot.camera.tell('right 0')
    message, values = robot.status('inputs', lambda message, values: message.startswith('late: '))
    assert f'late: {NAME}/right/image_raw (' in message and 'left' not in message
    assert int(values['left, right without partner'].split(',')[0]) > 5
    assert ask(robot.client, 'chair', node=NAME).found
    robot.camera.tell('right 1')
    robot.lives()
    robot.status('inputs', lambda message, values: message == 'receiving')


@pytest.mark.parametrize(
    'seconds, words',
    [
        (3600, 'jumped ahead by 3.6e+03 s'),
        (-3600, 'went back by 3.6e+03 s'),
        pytest.param(-4000, 'went back by 4e+03 s', marks=pytest.mark.heavy),
        pytest.param(10**8, 'jumped ahead by 1e+08 s', marks=pytest.mark.heavy),
    ],
)
def test_a_clock_that_jumps_is_named_and_nothing_stops(robot, seconds, words):
    robot.camera.tell(f'clock {seconds}')
    robot.status(
        'inputs',
        lambda message, values: (
            f'the stamps of {NAME}/left/image_raw {words}' in message and f'{NAME}/right/image_raw' in message
        ),
    )
    robot.lives()
    robot.status('inputs', lambda message, values: message == 'receiving')


def test_reversed_stamps_are_named_and_nothing_stops(robot):
    robot.camera.tell('clock 100')
    robot.camera.tell('step -0.1')
    _, values = robot.status('inputs', lambda message, values: 'went back by 0.1 s' in message)
    first = int(values[f'{NAME}/left/image_raw jumps of the stamps'])
    robot.status(
        'inputs',
        lambda message, values: int(values[f'{NAME}/left/image_raw jumps of the stamps']) > first + 10,
    )
    robot.lives()  # also with stamps that run backwards
    robot.camera.tell('step 0.1')
    robot.lives()
    robot.status('inputs', lambda message, values: message == 'receiving')


def test_a_fault_of_ours_is_counted_and_the_worker_goes_on(robot):
    """Of the fake pipeline, an error that is not foreseen; a broken worker would never make a scene again."""
    robot.camera.tell('dark 1')
    _, values = robot.status('scene', lambda message, values: 'the fake fails' in values['last error'])
    refused = int(values['refused inputs'])
    robot.status('scene', lambda message, values: int(values['refused inputs']) > refused + 2)
    robot.camera.tell('dark 0')
    robot.lives()
    robot.status('scene', lambda message, values: values['last error'] == 'none')


def test_a_file_that_may_not_grow_is_refused_and_the_old_map_survives(robot):
    """A limit on the size of files, as of a quota."""
    _disk_full(robot, 'kitchen', 'File too large', lambda: _limit(robot, 2000), lambda: _limit(robot, None))


@pytest.mark.skipif(os.geteuid() != 0, reason='only root may mount a small disk')
def test_a_full_disk_is_named_and_the_old_map_survives(robot):
    place = robot.folder / 'disk'
    place.mkdir()
    if subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', place], capture_output=True
    ).returncode:
        pytest.skip('this system lets nobody mount')
    ballast = place / 'ballast'

    def fill():
        try:
            with open(ballast, 'wb', buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            pass

    try:
        _disk_full(robot, 'disk/kitchen', 'No space left on device', fill, ballast.unlink)
    finally:
        subprocess.run(['umount', '-l', place], check=True)


def _limit(robot, size):
    _, hard = resource.prlimit(robot.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(robot.process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def _disk_full(robot, name, words, fill, empty):
    saved = robot.save(name)
    assert saved.success, saved.message
    files = [robot.folder / f'{name}{ending}' for ending in ('.safetensors', '.ply')]
    before = [file.read_bytes() for file in files]
    robot.lives()
    fill()
    try:
        refused = robot.save(name)
        assert not refused.success and words in refused.message and '\n' not in refused.message, (
            refused.message
        )
        message, _ = robot.status('map', lambda message, values: words in message)
        assert (
            message.startswith('the map was not saved: cannot write the map ') and 'is there space' in message
        )
        assert [file.read_bytes() for file in files] == before
        assert {file.name for file in files[0].parent.iterdir()} - {'ballast', 'disk'} == {
            file.name for file in files
        }
        assert robot.load(name).success
        robot.lives()
    finally:
        empty()
    assert robot.save(name).success
    robot.status('map', lambda message, values: words not in message)


def test_ten_hertz_into_a_slow_node_and_no_stale_frame_is_queued(client, diagnostics, start):
    """Half a second a scene, ten pairs a second: each scene is of the newest pair, and when the pairs end so
    do they.
    """
    name, topic = '/s', '/s/gsemsplat/gaussians'
    client.listen(PointCloud2, topic)
    process = start('-r', f'__ns:={name}', '-p', 'weights:=busy', '-p', 'keyframe_min_motion:=0.0')
    process.wait_for('waiting for')
    sent, stamp = [], 7000 * S

    def send():
        nonlocal stamp
        stamp += S // 10
        for where, message in {
            'right/camera_info': camera_info(tx=-6.0, frame='right_optical', stamp_ns=stamp),
            'left/camera_info': camera_info(stamp_ns=stamp),
            'left/image_raw': picture((9, 9, 9), stamp_ns=stamp),
            'right/image_raw': picture((9, 9, 9), frame='right_optical', stamp_ns=stamp),
        }.items():
            client.publish(f'{name}/{where}', message)
        sent.append(stamp)

    end = time.monotonic() + DEADLINE_S
    while len(client.heard[topic]) < 6:
        assert time.monotonic() < end, process.output
        send()
        pause = time.monotonic() + 0.1
        while time.monotonic() < pause:
            client.spin()
    last, seen = stamp, len(client.heard[topic])
    client.until(lambda: client.of(topic, last), 'the scene of the newest pair')
    after = [stamp_ns(cloud.header) for cloud in client.heard[topic][seen:]]
    assert len(after) <= 2 and after[-1] == last, 'the scene in hand, and that of the newest pair'
    assert len(client.heard[topic]) < 0.5 * len(sent)  # the others were dropped
    report = client.next('/diagnostics', lambda m: m.status[0].name.startswith(name + '/'))
    values = {v.key: v.value for v in report.status[0].values}
    assert int(values['dropped because the worker was busy']) >= len(sent) - len(client.heard[topic]) - 10
