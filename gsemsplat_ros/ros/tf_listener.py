"""Camera poses from /tf and /tf_static: subscriptions, and look-ups with a bounded wait.

tf2_msgs comes with ROS and is no package of the Python package index: `make setup` builds it from
msg/tf2_msgs. Where it is missing nothing can be heard, and every look-up says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription

from gsemsplat_ros.ros.conversions import quoted
from gsemsplat_ros.ros.qos import overridable
from gsemsplat_ros.ros.tf_buffer import Buffer, make_buffer
from gsemsplat_ros.ros.tf_history import TfHistory

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    TFMessage = None

WAIT_S = 0.2  # the images come before the odometry of their time: how long `map_from` waits for it
NOT_INSTALLED = 'tf2_msgs is not installed (it comes with ROS), so TF is not heard'


class TfListener:
    """Listens to TF and answers where a frame stood. `map_frame`: the frame that `map_from` answers in.

    messages: how many were heard. reason: why the last `map_from` had no answer, or ''.
    """

    def __init__(
        self,
        node: Node,
        map_frame: str,
        warn: Callable[[str], None],
        make_buffer: Callable[[], Buffer] = make_buffer,
    ):
        self.map_frame, self._node, self._warn = map_frame, node, warn
        self.messages, self.reason = 0, ''
        self._history = TfHistory(make_buffer)
        self._changed = threading.Condition()
        self._closed = TFMessage is None
        self._subscriptions: list[Subscription] = []
        if TFMessage is None:
            warn(f"map_frame is '{map_frame}', but {NOT_INSTALLED}: going on without")
            return
        group = MutuallyExclusiveCallbackGroup()
        for topic, static, durability in (
            ('/tf', False, DurabilityPolicy.VOLATILE),
            ('/tf_static', True, DurabilityPolicy.TRANSIENT_LOCAL),
        ):
            self._subscriptions.append(
                node.create_subscription(
                    TFMessage,
                    topic,
                    partial(self._on_message, static),
                    QoSProfile(depth=100, durability=durability),
                    callback_group=group,
                    qos_overriding_options=overridable(),
                )
            )

    def _on_message(self, static: bool, message: TFMessage) -> None:
        self.add(message.transforms, static)

    def add(self, transforms: list[TransformStamped], static: bool) -> None:
        """Take in the transforms of one message; those that are none are named and left out."""
        with self._changed:
            self.messages += 1
            for message in transforms:
                try:
                    self._history.add(message, static)
                except ValueError as error:
                    self._warn(str(error))
            if self._history.rivals:
                self._warn(f'TF: {self._history.rivals}: stop one of them, or synchronise their clocks')
            self._changed.notify_all()

    def clear(self) -> None:
        """The ROS clock jumped back: forget what moves, as tf2 does."""
        with self._changed:
            self._history.clear()

    @property
    def complaint(self) -> str:
        """What is wrong with TF, in words, or ''."""
        return '; '.join(filter(None, (self.reason, self._history.rivals)))

    def lookup(
        self, target_frame: str, source_frame: str, stamp_ns: int, timeout_s: float = 0.0
    ) -> tuple[np.ndarray | None, str]:
        """target_from_source (4, 4) at this time (0: the newest) and ''; or None and the reason.

        Waits for TF to come up to that time, for at most `timeout_s`, or until `close`.
        """
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                try:
                    return self._history.lookup(
                        target_frame.lstrip('/'), source_frame.lstrip('/'), stamp_ns
                    ), ''
                except LookupError as error:
                    reason = str(error)
                left_s = end - time.monotonic()
                if left_s <= 0 or self._closed:
                    return None, reason if TFMessage else NOT_INSTALLED
                self._changed.wait(left_s)

    def map_from(self, frame: str, stamp_ns: int) -> np.ndarray | None:
        """map_from_frame (4, 4) at this time; None if not known within WAIT_S: see `reason`."""
        pose, self.reason = self.lookup(self.map_frame, frame, stamp_ns, WAIT_S if self.messages else 0.0)
        if pose is None:
            self._warn(f"no place of {quoted(frame)} in map_frame '{self.map_frame}' is known: {self.reason}")
        return pose

    def close(self) -> None:
        """Unsubscribe, and end a look-up that waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
