"""Subscriptions of the inputs: they only store messages and hand them on, in the executor."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gsemsplat_ros.ros.conversions import stamp_ns
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.qos import overridable
from gsemsplat_ros.ros.synchronize import StereoSync

TOPICS = {
    'stereo': (('left/image_raw', 'left/camera_info'), ('right/image_raw', 'right/camera_info')),
    'sequential': (('image', 'camera_info'),),
}

LATELY_S = 10.0
MIN_INFOS = 20  # fewer say nothing
MIN_ARRIVED = 0.75  # images a camera_info: right transports bring 99 of 100, wrong ones 20 to 68
JUMP_AHEAD_S = 10.0  # of a clock that was set, not of a bag that is played fast


def input_topics(node: Node, parameters: Parameters) -> list[tuple[str, str]]:
    """Resolved image and camera_info topic of each camera; a remapped image keeps its transport."""
    ending = '/compressed' if parameters.image_transport == 'compressed' else ''
    return [
        (node.resolve_topic_name(image) + ending, node.resolve_topic_name(info))
        for image, info in TOPICS[parameters.mode]
    ]


@dataclass(frozen=True)
class Input:
    """Raw messages of one moment: an image from each camera, and its newest camera_info (None: none yet)."""

    images: tuple[Image | CompressedImage, ...]
    infos: tuple[CameraInfo | None, ...]


class Heard:
    """A subscribed topic: resolved name, count, monotonic time of the last message [s] (None: none yet).

    times: monotonic, of the messages of the last LATELY_S [s].
    jumps: how often its stamps went back, or ahead by JUMP_AHEAD_S more than the time that passed; jumped:
    the last such step in words, at the monotonic time jumped_s.
    """

    def __init__(self, topic: str, is_image: bool, required: bool):
        self.topic, self.is_image, self.required = topic, is_image, required
        self.count, self.jumps, self.jumped, self.jumped_s = 0, 0, '', float('-inf')
        self.last_s: float | None = None
        self.times: deque[float] = deque()
        self._stamp_ns = 0

    def now(self, stamp: int) -> None:
        """A message with this stamp [ns] came."""
        now = time.monotonic()
        if self.last_s is not None:
            step = (stamp - self._stamp_ns) / 1e9
            if step < 0 or step - (now - self.last_s) > JUMP_AHEAD_S:
                self.jumps, self.jumped_s = self.jumps + 1, now
                self.jumped = f'went back by {-step:.3g} s' if step < 0 else f'jumped ahead by {step:.3g} s'
        self.count, self.last_s, self._stamp_ns = self.count + 1, now, stamp
        self.times.append(now)
        while self.times[0] < now - LATELY_S:
            self.times.popleft()


def lost(image: Heard, info: Heard) -> str:
    """The complaint that far fewer images than camera_infos come, which a driver sends together; or ''."""
    since = time.monotonic() - LATELY_S
    images, infos = (sum(at >= since for at in tuple(topic.times)) for topic in (image, info))
    if not images or infos < MIN_INFOS or images >= MIN_ARRIVED * infos:
        return ''
    return (
        f'{images} images on {image.topic} to {infos} camera_infos in {LATELY_S:g} s: large messages are '
        "lost on the way; start the driver of the camera with this package's fastdds_large_messages.xml "
        '(docs/cameras.md)'
    )


class Subscriptions:
    """The input topics of one mode; calls `deliver(Input)` for each image or synchronised stereo pair."""

    def __init__(self, node: Node, parameters: Parameters, deliver: Callable[[Input], None]):
        self._node, self._deliver = node, deliver
        self._infos: list[CameraInfo | None] = [None] * len(TOPICS[parameters.mode])
        stereo = parameters.mode == 'stereo'
        self.sync = StereoSync(parameters.sync_slop_s, self._hand_on) if stereo else None
        self.heard: list[Heard] = []
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions: list[Subscription] = []
        compressed = parameters.image_transport == 'compressed'
        for side, (image, info) in enumerate(input_topics(node, parameters)):
            # rclpy remaps the names that it is given, not resolved ones
            image_name, info_name = TOPICS[parameters.mode][side]
            self._subscribe(
                CompressedImage if compressed else Image,
                image if compressed else image_name,
                Heard(image, is_image=True, required=True),
                partial(self._on_image, side),
                group,
            )
            self._subscribe(
                CameraInfo,
                info_name,
                Heard(info, is_image=False, required=stereo),
                partial(self._on_info, side),
                group,
            )

    def _subscribe(
        self,
        kind: type,
        topic: str,
        heard: Heard,
        callback: Callable[[Any], None],
        group: MutuallyExclusiveCallbackGroup,
    ) -> None:
        def received(message: Any) -> None:
            heard.now(stamp_ns(message.header))
            callback(message)

        self.heard.append(heard)
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                received,
                copy(qos_profile_sensor_data),  # rclpy writes overrides into the profile it is given
                callback_group=group,
                qos_overriding_options=overridable(),
            )
        )

    def _on_image(self, side: int, message: Image | CompressedImage) -> None:
        if self.sync:
            self.sync.add(side, message)
        else:
            self._hand_on(message)

    def _on_info(self, side: int, message: CameraInfo) -> None:
        self._infos[side] = message

    def _hand_on(self, *images: Image | CompressedImage) -> None:
        self._deliver(Input(images, tuple(self._infos)))

    @property
    def complaints(self) -> list[str]:
        """What is doubtful about what arrives."""
        cameras = zip(self.heard[::2], self.heard[1::2])  # image and camera_info of each
        return [complaint for image, info in cameras if (complaint := lost(image, info))]

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
