"""The worker with the shipped network, whatever the cameras send and whatever fails in it: what goes out is
finite, and after each wrong input a good one becomes a scene that answers.

Seeded: a failure says which case it was. Without topics; test_node_fuzz.py is about the process.
"""

import threading
from importlib.util import find_spec
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from gsemsplat_msgs.srv import Query
from support.finite_messages import odd_numbers
from support.random_messages import random_image, random_info

from gsemsplat_ros.datasets import demo_pairs
from gsemsplat_ros.ros.client.player import camera_info
from gsemsplat_ros.ros.conversions import image_message, make_header
from gsemsplat_ros.ros.inputs import Input
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.perception import Perception
from gsemsplat_ros.ros.publishers import Results
from gsemsplat_ros.ros.sources import make_source
from gsemsplat_ros.ros.worker import Worker

pytestmark = pytest.mark.skipif(find_spec('stereodemo') is None, reason='the demo images are missing')

WITHIN_S = 60.0
WIDTH, HEIGHT, BASELINE_M = 160, 120, 0.075
ROOMS = 'bedroom_chair', 'desk', 'living_room'


class Panic(BaseException):
    """As pyo3 raises it."""


FAULTS = [cv2.error('a C++ exception'), MemoryError(), KeyError('k'), RuntimeError(), Panic(), SystemExit(3)]


class Wire:
    """In the place of the node: its publishers keep what is odd about the messages."""

    def __init__(self):
        self.odd, self.count = [], 0

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0))

    def create_lifecycle_publisher(self, kind, topic, *arguments, **more):
        def publish(message):
            self.count += 1
            self.odd += [f'{topic} {odd}' for odd in odd_numbers(message)]

        return SimpleNamespace(
            publish=publish,
            is_activated=True,
            topic_name=topic,
            get_subscription_count=lambda: 1,
            on_activate=lambda state: None,
            on_deactivate=lambda state: None,
        )

    def get_subscriptions_info_by_topic(self, topic):
        return []

    create_publisher = create_lifecycle_publisher

    def destroy_publisher(self, publisher):
        pass

    destroy_lifecycle_publisher = destroy_publisher


