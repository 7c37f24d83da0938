"""Stereo pairs of a bag (MCAP, SQLite or ROS 1), read with the package rosbags, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.ros.client.bag_topics import COMPRESSED, IMAGE, INFO, StereoTopics, choose
from gsemsplat_ros.ros.inputs import Input
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.sources import make_source
from gsemsplat_ros.ros.synchronize import StereoSync, plain_backend

TYPES = {IMAGE: Image, COMPRESSED: CompressedImage, INFO: CameraInfo}
SLOP_S = Parameters().sync_slop_s
Images = tuple[Image | CompressedImage, Image | CompressedImage]  # of left and right


@dataclass(frozen=True)
class BagPair:
    """seconds: since the bag's beginning; skew_ms: right stamp minus left; messages: camera_info of left and
    right, image of left and right, as recorded; pair: what the node sees of them."""

    seconds: float
    skew_ms: float
    messages: tuple[CameraInfo, CameraInfo, Image | CompressedImage, Image | CompressedImage]
    pair: Pair


class Bag:
    """A bag that is open for reading; use it in a `with`.

    topics: its stereo camera; rectified: whether its images are; seconds: its length; counts: left and right
    images in it.
    """

    def __init__(self, path: str | Path, left: str | None = None, right: str | None = None):
        """`left`, `right`: the image topics, where their names do not tell. Raises ValueError for a file that
        is no bag or has no stereo camera."""
        self.path = Path(path)
        self._reader, self._to_cdr = _open(self.path)
        try:
            kinds = {c.topic: c.msgtype for c in self._reader.connections}
            self.topics: StereoTopics = choose(kinds, left, right)
            self.seconds = max(self._reader.end_time - self._reader.start_time, 0) / 1e9
            self.counts = tuple(self._reader.topics[name].msgcount for name in self.topics.images)
            self._infos = self._first_infos()
            self.rectified = self.topics.rectified or not any(any(info.d) for info in self._infos)
        except ValueError as error:
            self._reader.close()
            raise ValueError(f'{self.path}: {error}') from None

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def pairs(self, count: int) -> Iterator[BagPair]:
        """At most `count` pairs, evenly spread over the bag. Raises ValueError when there is none, or an
        image that the node could not use."""
        begin, last, found = self._reader.start_time, -1, 0
        gap_ns: int | None = None  # of the first images, if they make no pair
        source = make_source(
            Parameters(rectified=self.rectified),
            list(zip(self.topics.images, self.topics.infos)),
            lambda message: None,
        )
        for number in range(count):
            wanted = begin + int(number / count * self.seconds * 1e9)
            images, last_read, sync = self._first_pair(max(wanted, last + 1))
            gap_ns = sync.gap_ns if gap_ns is None else gap_ns
            if images is None or sync.skew_ns is None:
                break
            last, found = last_read, found + 1
            try:
                pair = source.pair(Input(images, self._infos))
            except ValueError as error:
                raise ValueError(f'{self.path}: {error}') from None
            assert pair is not None  # it shows something new: the source is told of no scene before it
            yield BagPair((last - begin) / 1e9, sync.skew_ns / 1e6, (*self._infos, *images), pair)
        if not found:
            apart = '' if gap_ns is None else f'; the first ones differ by {gap_ns / 1e6:.1f} ms'
            raise ValueError(
                f'{self.path}: no two images of {" and ".join(self.topics.images)} have stamps within '
                f'{SLOP_S * 1e3:g} ms{apart}'
            )

    def _first_pair(self, start_ns: int) -> tuple[Images | None, int, StereoSync]:
        """The first images of left and right from there on whose stamps fit, None without; when the last one
        that was read was recorded [ns]; and what paired them.
        """
        pairs: list[Images] = []
        sync = StereoSync(SLOP_S, lambda left, right: pairs.append((left, right)), plain_backend)
        read_ns = start_ns
        for topic, read_ns, message in self._messages(self.topics.images, start_ns):
            sync.add(self.topics.images.index(topic), message)
            if pairs:
                return pairs[0], read_ns, sync
        return None, read_ns, sync

    def _first_infos(self) -> tuple[CameraInfo, CameraInfo]:
        infos: dict[str, CameraInfo] = {}
        for topic, _, message in self._messages(self.topics.infos):
            infos.setdefault(topic, message)
            if len(infos) == 2:
                left, right = self.topics.infos
                return infos[left], infos[right]
        missing = [topic for topic in self.topics.infos if topic not in infos]
        raise ValueError(
            f'there is no message on {" and ".join(missing)}: wanted the calibration of both cameras'
        )

    def _messages(
        self, topics: tuple[str, str], start_ns: int | None = None
    ) -> Iterator[tuple[str, int, Any]]:
        """(topic, time of recording [ns], message) from there on. Raises ValueError for a damaged bag."""
        wanted = [c for c in self._reader.connections if c.topic in topics]
        try:
            for connection, at, data in self._reader.messages(wanted, start=start_ns):
                data = self._to_cdr(data, connection.msgtype)
                yield connection.topic, at, deserialize_message(bytes(data), TYPES[connection.msgtype])
        except Exception as error:  # of whatever kind: it is a file from outside
            raise ValueError(f'the bag is damaged ({_words(error)})') from None


def _open(path: Path) -> tuple[Any, Callable[..., Any]]:
    """An open reader of rosbags, and what turns its messages into CDR."""
    try:
        from rosbags.rosbag1 import Reader as Reader1
        from rosbags.rosbag2 import Reader as Reader2
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise ValueError('reading bags needs the package rosbags: pip install rosbags') from None
    if not path.exists():
        raise ValueError(
            f'no bag at {path}: give an .mcap, .db3 or .bag file, or the folder that `ros2 bag record` made'
        )
    old = path.suffix == '.bag'
    try:
        reader = (Reader1 if old else Reader2)(path)
        reader.open()
    except Exception as error:  # of whatever kind: it is a file from outside
        raise ValueError(
            f'{path} cannot be read as a bag ({_words(error)}): give an .mcap, .db3 or .bag file, or the '
            'folder that `ros2 bag record` made'
        ) from None
    return reader, get_typestore(Stores.ROS2_JAZZY).ros1_to_cdr if old else lambda data, kind: data


def _words(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
