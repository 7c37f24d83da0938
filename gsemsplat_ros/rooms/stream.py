"""Samples of synthetic rooms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.rooms.cameras import Cameras
from gsemsplat_ros.rooms.furnish import sample_room
from gsemsplat_ros.rooms.furniture import Furniture, base_noun, load_furniture
from gsemsplat_ros.rooms.props import PROPS
from gsemsplat_ros.rooms.renderer import RoomRenderer
from gsemsplat_ros.rooms.sensor import Sensor

PAIRS = 8  # per room
HELDOUT_SEED = 1_000_000  # offset: rooms of held-out furniture have seeds of their own
SHELL = ('floor', 'wall', 'ceiling', 'rug', 'picture', 'door', 'window')  # names that are not furniture


def vocabulary(furniture: Furniture, split: str) -> dict[str, str]:
    """All names in the rooms of a split, each with its base noun ('office chair': 'chair')."""
    names = {m.name for m in furniture.models if m.heldout == (split == 'heldout')}
    props = PROPS if split == 'train' else ()
    return {name: base_noun(name) for name in sorted(names | {*SHELL, *props})}


class RoomStream:
    """Rooms as lists of samples, each determined by split and number; iterates over all rooms' samples.

    Raises ValueError for a split other than 'train' and 'heldout', and without furniture or EGL.
    """

    def __init__(
        self, height: int, width: int, split: str = 'train', rooms: range = range(10**9), device: int = 0
    ):
        if split not in ('train', 'heldout'):
            raise ValueError(f"split {split!r}: wanted 'train' or 'heldout'")
        self.split, self.rooms = split, rooms
        self.furniture = load_furniture()
        self.renderer = RoomRenderer(self.furniture, height, width, device)

    def room(self, number: int) -> list[Sample]:
        """The samples of one room; fewer than PAIRS if no camera poses fit."""
        train = self.split == 'train'
        rng = np.random.default_rng(number + (0 if train else HELDOUT_SEED))
        room = sample_room(self.furniture, rng, heldout=not train)
        self.renderer.load(room)
        cameras, sensor, samples = Cameras(self.renderer, room, rng), Sensor(rng, train), []
        for i in range(PAIRS):
            stereo = i % 2 == 0
            drawn = cameras.pair(stereo)
            if drawn is None:
                continue
            camera, poses, frames = drawn
            samples.append(
                Sample(
                    images=np.stack([sensor(frame.rgb) for frame in frames]),
                    depth=np.stack([frame.depth for frame in frames]),
                    instance=np.stack([frame.instance for frame in frames]),
                    first_from_camera=np.linalg.inv(poses[0]) @ np.stack(poses),
                    camera=camera,
                    names=room.names,
                    stereo=stereo,
                )
            )
        return samples

    def __iter__(self) -> Iterator[Sample]:
        for number in self.rooms:
            yield from self.room(number)
