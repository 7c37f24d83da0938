"""Thousands of pairs through the real node with the shipped network: memory, threads and files stay what they
were.

`python test/ros/test_soak.py PAIRS FILE` writes what was measured along the way, a line a pair.
"""

import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from gsemsplat_msgs.msg import Relevancy
from gsemsplat_msgs.srv import LoadMap, SaveMap
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from gsemsplat_ros.datasets import demo_pairs as scenes
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros.client import node_process
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.player import PARAMETERS, TOPICS, stereo_messages
from gsemsplat_ros.ros.conversions import make_header, stamp_ns
from gsemsplat_ros.ros.qos import LATCHED

PAIRS = 2000
WARM_UP = 0.15  # of the pairs: the renderer is compiled, caches and the map's budget fill
STAY = 10  # pairs from one place, then the next one
SIZE = 320, 96  # px: wide and low, so that the network has a third of its usual work
# what the process may hold more at the end than after the warm-up: 100 were measured, in steps of 31, which
# is what the codes of a map take; a scene that is kept takes 60
MORE_MB = 150
DEADLINE_S = 120.0
SOAK = {**PARAMETERS, 'map_frame': 'odom', 'map_max_gaussians': 60_000, 'queries': ['chair', 'door', 'plant']}


@dataclass(frozen=True)
class Sample:
    """The node's process after a pair."""

    memory_mb: float
    threads: int
    files: int
    seconds: float


