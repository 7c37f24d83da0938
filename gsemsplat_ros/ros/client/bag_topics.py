"""The topics of a stereo camera in a bag, found by their types and names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

from gsemsplat_ros.terminal.console import printable

IMAGE, COMPRESSED, INFO = (
    'sensor_msgs/msg/Image',
    'sensor_msgs/msg/CompressedImage',
    'sensor_msgs/msg/CameraInfo',
)
# words in the name of the left topic -> in that of the right: ROS's own, RealSense, two numbered cameras
SIDES = (
    ('left', 'right'),
    ('infra1', 'infra2'),
    ('cam0', 'cam1'),
    ('cam1', 'cam2'),
    ('camera0', 'camera1'),
    ('camera_0', 'camera_1'),
    ('image_0', 'image_1'),
    ('l', 'r'),
)
NO_PICTURES = 'depth', 'disparity', 'confidence', 'mask', 'label', 'theora'
LISTED = 12  # topics that an error names


@dataclass(frozen=True)
class StereoTopics:
    """Names of the left and the right topic: images, and the camera_info of each."""

    images: tuple[str, str]
    infos: tuple[str, str]
    compressed: bool

    @property
    def named_rectified(self) -> bool:
        """Whether the names say that the images are rectified."""
        return all(map(_says_rectified, self.images))


def choose(
    topics: Mapping[str, str],
    left: str | None = None,
    right: str | None = None,
    foreign: Mapping[str, str] = MappingProxyType({}),
) -> StereoTopics:
    """The stereo camera among `topics` (name -> type 'package/msg/Name').

    left, right: its image topics, where the user names them; foreign: other topics, and the encoding for
    which they are passed over. Of several, the one whose images are rectified, in colour, not compressed;
    then the first by name. Raises ValueError if there is none.
    """
    images = {name: kind for name, kind in topics.items() if kind in (IMAGE, COMPRESSED)}
    for name in filter(None, (left, right)):
        if name not in images:
            raise ValueError(f'no images on {name}: ' + _there_are(topics, foreign))
    named = (
        [(left, right)]
        if left and right
        else [
            (one, other) for one, other in _pairs_of(images) if left in (None, one) and right in (None, other)
        ]
    )
    found = [(pair, infos) for pair in named if (infos := _infos(pair, topics))]
    if found:
        pair, infos = min(found, key=lambda item: _rank(item[0], images))
        return StereoTopics(pair, infos, images[pair[0]] == COMPRESSED)
    if named:
        one, other = map(printable, named[0])
        raise ValueError(f'no camera_info belongs to {one} and {other}: ' + _there_are(topics, foreign))
    raise ValueError(
        'no stereo camera: wanted two image topics whose names differ in left and right (or infra1 and '
        'infra2, cam0 and cam1), or name them with --left and --right; ' + _there_are(topics, foreign)
    )


def _pairs_of(images: Mapping[str, str]) -> list[tuple[str, str]]:
    pairs = []
    for name, (one, other) in product(images, SIDES):
        partner = re.sub(rf'(?<![a-z0-9]){one}(?![a-z0-9])', other, name)
        if (
            partner != name
            and images.get(partner) == images[name]
            and not any(word in name.lower() for word in NO_PICTURES)
        ):
            pairs.append((name, partner))
    return pairs


def _infos(pair: tuple[str, str], topics: Mapping[str, str]) -> tuple[str, str] | None:
    """The camera_info of each image: the two that share the longest beginnings with them."""
    known = [name for name, kind in topics.items() if kind == INFO]
    if len(known) < 2:
        return None
    left, right = (max(known, key=lambda info: (_shared(image, info), -len(info))) for image in pair)
    return (left, right) if left != right else None


def _shared(one: str, other: str) -> int:
    """How many characters two names have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _says_rectified(name: str) -> bool:
    """Whether a word of the name is 'rect', as in image_rect, image_rect_color and rect/image."""
    return re.search(r'(?<![a-z0-9])rect(ified)?(?![a-z0-9])', name.lower()) is not None


def _rank(pair: tuple[str, str], images: Mapping[str, str]) -> tuple:
    name = pair[0].lower()
    return not _says_rectified(name), 'gray' in name or 'mono' in name, images[pair[0]] == COMPRESSED, pair


def _there_are(topics: Mapping[str, str], foreign: Mapping[str, str]) -> str:
    of_cameras = {name: kind for name, kind in topics.items() if kind in (IMAGE, COMPRESSED, INFO)} or topics
    listed = [f'{name} ({kind.rpartition("/")[2]})' for name, kind in sorted(of_cameras.items())]
    others = [f'{name} ({encoding})' for name, encoding in sorted(foreign.items())]
    passed = f'; passed over, since they are not CDR of ROS 2: {_some(others)}' if others else ''
    return printable(f'the bag has {_some(listed)}{passed}')


def _some(listed: list[str]) -> str:
    more = f' and {len(listed) - LISTED} more' if len(listed) > LISTED else ''
    return ', '.join(listed[:LISTED]) + more if listed else 'no topics'
