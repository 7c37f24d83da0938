"""The parts of the node in each lifecycle state, as values that also close them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from gsemsplat_ros.ros.inputs import Input, Subscriptions
from gsemsplat_ros.ros.perception import Perception
from gsemsplat_ros.ros.sources import Source
from gsemsplat_ros.ros.tf_listener import TfListener
from gsemsplat_ros.ros.worker import Worker


@dataclass(frozen=True)
class Configured:
    """Between configure and cleanup. made: its topics and services, closed in reverse order."""

    perception: Perception
    worker: Worker[tuple[Source, Input]]
    made: ExitStack


@dataclass(frozen=True)
class Active:
    """Between activate and deactivate. tf: None without the parameter map_frame; made: its
    subscriptions, closed in reverse order.
    """

    inputs: Subscriptions
    source: Source
    tf: TfListener | None
    made: ExitStack
