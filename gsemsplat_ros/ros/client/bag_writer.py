"""Writes messages to an MCAP file that `ros2 bag play` and `gsemsplat demo --bag` read."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rclpy.serialization import serialize_message

from gsemsplat_ros.terminal.console import Failure

TYPES = 'ROS2_JAZZY'  # whose definitions of the messages go into the file


class BagWriter:
    """An MCAP file that is written in a `with`; it is there once all went well."""

    def __init__(self, path: Path):
        """Raises Failure where the package rosbags is missing."""
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise Failure('a bag is written by the package rosbags: pip install rosbags==0.11.9') from None
        self.path = path
        self._types = get_typestore(Stores[TYPES])
        self._folder = TemporaryDirectory(prefix='.bag-', dir=path.parent)
        self._inside = Path(self._folder.name) / path.stem
        self._writer = Writer(self._inside, version=9, storage_plugin=StoragePlugin.MCAP)
        self._topics: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def write(self, topic: str, message: Any, stamp_ns: int, latched: bool = False) -> None:
        """Add a message that was sent then; `latched`: its topic is transient local, as /tf_static."""
        if topic not in self._topics:
            package, kind = type(message).__module__.split('.')[0], type(message).__name__
            self._topics[topic] = self._writer.add_connection(
                topic,
                f'{package}/msg/{kind}',
                typestore=self._types,
                offered_qos_profiles=[_latched()] if latched else (),
            )
        self._writer.write(self._topics[topic], stamp_ns, serialize_message(message))

    def __exit__(self, kind: type | None, *error: object) -> None:
        self._writer.close()
        if kind is None:
            os.replace(self._inside / f'{self._inside.name}.mcap', self.path)
        self._folder.cleanup()


def _latched() -> Any:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
