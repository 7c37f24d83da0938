"""The real node with the shipped network, as a process: cameras that are dead, messages that are none, and
the end of the process in the middle of a save. What came out is counted; after each fault it makes scenes.
"""

import os
import signal
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import LoadMap, Query, SaveMap
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from support.damaged import damaged
from support.finite_messages import odd_numbers
from support.random_messages import random_image, random_info

from gsemsplat_ros.datasets import demo_pairs
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros.client import node_process
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.player import PARAMETERS, TOPICS, Player, stereo_messages
from gsemsplat_ros.ros.conversions import image_message, make_header
from gsemsplat_ros.ros.qos import LATCHED

pytestmark = pytest.mark.skipif(find_spec('stereodemo') is None, reason='the demo images are missing')

WITHIN_S = 120.0
WIDTH, HEIGHT = 640, 480  # px
MORE_MB = 600  # of memory, after however many malformed messages; 512 are kept on purpose (keep_memory)
GARBAGE_A_SECOND = 300  # so many the executor of rclpy takes, beside a worker that is busy


class Robot:
    """The node, a stereo camera in a room, and somebody who listens to all that goes out."""

    def __init__(self, client, node):
        self.client, self.node, self.odd, self.scenes, self.status = client, node, [], 0, Status()
        create = client.node.create_subscription
        create(PointCloud2, '/gsemsplat/gaussians', self._on_scene, LATCHED)
        create(PointCloud2, '/gsemsplat/map', self._on_cloud, LATCHED)
        create(Status, '/gsemsplat/status', self._on_status, LATCHED)
        self.player = Player(client, lambda: node.alive, node.last_words)
        room = demo_pairs.load_scene('bedroom_chair').pair
        self.room = replace(
            room, first=replace(room.first, frame='left'), second=replace(room.second, frame='left')
        )
        self.player.wait_for_node(stereo_messages(self.room, 10**9))

    def _on_scene(self, cloud):
        self.scenes += 1
        self._on_cloud(cloud)

    def _on_cloud(self, cloud):
        self.odd += odd_numbers(cloud)

    def _on_status(self, status):
        self.status = status

    def until(self, condition, what):
        done = self.client.until(lambda: condition() or not self.node.alive, WITHIN_S)
        assert done and self.node.alive, f'waited in vain for {what}: {self.node.last_words()}'

    def lives(self):
        """A good pair becomes a scene that answers, and nothing that went out was odd."""
        rng = np.random.default_rng(self.status.scenes)
        left = self.room.first.image + rng.normal(scale=1.0, size=self.room.first.image.shape)
        view = View(left.clip(0, 255).astype(np.uint8), self.room.first.camera, 'left')
        received = self.player.play(stereo_messages(Pair(view, self.room.second, self.room.baseline_m), 1))
        assert received.scale_source == 'stereo baseline' and 0.3 < received.scale < 3
        request = Query.Request(text='armchair', threshold=0.4, with_cloud=True)
        reply = self.client.query(request, WITHIN_S)
        assert reply.answer.found and 2 < np.linalg.norm(reply.answer.objects[0].center) < 3, reply.message
        assert not self.odd

    def call(self, kind, name, request):
        future = self.client.node.create_client(kind, f'/gsemsplat/{name}').call_async(request)
        self.until(future.done, name)
        return future.result()


def start(folder, **parameters):
    """The process of the node, in a domain of its own."""
    return node_process.NodeProcess(
        {**PARAMETERS, 'map_directory': str(folder), **parameters}, folder / 'node.log'
    )


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ('ROS_DOMAIN_ID', *node_process.PROFILES):
            patch.setenv(name, '')
            patch.delenv(name)
        folder = tmp_path_factory.mktemp('shipped')
        with start(folder, map_max_gaussians=100_000) as node, Client() as client:
            yield Robot(client, node)
            assert node.alive


