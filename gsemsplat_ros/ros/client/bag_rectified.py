"""Whether the images of a bag are rectified: of rectified ones the matches lie in the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gsemsplat_ros.geometry.features import matched_pixels
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.ros.client.bag_topics import StereoTopics
from gsemsplat_ros.ros.inputs import Input
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.sources import make_source

PAIRS = 3  # that are tried
MIN_MATCHES = 30  # fewer tell nothing
CLEAR = 1.5  # the rows of one reading must lie so many times closer than those of the other


@dataclass(frozen=True)
class Rectified:
    """value: whether the images are rectified; reason: why, in words that follow on that."""

    value: bool
    reason: str


def tried(
    recorded: Sequence[tuple[Image | CompressedImage, Image | CompressedImage]],
    infos: tuple[CameraInfo, CameraInfo],
    topics: StereoTopics,
) -> Rectified:
    """Read pairs of left and right images as rectified ones, and as raw ones that are rectified with `infos`:
    the reading whose rows fit clearly better wins, else the names of the topics decide. An image that cannot
    be rectified is rectified. Raises ValueError where the node would refuse all these pairs.
    """
    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    refused: list[ValueError] = []
    for images in recorded:
        try:
            straight = _pair(images, infos, topics, rectified=True)
        except ValueError as error:  # nothing to see, as while the exposure settles; or no calibration
            refused.append(error)
            continue
        try:
            bent = _pair(images, infos, topics, rectified=False)
        except ValueError as error:
            return Rectified(True, f'because they cannot be rectified: {error}')
        if np.array_equal(straight.first.image, bent.first.image) and np.array_equal(
            straight.second.image, bent.second.image
        ):
            return Rectified(True, 'because their camera_info has nothing to rectify')
        for value, pair in (True, straight), (False, bent):
            first, second = matched_pixels(pair.first.image, pair.second.image)
            rows[value].append(np.abs(first[:, 1] - second[:, 1]))
    if len(refused) == len(recorded) > 0:
        raise refused[-1]
    found = {value: np.concatenate([*differences, np.empty(0)]) for value, differences in rows.items()}
    if min(map(len, found.values())) >= MIN_MATCHES:
        apart = {value: float(np.median(differences)) for value, differences in found.items()}
        words = f'matches differ by {apart[True]:.2f} rows as they are, by {apart[False]:.2f} when rectified'
        for value in True, False:
            if apart[value] * CLEAR < apart[not value]:
                return Rectified(value, f'because {words}')
        doubt = f'the pictures do not tell ({words})'
    else:
        doubt = 'the pictures do not tell (too few matches)'
    named = 'by the names of their topics' if topics.named_rectified else 'since their names do not say rect'
    return Rectified(topics.named_rectified, f'{named}; {doubt}')


def _pair(
    images: tuple[Image | CompressedImage, Image | CompressedImage],
    infos: tuple[CameraInfo, CameraInfo],
    topics: StereoTopics,
    rectified: bool,
) -> Pair:
    """What the node sees of them."""
    source = make_source(
        Parameters(rectified=rectified), list(zip(topics.images, topics.infos)), lambda message: None
    )
    pair = source.pair(Input(images, infos))
    assert pair is not None  # it shows something new: the source is told of no scene before it
    return pair