class Rig:
    """A stereo camera that is carried through rooms, and the worker behind it."""

    def __init__(self, pipeline, folder):
        self.wire, self.said, self.fault = Wire(), [], None
        self.parameters = Parameters(
            map_directory=str(folder), keyframe_min_motion=0.0, queries=('chair', 'a thing that nobody knows')
        )
        real = pipeline.build

        def build(pair):
            if self.fault is not None:
                raise self.fault
            return real(pair)

        self.pipeline = SimpleNamespace(
            **{name: getattr(pipeline, name) for name in ('query', 'index', 'code_space')}, build=build
        )
        results = Results(self.wire, self.said.append)
        keeper = MapKeeper(self.parameters, pipeline.code_space)
        self.perception = Perception(
            self.pipeline,
            keeper,
            results,
            lambda: self.parameters,
            self.said.append,
            lambda: None,
            lambda: self.pipeline,
        )
        self.results = results
        self.source = make_source(
            self.parameters, [('/left', '/left_info'), ('/right', '/right_info')], self.said.append
        )
        self._ended = threading.Semaphore(0)
        self.worker = Worker(self._work, self._failed)
        self.stamp = 0

    def _work(self, task):
        self.perception.build(task)
        self._ended.release()

    def _failed(self, error):
        self.perception.refuse(error)
        self._ended.release()

    @property
    def now(self):
        return self.perception.latest.now

    def give(self, images, infos):
        """Until the worker has taken them in; whether they became a scene."""
        before = self.now.scenes
        self.worker.mailbox.put((self.source, Input(tuple(images), tuple(infos))))
        assert self._ended.acquire(timeout=WITHIN_S), 'the worker is dead'
        self.worker.mailbox.request(self.results.serve)
        return self.now.scenes > before

    def pair(self, rng):
        """Images and camera_infos of a room, as they should be."""
        self.stamp += 10**9
        room = demo_pairs.load_scene(str(rng.choice(ROOMS))).pair
        camera = room.first.camera.resized(WIDTH, HEIGHT)
        header = make_header('left', self.stamp)
        images = []
        for view in room.first, room.second:
            pixels = cv2.resize(view.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            noisy = pixels + rng.normal(scale=1.0, size=pixels.shape)
            images.append(image_message(noisy.clip(0, 255).astype(np.uint8), header))
        return images, [camera_info(camera, 0.0, header), camera_info(camera, room.baseline_m, header)]

    def ask(self, text):
        response = Query.Response()
        request = Query.Request(text=text, with_cloud=True, with_image=True)
        self.perception.answer(self.now, request, response, None)
        return response


def constant(value):
    return lambda image, rng: np.full_like(image, value)


PICTURES = [  # what a camera may show instead
    constant(0),
    constant(255),
    constant(90),
    lambda image, rng: rng.integers(0, 256, image.shape, np.uint8),
    lambda image, rng: (rng.normal(scale=3, size=image.shape) + 4).clip(0, 255).astype(np.uint8),
    lambda image, rng: np.where(np.arange(image.shape[1])[:, None] < 90, 0, image).astype(np.uint8),
    lambda image, rng: np.ascontiguousarray(image[::-1]),
    lambda image, rng: np.roll(image, int(rng.integers(3, 40)), axis=int(rng.integers(2))),
]


def spoil(rng, images, infos):
    """Make one or two things of a good pair wrong."""
    for _ in range(rng.integers(1, 3)):
        side = int(rng.integers(2))
        match rng.integers(6):
            case 0:
                images[side] = random_image(rng)
            case 1:
                infos[side] = random_info(rng, WIDTH, HEIGHT)
            case 2:
                camera = infos[side]
                for field, places in (('p', (0, 2, 3, 5, 6)), ('k', (0, 2, 4, 5))):
                    values = list(getattr(camera, field))
                    values[int(rng.choice(places))] *= float(
                        rng.choice([1e-6, 0.01, 0.5, 1.5, 3, 1e3, 1e9, -1])
                    )
                    setattr(camera, field, values)
            case 3:
                shift = float(rng.choice([-1, 1]) * rng.integers(0, 3 * WIDTH))
                infos[side].p[2] += shift
            case 4:
                images.reverse()
            case 5:
                pixels = np.frombuffer(images[side].data, np.uint8)
                if pixels.size == 3 * WIDTH * HEIGHT:
                    show = PICTURES[rng.integers(len(PICTURES))]
                    pixels = show(pixels.reshape(HEIGHT, WIDTH, 3), rng)
                    images[side] = image_message(pixels, images[side].header)
    return images, infos


@pytest.fixture(scope='module')
def shipped():
    from gsemsplat_ros.pipeline import Pipeline

    return Pipeline.load(device='cpu')


@pytest.mark.parametrize('cases', [15, pytest.param(40, marks=pytest.mark.heavy)])
def test_after_every_wrong_input_a_good_one_becomes_a_scene(shipped, tmp_path, cases):
    rng, rig = np.random.default_rng(21), Rig(shipped, tmp_path)
    refused = scenes = 0
    try:
        for case in range(cases):
            images, infos = spoil(rng, *rig.pair(rng))
            if case % 10 == 5:
                rig.fault = FAULTS[case // 10 % len(FAULTS)]
                (images, infos) = rig.pair(rng)
            became = rig.give(images, infos)
            assert not (became and rig.fault), case
            if not became:
                words = rig.now.last_error
                assert words and (rig.fault or ('\n' not in words and len(words) < 1500)), (case, words)
            scenes, refused = scenes + became, refused + (not became)
            faults = [line for line in rig.said if 'File "' in line]
            assert not faults or rig.fault, (case, faults[0])
            rig.said.clear()
            rig.fault = None
            if case % 5 == 4:
                assert rig.give(*rig.pair(rng)), (case, rig.now.last_error)
                response = rig.ask(str(rng.choice(['chair', 'table', 'door'])))
                assert response.success, response.message
                assert not odd_numbers(response), (case, odd_numbers(response))
            assert not rig.wire.odd, (case, rig.wire.odd)
            rig.said.clear()
    finally:
        assert rig.worker.stop(WITHIN_S)
    assert refused > cases / 4 and scenes and rig.wire.count > 2 * cases
