"""A furnished house with a robot in it: what its cameras see, its tour, and where things truly stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsemsplat_ros.evaluation.held_out_rooms import words
from gsemsplat_ros.evaluation.map_walk import BASELINE
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.rooms.furniture import load_furniture
from gsemsplat_ros.rooms.home import sample_home
from gsemsplat_ros.rooms.renderer import RoomRenderer
from gsemsplat_ros.simulation.floor_plan import floor_plan
from gsemsplat_ros.simulation.robot import LEFT, RIGHT, base_from, parent_from_base, stereo_camera

SEED = 5  # of the house
START_PHASE = 0.25  # of the ring, in the kitchen


@dataclass(frozen=True)
class Thing:
    """A piece of furniture: name; center and size (3,) m of its upright box, which is turned by yaw [rad]."""

    name: str
    center: np.ndarray
    size: np.ndarray
    yaw: float

    def distance(self, place: np.ndarray) -> float:
        """Of a place (2,) m from its sides, seen from above; 0 within."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        x, y = np.array([[c, s], [-s, c]]) @ (np.asarray(place) - self.center[:2])
        return float(np.hypot(*np.maximum(np.abs([x, y]) - self.size[:2] / 2, 0)))


class World:
    """The house of SEED, seen in images of width x height [px]. Raises ValueError where furniture or OpenGL
    are missing."""

    def __init__(self, width: int, height: int):
        self.furniture = load_furniture()
        self.house = sample_home(self.furniture, np.random.default_rng(SEED))
        self.room = self.house.rounds[0]
        self.plan = floor_plan(self.room, self.furniture)
        self.camera = stereo_camera(width, height)
        self._renderer = RoomRenderer(self.furniture, height, width)
        self._renderer.load(self.room)

    def tour(self, count: int) -> np.ndarray:
        """Poses (count, 3) of a round through all rooms (`House.route`), looking to their outer sides."""
        at = [self.house.pose(START_PHASE + k / count) for k in range(count)]
        return np.array([(*pose[:2, 3], np.arctan2(pose[1, 2], pose[0, 2])) for pose in at])

    def pair(self, pose: np.ndarray, stamp_ns: int) -> Pair:
        """What the stereo camera sees from a pose (x, y, yaw)."""
        images = [
            self._renderer.render(self.camera, parent_from_base(pose) @ base_from(side)).rgb
            for side in (LEFT, RIGHT)
        ]
        views = [View(rgb, self.camera, LEFT, stamp_ns) for rgb in images]
        return Pair(views[0], views[1], BASELINE)

    def things(self, word: str) -> list[Thing]:
        """What stands in the house of that name: an armchair is a modern armchair too."""
        wanted = words(word)
        found = []
        for piece in self.room.pieces:
            if wanted <= words(piece.name):
                size = np.array(self.furniture.models[piece.model].size)
                found.append(
                    Thing(piece.name, piece.position + np.array([0, 0, size[2] / 2]), size, piece.yaw)
                )
        return found
