"""Inputs of every kind as a robot sends them: compressed, raw, with TF, one camera gone, the clock set
back.
"""

import itertools
import re
import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, PointCloud2
from std_msgs.msg import Float32
from std_srvs.srv import Trigger
from support.node_process import DEADLINE_S
from support.pictures import clouds
from support.ros_client import EVERY_PAIR
from support.ros_messages import LEFT, RIGHT, camera_info, picture, table

from gsemsplat_ros.ros.conversions import image_message, image_to_rgb, make_header, stamp_ns

S = 10**9
TEXTURE = clouds(960, 480)


class Robot:
    """Talks to the node of one namespace: messages out, its scenes and diagnostics in."""

    def __init__(self, client, name, process):
        self.client, self.name, self.process = client, name, process
        client.listen(PointCloud2, f'{name}/gsemsplat/gaussians')
        client.listen(Float32, f'{name}/gsemsplat/scale')

    def send(self, **messages):
        """Topics with __ for /."""
        for topic, message in messages.items():
            self.client.publish(f'{self.name}/' + topic.replace('__', '/'), message)

    def scene(self, send, stamps):
        """send(stamp) until a cloud of one of the stamps is here: the points of it."""
        for stamp in stamps:
            send(stamp)
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                self.client.spin()
                if found := self.client.of(f'{self.name}/gsemsplat/gaussians', stamp):
                    return table(found[0])
        raise AssertionError('no cloud:\n' + self.process.output[-3000:])

    def status(self, part, condition=lambda status: True, meanwhile=lambda: None):
        """The next diagnostic status of this node and part that fulfils `condition`, and its values as a
        dictionary; `meanwhile()` is called ten times a second."""
        reports = self.client.heard['/diagnostics']
        seen, end = len(reports), time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            meanwhile()
            pause = time.monotonic() + 0.1
            while time.monotonic() < pause:
                self.client.spin()
            for status in (s for report in reports[seen:] for s in report.status):
                if status.name == f'{self.name}/gsemsplat: {part}' and condition(status):
                    return status, {v.key: v.value for v in status.values}
        raise AssertionError(f'no such status in {reports[-2:]}')


@pytest.fixture(scope='module')
def robots(client, start):
    client.listen(DiagnosticArray, '/diagnostics', 10)
    started = {
        '/jpeg': start('-r', '__ns:=/jpeg', *EVERY_PAIR, '-p', 'image_transport:=compressed'),
        '/raw': start('-r', '__ns:=/raw', *EVERY_PAIR, '-p', 'rectified:=false', '-p', 'use_sim_time:=true'),
        '/still': start('-r', '__ns:=/still'),
        '/odo': start(
            '-r', '__ns:=/odo', '-p', 'mode:=sequential', '-p', 'use_sim_time:=true', '-p', 'map_frame:=odom'
        ),
    }
    for process in started.values():
        process.wait_for('waiting for')
    yield {name: Robot(client, name, process) for name, process in started.items()}
    for process in started.values():
        assert 'Traceback' not in process.output, process.output[-3000:]


def counting(seconds, step=0.5):
    """Stamps [ns] from there on."""
    return range(round(seconds * S), round((seconds + 30 * step) * S), round(step * S))


# Compressed


def png(color, frame, stamp, damage=b''):
    pixels = image_to_rgb(picture(color))[..., ::-1]
    message = CompressedImage(header=make_header(frame, stamp), format='bgr8; png compressed bgr8')
    message.data = cv2.imencode('.png', pixels)[1].tobytes()[: 20 if damage else None] + damage
    return message


def send_compressed(robot, stamp, damage=b''):
    robot.send(
        left__camera_info=camera_info(stamp_ns=stamp),
        right__camera_info=camera_info(tx=-6.0, frame='right_optical', stamp_ns=stamp),
        left__image_raw__compressed=png(LEFT, 'left_optical', stamp, damage),
        right__image_raw__compressed=png(RIGHT, 'right_optical', stamp),
    )


def test_compressed_stereo_becomes_a_scene(robots):
    robot = robots['/jpeg']
    points = robot.scene(lambda stamp: send_compressed(robot, stamp), counting(100))
    packed = np.ascontiguousarray(points['rgb']).view('<u4')
    assert [int(packed[0]), int(packed[1])] == [200 << 16 | 100 << 8 | 50, 10 << 16 | 20 << 8 | 30]
    assert points['z'][0] == pytest.approx(0.12) and points['x'][0] == 50
    assert 'waiting for /jpeg/left/image_raw/compressed, /jpeg/left/camera_info' in robot.process.output