# What a camera shows that is covered, dazzled, switched off, or not there.
DEAD = {
    'black': lambda image: np.zeros_like(image),
    'white': lambda image: np.full_like(image, 255),
    'dark': lambda image: (
        (np.random.default_rng(1).normal(scale=1.5, size=image.shape) + 3).clip(0, 255).astype(np.uint8)
    ),
    'covered': lambda image: (cv2.GaussianBlur(image, (0, 0), 60) // 16 + 60).astype(np.uint8),
}


@pytest.mark.parametrize(
    'sides, dead',
    [
        pytest.param(
            sides,
            dead,
            id=f'{name} {dead}',
            marks=[] if (name, dead) == ('right', 'covered') else pytest.mark.heavy,
        )
        for sides, name in (((0,), 'left'), ((1,), 'right'), ((0, 1), 'both'))
        for dead in DEAD
    ],
)
def test_a_dead_camera_makes_no_scene_and_its_reason_is_said(robot, dead, sides):
    robot.lives()
    before, scenes = robot.status, robot.scenes
    images = [
        DEAD[dead](view.image) if side in sides else view.image
        for side, view in enumerate((robot.room.first, robot.room.second))
    ]
    camera = robot.room.first.camera
    pair = Pair(View(images[0], camera, 'left'), View(images[1], camera), robot.room.baseline_m)
    messages = stereo_messages(pair, time.time_ns())
    publishers = robot.player._publishers
    for publisher, message in zip(publishers, messages):
        publisher.publish(message)
    robot.until(lambda: robot.status.refused > before.refused, 'a refusal')
    after = robot.status
    assert after.scenes == before.scenes and robot.scenes == scenes
    assert after.map_scenes == before.map_scenes and after.map_gaussians == before.map_gaussians
    assert after.last_error and '\n' not in after.last_error, after.last_error
    assert 'Traceback' not in robot.node.log.read_text()
    robot.lives()


def garbage(rng, number):
    """(kind, topic, bytes): a serialised message that is wrong in its numbers, in its bytes, or in both."""
    side = int(rng.integers(2))
    if rng.random() < 0.5:
        kind, topic, message = CameraInfo, TOPICS[side], random_info(rng, WIDTH, HEIGHT)
    else:
        kind, topic, message = Image, TOPICS[2 + side], random_image(rng)
        if rng.random() < 0.3:
            picture = rng.integers(0, 256, (48, 64, 3), np.uint8)
            message = image_message(picture, make_header('left', number * 10**7))
    return kind, topic, damaged(rng, serialize_message(message), most=2)


def memory_mb(node):
    lines = Path(f'/proc/{node._process.pid}/status').read_text().splitlines()
    return int(next(line for line in lines if line.startswith('VmRSS')).split()[1]) / 1024


@pytest.mark.timeout(1200)
@pytest.mark.parametrize('count', [600, pytest.param(100_000, marks=pytest.mark.heavy)])
def test_whatever_messages_come_the_node_goes_on(robot, count):
    robot.lives()
    rng, before = np.random.default_rng(41), memory_mb(robot.node)
    heard = sum(topic.count for topic in robot.status.inputs)
    broken = robot.node.log.read_text().count('Fast CDR exception deserializing')
    publishers = dict(zip(TOPICS, robot.player._publishers))
    start, halfway = time.monotonic(), before
    for number in range(count):
        if number == count // 2:
            halfway = memory_mb(robot.node)
        _, topic, data = garbage(rng, number)
        publishers[topic].publish(data)
        while number > (time.monotonic() - start) * GARBAGE_A_SECOND:
            robot.client.until(lambda: False, 0.02)
        assert number % 100 or robot.node.alive, robot.node.last_words()
    robot.lives()
    understood = sum(topic.count for topic in robot.status.inputs) - heard
    broken = robot.node.log.read_text().count('Fast CDR exception deserializing') - broken
    more, later = memory_mb(robot.node) - before, memory_mb(robot.node) - halfway
    print(
        f'{count} sent: {understood} taken in, {broken} could not be decoded, {robot.status.refused} pairs '
        f'refused, {robot.scenes} scenes, all finite, {more:+.0f} MB, '
        f'{later:+.0f} MB of them in the second half'
    )
    assert more < MORE_MB and understood + broken > count / 4


def test_two_who_ask_at_once_and_a_third_who_saves_are_all_answered(robot):
    robot.lives()
    with Client() as other:
        theirs = other.node.create_client(Query, '/query')
        other.until(theirs.service_is_ready, WITHIN_S)
        ours = robot.client.node.create_client(Query, '/query')
        save = robot.client.node.create_client(SaveMap, '/gsemsplat/save_map')
        robot.until(lambda: ours.service_is_ready() and save.service_is_ready(), 'the services')
        words = ('armchair', 'door', 'lamp') * 3
        futures = [
            (text, who.call_async(Query.Request(text=text))) for text in words for who in (ours, theirs)
        ]
        saved = [save.call_async(SaveMap.Request(path=f'room {number}')) for number in range(3)]
        robot.until(
            lambda: (
                other.until(lambda: True, 0)
                and other._executor.spin_once(timeout_sec=0.02) is None
                and all(future.done() for _, future in futures)
                and all(future.done() for future in saved)
            ),
            'all answers',
        )
    for text, future in futures:
        assert future.result().success and future.result().message.startswith(f"'{text}' "), text
    assert all(future.result().success for future in saved)


@pytest.mark.heavy
def test_a_node_that_is_killed_while_it_saves_leaves_a_whole_map(robot, tmp_path):
    """Its successor loads it, and what the killed one left is removed with the next save."""
    place = Path(robot.node.log).parent
    robot.lives()
    assert robot.call(SaveMap, 'save_map', SaveMap.Request(path='kitchen')).success
    for ending in '.safetensors', '.ply':
        (tmp_path / f'kitchen{ending}').write_bytes((place / f'kitchen{ending}').read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('ROS_DOMAIN_ID')
        with start(tmp_path, map_max_gaussians=100_000) as node, Client() as client:
            successor = Robot(client, node)
            assert successor.call(LoadMap, 'load_map', LoadMap.Request(path='kitchen')).success
            save = client.node.create_client(SaveMap, '/gsemsplat/save_map')
            successor.until(save.service_is_ready, 'save_map')
            save.call_async(SaveMap.Request(path='kitchen'))
            client.until(lambda: list(tmp_path.glob('.*.part')), 5.0)
            os.kill(node._process.pid, signal.SIGKILL)
    assert robot.call(LoadMap, 'load_map', LoadMap.Request(path='kitchen')).success
    for ending in '.safetensors', '.ply':
        (place / f'kitchen{ending}').write_bytes((tmp_path / f'kitchen{ending}').read_bytes())
    loaded = robot.call(LoadMap, 'load_map', LoadMap.Request(path='kitchen'))
    assert loaded.success, loaded.message
    robot.lives()
