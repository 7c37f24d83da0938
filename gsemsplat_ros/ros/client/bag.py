"""Stereo pairs of a bag (MCAP, SQLite or ROS 1), without a ROS installation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.ros.client.bag_rectified import PAIRS, Rectified, tried
from gsemsplat_ros.ros.client.bag_storage import WANTED, Storage, open_storage
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


@dataclass(frozen=True)
class _Recorded:
    """Left and right whose stamps fit; when the last of them was recorded [ns]; right stamp minus left."""

    images: Images
    at_ns: int
    skew_ns: int


class Bag:
    """A bag that is open for reading; use it in a `with`.

    topics: its stereo camera; rectified: whether its images are, and why that is believed; seconds: its
    length; counts: left and right images in it.
    """

    def __init__(
        self,
        path: str | Path,
        left: str | None = None,
        right: str | None = None,
        rectified: bool | None = None,
    ):
        """`left`, `right`: the image topics, where their names do not tell; `rectified`: whether the images
        are, where the user says so. Raises ValueError for a file that is no bag or has no stereo camera."""
        self.path = Path(path)
        self._storage = self._open()
        try:
            topics = self._storage.topics
            self.topics: StereoTopics = choose(topics.kinds, left, right, topics.foreign)
            self._start_ns, end_ns = self._storage.span_ns
            self.seconds = max(end_ns - self._start_ns, 0) / 1e9
            self.counts = tuple(topics.counts[name] for name in self.topics.images)
            self._infos = self._calibrated_infos()
            self.rectified = (
                tried([recorded.images for recorded in self._spread(PAIRS)], self._infos, self.topics)
                if rectified is None
                else Rectified(rectified, 'as you say')
            )
        except ValueError as error:
            self._storage.close()
            raise ValueError(f'{self.path}: {error}') from None

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *error: object) -> None:
        self._storage.close()

    def pairs(self, count: int) -> Iterator[BagPair]:
        """At most `count` pairs, evenly spread over the bag. Raises ValueError when there is none, or an
        image that the node could not use."""
        source = make_source(
            Parameters(rectified=self.rectified.value),
            list(zip(self.topics.images, self.topics.infos)),
            lambda message: None,
        )
        try:
            for recorded in self._spread(count):
                pair = source.pair(Input(recorded.images, self._infos))
                assert pair is not None  # it shows something new: the source is told of no scene before it
                yield BagPair(
                    (recorded.at_ns - self._start_ns) / 1e9,
                    recorded.skew_ns / 1e6,
                    (*self._infos, *recorded.images),
                    pair,
                )
        except ValueError as error:
            raise ValueError(f'{self.path}: {error}') from None

    def _spread(self, count: int) -> Iterator[_Recorded]:
        """At most `count` pairs, evenly spread over the bag. Raises ValueError when there is none."""
        last = -1
        gap_ns: int | None = None  # of the first images, if they make no pair
        for number in range(count):
            wanted = self._start_ns + int(number / count * self.seconds * 1e9)
            recorded, sync = self._first_pair(max(wanted, last + 1))
            gap_ns = sync.gap_ns if gap_ns is None else gap_ns
            if recorded is None:
                break
            last = recorded.at_ns
            yield recorded
        if last < 0:
            apart = '' if gap_ns is None else f'; the first ones differ by {gap_ns / 1e6:.1f} ms'
            raise ValueError(
                f'no two images of {" and ".join(self.topics.images)} have stamps within {SLOP_S * 1e3:g} ms'
                f'{apart}'
            )

    def _first_pair(self, start_ns: int) -> tuple[_Recorded | None, StereoSync]:
        """The first images of both from there on whose stamps fit, None without; and what paired them."""
        pairs: list[Images] = []
        sync = StereoSync(SLOP_S, lambda left, right: pairs.append((left, right)), plain_backend)
        for topic, at_ns, message in self._messages(self.topics.images, start_ns):
            sync.add(self.topics.images.index(topic), message)
            if pairs and sync.skew_ns is not None:
                return _Recorded(pairs[0], at_ns, sync.skew_ns), sync
        return None, sync

    def _calibrated_infos(self) -> tuple[CameraInfo, CameraInfo]:
        """The first camera_info of each camera with a calibration; a driver may send zeros before it has
        loaded that. The first one where all are so."""
        infos: dict[str, CameraInfo] = {}
        for topic, _, message in self._messages(self.topics.infos):
            if topic not in infos or not _is_calibrated(infos[topic]):
                infos[topic] = message
            if len(infos) == 2 and all(map(_is_calibrated, infos.values())):
                break
        missing = [topic for topic in self.topics.infos if topic not in infos]
        if missing:
            raise ValueError(
                f'there is no message on {" and ".join(missing)}: wanted the calibration of both cameras'
            )
        left, right = self.topics.infos
        return infos[left], infos[right]

    def _messages(self, topics: tuple[str, str], start_ns: int = 0) -> Iterator[tuple[str, int, Any]]:
        """(topic, time of recording [ns], message) from there on. Raises ValueError for a damaged bag."""
        try:
            for topic, at_ns, data in self._storage.messages(topics, start_ns):
                yield topic, at_ns, deserialize_message(data, TYPES[self._storage.topics.kinds[topic]])
        except Exception as error:  # of whatever kind: it is a file from outside
            raise ValueError(f'the bag is damaged ({_words(error)})') from None

    def _open(self) -> Storage:
        if not self.path.exists():
            raise ValueError(f'no bag at {self.path}: {WANTED}')
        try:
            return open_storage(self.path)
        except ImportError as error:
            raise ValueError(
                f'{self.path} needs the Python package {error.name}: pip install rosbags brings it'
            ) from None
        except Exception as error:  # of whatever kind: it is a file from outside
            raise ValueError(f'{self.path} cannot be read as a bag: {_words(error)}') from None


def _is_calibrated(info: CameraInfo) -> bool:
    return bool(info.k[0] or info.p[0])


def _words(error: Exception) -> str:
    name = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
    text = ''.join(c if c.isprintable() else ' ' for c in f'{name}{error}')
    return ' '.join(text.split())[:200]