def test_a_damaged_compressed_image_is_named_and_the_node_lives_on(robots):
    robot = robots['/jpeg']
    stamps = itertools.count(200 * S, S // 10)
    status, values = robot.status(
        'scene',
        lambda s: 'damaged' in s.message,
        lambda: send_compressed(robot, next(stamps), damage=b'garbage'),
    )
    robot.process.wait_for('/jpeg/left/image_raw/compressed: compressed image of 27 bytes')
    assert status.level == b'\x01' and int(values['refused inputs']) >= 1
    robot.scene(lambda stamp: send_compressed(robot, stamp), counting(300))


# Raw stereo, and what goes wrong with cameras

BENT = (-0.2, 0.02, 0.0, 0.0, 0.0)


def send_raw(robot, stamp, left=True, right=True, info_frame='left_optical'):
    if left:
        robot.send(
            left__camera_info=camera_info(stamp_ns=stamp, d=BENT, frame=info_frame),
            left__image_raw=picture(LEFT, stamp_ns=stamp),
        )
    if right:
        robot.send(
            right__camera_info=camera_info(tx=-6.0, frame='right_optical', stamp_ns=stamp, d=BENT),
            right__image_raw=picture(RIGHT, frame='right_optical', stamp_ns=stamp),
        )


def test_raw_stereo_is_rectified_and_becomes_a_scene(robots):
    robot = robots['/raw']
    robot.scene(lambda stamp: send_raw(robot, stamp), counting(1000))
    stamps = itertools.count(1050 * S, S // 10)
    status, values = robot.status(
        'inputs', lambda s: s.level == b'\x00', lambda: send_raw(robot, next(stamps))
    )
    assert status.message == 'receiving' and values['skew of the last pair [ms]'] == '0'
    assert 'has a distortion and rectified is true' not in robot.process.output


def test_a_camera_that_falls_silent_is_named_and_taken_up_again(robots):
    robot = robots['/raw']
    robot.scene(lambda stamp: send_raw(robot, stamp), counting(1100))

    stamps = itertools.count(1200 * S, S // 10)
    status, values = robot.status(
        'inputs',
        lambda s: s.message.startswith('late: /raw/right/image_raw ('),
        lambda: send_raw(robot, next(stamps), right=False),
    )
    assert 'late: /raw/left' not in status.message
    assert status.level == b'\x01' and float(values['/raw/right/image_raw age [s]']) > 2
    robot.scene(lambda stamp: send_raw(robot, stamp), counting(10**7))


def test_stamps_that_stopped_matching_are_reported(robots):
    robot = robots['/raw']
    robot.scene(lambda stamp: send_raw(robot, stamp), counting(2 * 10**7))
    stamps = itertools.count(3 * 10**7 * S, S // 5)

    def apart():
        send_raw(robot, stamp := next(stamps), right=False)
        send_raw(robot, stamp + S // 20, left=False)

    status, _ = robot.status('inputs', lambda s: 'do not match' in s.message, apart)
    assert 'sync_slop_s allows 20 ms' in status.message and status.level == b'\x01'


def test_a_camera_info_of_another_frame_is_reported_while_it_lasts(robots):
    robot = robots['/raw']
    robot.scene(lambda stamp: send_raw(robot, stamp, info_frame='lidar'), counting(4 * 10**7))
    status, _ = robot.status('inputs', lambda s: 'lidar' in s.message)
    assert status.level == b'\x01' and "'left_optical'" in status.message
    stamps = itertools.count(5 * 10**7 * S, S // 10)
    robot.status('inputs', lambda s: s.level == b'\x00', lambda: send_raw(robot, next(stamps)))


def test_stereo_goes_on_when_a_bag_starts_again_and_the_clock_with_it(robots):
    robot = robots['/raw']

    def send(stamp):
        robot.client.publish('/clock', Clock(clock=make_header('', stamp).stamp))
        send_raw(robot, stamp)

    for start_s in 6 * 10**7, 500, 500, 10:
        robot.client.heard['/raw/gsemsplat/gaussians'].clear()
        robot.scene(send, stamps := counting(start_s))
        reports = robot.client.heard['/diagnostics']
        seen = len(reports)

        def followed():  # use_sim_time; a report from before the jump may still be on its way
            robot.client.publish('/clock', Clock(clock=make_header('', stamps[-1]).stamp))
            return any(
                m.status[0].name.startswith('/raw/') and stamps[0] <= stamp_ns(m.header) <= stamps[-1]
                for m in reports[seen:]
            )

        robot.client.until(followed, 'a report of the new time')


@pytest.mark.parametrize('step_s', [-0.1, -2.0])
def test_stamps_that_run_backwards_stop_nothing(robots, step_s):
    robot = robots['/raw']
    for i in range(30):
        send_raw(robot, round((7 * 10**7 + i * step_s) * S))
        robot.client.spin()
    robot.client.heard['/raw/gsemsplat/gaussians'].clear()
    robot.scene(lambda stamp: send_raw(robot, stamp), counting(7 * 10**7 + 100))


def test_cameras_that_were_restarted_are_heard_again(robots):
    robot = robots['/raw']
    robot.scene(lambda stamp: send_raw(robot, stamp), counting(8 * 10**7))
    robot.client.leave('/raw/')
    robot.scene(lambda stamp: send_raw(robot, stamp), counting(100))  # of a computer that has just started


def test_memory_and_models_stand_in_the_diagnostics(robots):
    _, values = robots['/raw'].status('scene')
    assert 50 < int(values['memory [MB]']) < 4000
    assert int(values['peak memory [MB]']) >= 0.8 * int(values['memory [MB]'])
    assert values['weights'] == 'fake' and values['text encoder'] == 'fake text'


# A stereo camera that stands


def test_a_standing_stereo_robot_computes_nothing_new_until_something_moves(robots):
    robot, room = robots['/still'], clouds(160, 120)
    moved = room.copy()
    moved[40:80, 60:90] = (250, 250, 20)

    def send(stamp, image=room):
        robot.send(
            left__camera_info=camera_info(stamp_ns=stamp, width=160, height=120),
            right__camera_info=camera_info(
                tx=-6.0, frame='right_optical', stamp_ns=stamp, width=160, height=120
            ),
            left__image_raw=image_message(image, make_header('left_optical', stamp)),
            right__image_raw=image_message(image, make_header('right_optical', stamp)),
        )

    robot.scene(send, counting(100))  # the first one
    clouds_of, stamps = robot.client.heard['/still/gsemsplat/gaussians'], itertools.count(200 * S, S // 10)
    _, values = robot.status(
        'inputs',
        lambda s: any(v.value == 'the image stands still' for v in s.values),
        lambda: send(next(stamps)),
    )
    assert float(values['motion since the last scene [fraction of the width]']) < 0.005
    before = len(clouds_of)
    _, values = robot.status(
        'inputs',
        lambda s: any(
            v.key == 'stereo pairs that showed nothing new' and int(v.value) > 15 for v in s.values
        ),
        lambda: send(next(stamps)),
    )
    assert len(clouds_of) == before and values['changed since the last scene [fraction]'] == '0'
    robot.scene(lambda stamp: send(stamp, moved), [next(stamps) for _ in range(20)])
    after = len(clouds_of)
    _, values = robot.status(
        'inputs',
        lambda s: any(v.value == 'the image stands still' for v in s.values),
        lambda: send(next(stamps), moved),
    )
    assert len(clouds_of) == after  # it stays there: nothing new
    cleared = robot.client.call(Trigger, '/still/gsemsplat/clear_map', Trigger.Request())
    assert cleared.success
    robot.scene(
        lambda stamp: send(stamp, moved), [next(stamps) for _ in range(20)]
    )  # what it sees belongs into the map


# One camera that moves, with TF


class Drive:
    """A robot at `metres` a picture (6 % of the image) along x; odometry comes with the pictures."""

    def __init__(self, robot, tf=True, metres=0.4):
        self.robot, self.x, self.tf, self.metres = robot, 0, tf, metres
        if tf:
            tf2_msgs = pytest.importorskip('tf2_msgs.msg', reason='tf2_msgs comes with a ROS distribution')
            from support.ros_messages import START
            from support.ros_messages import tf as transform

            self._message, self._start, self._transform = tf2_msgs.TFMessage, START, transform
            node = robot.client.node
            self._tf = node.create_publisher(tf2_msgs.TFMessage, '/tf', 100)
            self._static = node.create_publisher(
                tf2_msgs.TFMessage,
                '/tf_static',
                QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
            )
            robot.client.until(self._tf.get_subscription_count, 'the subscription of /tf')
            self._static.publish(self._message(transforms=[transform('base', 'head', 0, (0, 0, 1))]))

    def odometry(self, stamp):
        seconds, metres = (stamp - self._start) / S, self.x / 20 * self.metres
        self._tf.publish(self._message(transforms=[self._transform('odom', 'base', seconds, (metres, 0, 0))]))

    def send(self, stamp, step=20, odometry=True):
        """The picture, and the odometry just before and after it."""
        self.x = (self.x + step) % 300
        if odometry and self.tf:
            self.odometry(stamp - S // 100)
        self.robot.send(
            image=image_message(
                np.ascontiguousarray(TEXTURE[:, self.x : self.x + 320]), make_header('head', stamp)
            )
        )
        if odometry and self.tf:
            self.odometry(stamp + S // 100)


def test_scale_and_place_come_from_tf(robots):
    robot = robots['/odo']
    drive = Drive(robot)
    robot.client.heard['/odo/gsemsplat/scale'].clear()
    points = robot.scene(drive.send, counting(2000))
    points = robot.scene(drive.send, counting(2100, 0.1))
    np.testing.assert_allclose(
        [points[c][1] for c in 'xyz'], [drive.x / 20 * 0.4, 0, 1], atol=1e-6
    )  # in odom
    _, values = robot.status('scene', lambda s: any(v.value == 'tf' for v in s.values))
    assert float(values['scale']) == pytest.approx(
        0.4, abs=0.01
    )  # metres between the two pictures, says the fake
    status, values = robot.status('transforms', lambda s: s.level == b'\x00')
    assert (status.message, values['map frame']) == ('receiving', 'odom') and int(values['TF messages']) > 4


def test_without_odometry_the_scale_is_the_networks_and_the_reason_is_said(robots):
    robot = robots['/odo']
    drive = Drive(robot)
    robot.scene(drive.send, counting(3000))
    robot.scene(lambda stamp: drive.send(stamp, odometry=False), counting(3100, 0.1))
    status, _ = robot.status('transforms', lambda s: s.level == b'\x01')
    words = status.message  # of the plain twin, or of tf2
    assert re.search(
        "frame 'base' under 'odom'.* wanted at 3100|extrapolation into the future.* 3100", words
    ), words
    _, values = robot.status('scene', lambda s: any(v.value == 'network' for v in s.values))
    assert values['scale'] == '0.5'
    robot.process.wait_for("no place of 'head' in map_frame 'odom' is known")


def test_odometry_that_gives_no_scale_is_said(robots):
    """Wheels that stand still while the images move."""
    robot = robots['/odo']
    drive = Drive(robot, metres=0.0)
    robot.scene(drive.send, counting(3500))
    robot.scene(drive.send, counting(3600, 0.1))
    robot.process.wait_for('TF and visual motion disagree')


def test_a_standing_robot_computes_nothing_new(robots):
    robot = robots['/odo']
    drive = Drive(robot, tf=False)
    robot.scene(drive.send, counting(4000))
    count = len(robot.client.heard['/odo/gsemsplat/gaussians'])
    stamps = itertools.count(4100 * S, S // 10)
    _, values = robot.status(
        'inputs',
        lambda s: any(v.value == 'the image stands still' for v in s.values),
        lambda: drive.send(next(stamps), step=0),
    )
    assert float(values['motion since the keyframe [fraction of the width]']) < 0.01
    assert float(values['overlap with the keyframe [fraction]']) > 0.9
    scenes = int(robot.status('scene')[1]['scenes'])
    for _ in range(20):
        drive.send(next(stamps), step=0)
        robot.client.spin()
    assert int(robot.status('scene')[1]['scenes']) == scenes
    assert len(robot.client.heard['/odo/gsemsplat/gaussians']) == count
    robot.scene(drive.send, [next(stamps) for _ in range(20)])  # and moves on


def test_one_camera_and_tf_go_on_when_a_bag_starts_again(robots):
    robot = robots['/odo']
    drive = Drive(robot)
    for start_s in 6000, 5000, 5000:
        robot.client.heard['/odo/gsemsplat/gaussians'].clear()
        robot.scene(drive.send, counting(start_s))
        points = robot.scene(drive.send, counting(start_s + 100, 0.1))
        np.testing.assert_allclose([points[c][1] for c in 'xyz'], [drive.x / 20 * 0.4, 0, 1], atol=1e-6)