def sample(pid, seconds):
    status = dict(line.split(':', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines())
    return Sample(
        int(status['VmRSS'].split()[0]) * 1024 / 1e6,
        int(status['Threads']),
        len(list(Path(f'/proc/{pid}/fd').iterdir())),
        seconds,
    )


def places():
    """Strips of the packaged rooms: (place, Pair), each picture with a light and a noise of its own."""
    rooms, rng = [scenes.load_scene(name).pair for name in scenes.QUERIES], np.random.default_rng(31)
    for number in itertools.count():
        place = number // STAY % len(rooms)
        room = rooms[place]
        width = room.first.image.shape[1]
        strip = width * SIZE[1] // SIZE[0]
        # one camera, whose principal point is in the middle of the strip
        top, light = int(room.first.camera.cy - strip / 2), rng.uniform(0.7, 1.2)

        def seen(image):
            part = cv2.resize(image[top : top + strip], SIZE, interpolation=cv2.INTER_AREA) * light
            return (part + rng.normal(scale=2.0, size=part.shape)).clip(0, 255).astype(np.uint8)

        camera = room.first.camera.cropped(0, top, width, strip).resized(*SIZE)
        yield (
            place,
            Pair(
                View(seen(room.first.image), camera, scenes.FRAME),
                View(seen(room.second.image), camera, scenes.FRAME),
                room.baseline_m,
            ),
        )


class Soak:
    """A stereo camera that goes round the rooms, and a user who asks, saves and loads."""

    def __init__(self, client, node):
        self._client, self._node, self._cloud, self.answers = client, node, None, 0
        make = client.node.create_publisher
        self._publishers = [
            make(kind, topic, 10) for kind, topic in zip((CameraInfo, CameraInfo, Image, Image), TOPICS)
        ]
        self._tf = make(TFMessage, '/tf', 100)
        self._listening = []
        self.listen_anew()
        client.node.create_subscription(Relevancy, '/gsemsplat/relevancy', self._on_answer, 10)
        self._save = client.node.create_client(SaveMap, '/gsemsplat/save_map')
        self._load = client.node.create_client(LoadMap, '/gsemsplat/load_map')
        self.until(lambda: all(p.get_subscription_count() for p in (*self._publishers, self._tf)), 'the node')

    def listen_anew(self):
        """Subscribers come and go."""
        node = self._client.node
        for subscription in self._listening:
            node.destroy_subscription(subscription)
        self._listening = [
            node.create_subscription(PointCloud2, topic, heard, LATCHED)
            for topic, heard in (
                ('/gsemsplat/gaussians', self._on_cloud),
                ('/gsemsplat/map', lambda message: None),
            )
        ]

    def _on_cloud(self, cloud):
        self._cloud = stamp_ns(cloud.header)

    def _on_answer(self, answer):
        self.answers += 1

    def until(self, condition, what, deadline_s=DEADLINE_S):
        done = self._client.until(lambda: condition() or not self._node.alive, deadline_s)
        assert done and self._node.alive, f'waited in vain for {what}: {self._node.last_words()}'

    def pair(self, place, pair):
        """Until its Gaussians are here; seconds."""
        start, stamp = time.monotonic(), time.time_ns()
        for at in stamp - 10**7, stamp + 10**7:
            self._tf.publish(
                TFMessage(
                    transforms=[
                        TransformStamped(
                            header=make_header('odom', at),
                            child_frame_id=scenes.FRAME,
                            transform=Transform(
                                translation=Vector3(x=8.0 * place), rotation=Quaternion(w=1.0)
                            ),
                        )
                    ]
                )
            )
        while self._cloud != stamp:
            for publisher, message in zip(self._publishers, stereo_messages(pair, stamp)):
                publisher.publish(message)
            self._client.until(lambda: self._cloud == stamp or not self._node.alive, 20.0)
            assert self._node.alive and time.monotonic() < start + DEADLINE_S, self._node.last_words()
        return time.monotonic() - start

    def ask(self, number):
        """A word that may be asked for the first time."""
        words = 'chair', 'lamp', 'door', f'a thing numbered {number}'
        answer, _ = self._client.ask(words[number // 10 % len(words)], DEADLINE_S, with_image=True)
        assert answer.picture is not None

    def keep(self, load):
        """Save the map, and take it back."""
        for client, kind in ((self._save, SaveMap), (self._load, LoadMap))[: 1 + load]:
            future = client.call_async(kind.Request(path='soak'))
            self.until(future.done, 'a service of the map')
            assert future.result().success, future.result().message


def soak(folder, pairs, each=lambda number, sample: None):
    """Play so many pairs; the samples."""
    samples, parameters = [], {**SOAK, 'map_directory': str(folder)}
    with node_process.NodeProcess(parameters, folder / 'node.log') as node, Client() as client:
        robot = Soak(client, node)
        for number, (place, pair) in zip(range(pairs), places()):
            seconds = robot.pair(place, pair)
            if number % 10 == 9:
                robot.ask(number)
            if number % 50 == 49:
                robot.listen_anew()
            if number % 100 == 99:
                robot.keep(load=number % 500 == 499)
            samples.append(sample(node._process.pid, seconds))
            each(number, samples[-1])
        assert robot.answers >= 2.5 * pairs  # of three standing queries
    return samples


def before_and_after(samples):
    """Memory [MB], threads and files: the least of the tenth of the run after the warm-up, and of its last
    tenth. Peaks of the allocator come and go; a leak lifts the floor."""
    tenth, begin = max(1, len(samples) // 10), int(len(samples) * WARM_UP)
    return [
        [min(getattr(s, name) for s in part) for name in ('memory_mb', 'threads', 'files')]
        for part in (samples[begin : begin + tenth], samples[-tenth:])
    ]


@pytest.mark.heavy
@pytest.mark.parametrize('pairs', [PAIRS])
def test_memory_stays_flat_over_thousands_of_pairs(tmp_path, monkeypatch, pairs):
    for name in ('ROS_DOMAIN_ID', *node_process.PROFILES):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    after, end = before_and_after(soak(tmp_path, pairs))
    assert end[0] <= after[0] + MORE_MB, (
        f'{after[0]:.0f} MB after the warm-up, {end[0]:.0f} MB after {pairs} pairs'
    )
    assert end[1:] == after[1:], 'threads and open files'


if __name__ == '__main__':
    with open(sys.argv[2], 'w') as file:

        def write(number, s):
            print(number, f'{s.memory_mb:.1f}', s.threads, s.files, f'{s.seconds:.2f}', file=file, flush=True)

        place = Path(sys.argv[2]).with_suffix('')
        place.mkdir(exist_ok=True)
        print(before_and_after(soak(place, int(sys.argv[1]), write)), file=file)
