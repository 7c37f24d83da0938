"""Plays stereo pairs to the node and collects its results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gsemsplat_msgs.msg import Status
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.clouds import cloud_to_gaussians
from gsemsplat_ros.ros.conversions import image_message, make_header, stamp_ns
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.terminal.console import Failure

READY_WITHIN_S = 120.0  # loading the network on a busy machine
PAIR_WITHIN_S = 120.0
AGAIN_S = 10.0  # a pair that has not arrived for so long is sent again
SIDES = 'left', 'right'
TOPICS = [f'{side}/{name}' for name in ('camera_info', 'image_raw') for side in SIDES]
# For a recording, unlike a camera, every message counts, even on a busy machine: the inputs are reliable.
# Each pair is independent: no map, and a pair is used even if it shows what the last one did.
PARAMETERS = {
    'mode': 'stereo',
    'max_points': 0,
    'map_max_gaussians': 0,
    'keyframe_min_motion': 0.0,
    'qos_overrides': {
        f'/{topic}': {'subscription': {'reliability': 'reliable'}}
        for topic in (*TOPICS, *(f'{side}/image_raw/compressed' for side in SIDES))
    },
}
# in the order of TOPICS
Messages = tuple[CameraInfo, CameraInfo, Image | CompressedImage, Image | CompressedImage]


@dataclass(frozen=True)
class Received:
    """What the node made of a pair. seconds: from the images leaving to the Gaussians arriving; timings:
    stage -> seconds, as the node measured them."""

    gaussians: Gaussians
    seconds: float
    weights: str
    scale_source: str
    scale: float
    timings: dict[str, float]


class Player:
    """A stereo camera for a node with PARAMETERS. `alive`: whether it still runs; `last_words`: what it said
    last; `compressed`: for a node whose image_transport is that. status: the node's newest."""

    def __init__(
        self,
        client: Client,
        alive: Callable[[], bool],
        last_words: Callable[[], str],
        compressed: bool = False,
    ):
        self._client, self._alive, self._last_words = client, alive, last_words
        node, (kind, ending) = client.node, (CompressedImage, '/compressed') if compressed else (Image, '')
        self._publishers = [node.create_publisher(CameraInfo, topic, 10) for topic in TOPICS[:2]]
        self._publishers += [node.create_publisher(kind, topic + ending, 10) for topic in TOPICS[2:]]
        self._cloud: PointCloud2 | None = None
        self._arrived = 0.0
        self.status = Status()
        node.create_subscription(PointCloud2, '/gsemsplat/gaussians', self._on_cloud, LATCHED)
        node.create_subscription(Status, '/gsemsplat/status', self._on_status, LATCHED)

    def _on_cloud(self, cloud: PointCloud2) -> None:
        self._cloud, self._arrived = cloud, time.perf_counter()

    def _on_status(self, status: Status) -> None:
        self.status = status

    def wait_for_node(self, messages: Messages) -> None:
        """Wait until the node answers queries and knows the cameras of `messages`. Raises Failure if not."""
        end, service = time.monotonic() + READY_WITHIN_S, self._client.wait_for_service
        self._until(
            lambda: (
                all(p.get_subscription_count() for p in self._publishers)
                and self._client.node.count_publishers('/gsemsplat/gaussians')
                and self.status.active
                and service('/query', 0)
            ),
            READY_WITHIN_S,
            'the node to be ready',
        )
        while not self._knows_cameras():
            for publisher, info in zip(self._publishers, messages[:2]):
                publisher.publish(info)
            self._client.until(lambda: not self._alive(), 0.5)
            self._check()
            if time.monotonic() > end:
                raise Failure(
                    f'the node heard no camera_info within {READY_WITHIN_S:g} s; it said last: '
                    f'{self._last_words()}'
                )

    def _knows_cameras(self) -> bool:
        return all(topic.count for topic in self.status.inputs if not topic.is_image)

    def play(self, messages: Messages, stamp: int | None = None) -> Received:
        """Send a pair, its left image of `stamp` [ns] (None: now), until its Gaussians arrive. Raises Failure
        if not."""
        stamp, scenes = time.time_ns() if stamp is None else stamp, self.status.scenes
        _restamp(messages, stamp)
        start, end = time.perf_counter(), time.monotonic() + PAIR_WITHIN_S
        while not self._has(stamp):
            if time.monotonic() > end:
                reason = self.status.last_error or 'nothing'
                raise Failure(f'no Gaussians within {PAIR_WITHIN_S:g} s; the node says: {reason}')
            if self._idle:  # else the pair has arrived, and is being built
                for publisher, message in zip(self._publishers, messages):
                    publisher.publish(message)
            self._client.until(lambda: self._has(stamp) or not self._alive(), AGAIN_S)
            self._check()
        seconds = self._arrived - start
        gaussians = cloud_to_gaussians(self._cloud)
        self._until(lambda: self.status.scenes > scenes and self._idle, PAIR_WITHIN_S, "the node's status")
        status = self.status
        timings = {latency.stage: latency.seconds for latency in status.latencies}
        return Received(gaussians, seconds, status.weights, status.scale_source, status.scale, timings)

    @property
    def _idle(self) -> bool:
        """Whether the node has done with all pairs that reached it."""
        status = self.status
        return status.stereo_pairs == status.scenes + status.refused + status.dropped

    def _has(self, stamp: int) -> bool:
        return self._cloud is not None and stamp_ns(self._cloud.header) == stamp

    def _until(self, condition: Callable[[], object], deadline_s: float, what: str) -> None:
        done = self._client.until(lambda: condition() or not self._alive(), deadline_s)
        self._check()
        if not done:
            raise Failure(
                f'waited {deadline_s:g} s in vain for {what}; the node said last: {self._last_words()}'
            )

    def _check(self) -> None:
        if not self._alive():
            raise Failure(f'the node has ended; it said last: {self._last_words()}')


def _restamp(messages: Messages, stamp: int) -> None:
    """Move the stamps so that the left image has this one [ns]; what lies between left and right stays."""
    left, right = (stamp_ns(image.header) for image in messages[2:])
    for message, at in zip(messages, (stamp, stamp + right - left) * 2):
        message.header.stamp = make_header('', at).stamp


def stereo_messages(pair: Pair, stamp: int) -> Messages:
    """The messages of a pair, in the order of TOPICS; stamp [ns]. Raises ValueError without a calibration."""
    header, camera, baseline_m = make_header(pair.first.frame, stamp), pair.first.camera, pair.baseline_m
    if camera is None or baseline_m is None:
        raise ValueError('a pair without camera or baseline cannot be played: give its calibration')
    return (
        camera_info(camera, 0.0, header),
        camera_info(camera, baseline_m, header),
        image_message(pair.first.image, header),
        image_message(pair.second.image, header),
    )


def camera_info(camera: Camera, baseline_m: float, header: Header) -> CameraInfo:
    """Of a rectified camera that stands at +x of the left one by `baseline_m`."""
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, -fx * baseline_m, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
