"""ROS 1 bags, read with the package rosbags."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from gsemsplat_ros.ros.client.bag_decompress import decompress
from gsemsplat_ros.ros.client.bag_storage import Topics


class Ros1File:
    """One .bag file; its messages are given as those of ROS 2."""

    def __init__(self, path: Path):
        """Raises ValueError without rosbags, and what that raises for a damaged file."""
        try:
            from rosbags.rosbag1 import Reader, reader
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise ValueError('reading bags of ROS 1 needs the package rosbags: pip install rosbags') from None
        bounded = {unpack: partial(decompress, kind=kind) for kind, unpack in reader.decompressors.items()}

        class Bounded(Reader):
            def read_chunk(self) -> reader.Chunk:
                chunk = super().read_chunk()
                return chunk._replace(decompressor=bounded[chunk.decompressor])

        self._reader, self._to_cdr = Bounded(path), get_typestore(Stores.ROS2_JAZZY).ros1_to_cdr
        self._reader.open()
        self.topics = Topics()
        for connection in self._reader.connections:
            self.topics.add(connection.topic, connection.msgtype, 'cdr', connection.msgcount)
        self.span_ns = self._reader.start_time, self._reader.end_time - 1

    def messages(self, names: Collection[str], start_ns: int = 0) -> Iterator[tuple[str, int, bytes]]:
        """As `Storage.messages`."""
        wanted = [c for c in self._reader.connections if c.topic in names]
        for connection, at, data in self._reader.messages(wanted, start=start_ns):
            yield connection.topic, at, bytes(self._to_cdr(data, connection.msgtype))

    def close(self) -> None:
        """As `Storage.close`."""
        self._reader.close()
