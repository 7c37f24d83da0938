"""Loops: places that a chain of scenes comes back to, which tell how far it has drifted.

A wrong loop is worse than none. One counts when two scenes in a row know a place again, both find that the
chain is off by the same, and the pose graph need not bend its links by more than they may be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsemsplat_ros.geometry.retrieval import image_vector
from gsemsplat_ros.geometry.similarity import Similarity
from gsemsplat_ros.mapping.links import link_of_place, map_units, ratio_check
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe
from gsemsplat_ros.mapping.pose_graph import GraphLink
from gsemsplat_ros.mapping.relocalisation import Place, likest, place_of_scene
from gsemsplat_ros.scene.scene import Scene

LATELY = 10  # scenes: what the chain saw so lately is no place that it comes back to
EVERY = 2  # of so many scenes one looks for a loop, until one has found it
PAUSE = 5  # scenes after a loop in which none is looked for
CANDIDATES = 2  # keyframes that are compared
DRIFT = 0.05, 0.5  # of the way since, by which a chain of scenes in metres, or of unknown scale, may be off
CLOSE = 0.5  # of its reach: from farther away a keyframe's depths tell too little
ASIDE = np.deg2rad(60)  # between directions of view; beyond it the pictures share too little
AGREEING = 0.05, np.deg2rad(2)  # part of the reach, and turn, by which two scenes in a row may differ
# voxels, turn, and logarithm of the scale, by which a chain must be off for the map to move
WORTH = 1.0, np.deg2rad(1), 0.02


@dataclass(frozen=True, eq=False)
class Candidate:
    """A scene in the map that one place looks like; correction: from where the chain has it to there."""

    number: int
    correction: Similarity
    link: GraphLink


@dataclass(frozen=True, eq=False)
class Loop:
    """The `links` of two scenes in a row to a place known again; place: of the second one in the map, by what
    it knows there."""

    links: tuple[GraphLink, GraphLink]
    place: Similarity

    def worth_moving(self, map_: Map, chained: Similarity) -> bool:
        """Whether the scene is so far from where the chain has it that the map becomes better if it moves."""
        off = difference(self.place, chained)
        return (
            off.way > WORTH[0] * map_.voxel
            or off.turn > WORTH[1]
            or abs(np.log(self.place.scale / chained.scale)) > WORTH[2]
        )


class LoopFinder:
    """Looks for loops, scene after scene of a chain."""

    def __init__(self) -> None:
        self._candidate: Candidate | None = None
        self._next = 0

    def closed(self, map_: Map, scene: Scene, chained: Similarity, number: int) -> Loop | None:
        """The loop that scene `number` closes, which the chain has at `chained` in the map; None: none."""
        before, self._candidate = self._candidate, None
        seen = may_be_seen(map_, chained.pose, number) if number >= self._next else []
        if not seen:
            return None
        self._next = number + EVERY
        place = place_of_scene(
            likest(seen, image_vector(scene.keyframe.features.descriptors))[:CANDIDATES], scene
        )
        if (
            not isinstance(place, Place)
            or not close(place)
            or ratio_check(place.ratio, scene.metric, place.keyframe.scale, 'loop')
        ):
            return None
        there = Similarity(place.map_from_camera, map_units(scene, place.ratio))
        link = link_of_place(place, there.scale, number, map_.graph)
        self._candidate, self._next = Candidate(number, there @ chained.inverse, link), number + 1
        if before is None or before.number != number - 1:
            return None
        off = difference(there, before.correction @ chained)
        if off.way > AGREEING[0] * place.keyframe.reach or off.turn > AGREEING[1]:
            return None
        self._candidate, self._next = None, number + PAUSE
        return Loop((before.link, link), there)


def difference(a: Similarity, b: Similarity) -> Similarity:
    """The turn and way between two cameras, in the map's unit."""
    return Similarity(a.pose).inverse @ Similarity(b.pose)


def may_be_seen(map_: Map, pose: np.ndarray, number: int) -> list[MapKeyframe]:
    """The keyframes that a camera of scene `number`, at `pose` (4, 4) up to the drift of the chain, may see
    again."""
    graph, old = map_.graph, [kept for kept in map_.keyframes if number - kept.number > LATELY]
    if not old:
        return []
    steps = np.linalg.norm(np.diff(graph.poses[:, :3, 3], axis=0), axis=1)
    way = np.append(0.0, np.cumsum(steps))
    rows = np.searchsorted(graph.numbers, [kept.number for kept in old])
    since = way[-1] - way[rows.clip(max=len(way) - 1)]
    poses, reaches = np.array([kept.map_from_camera for kept in old]), np.array([kept.reach for kept in old])
    away = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1)
    ahead = poses[:, :3, 2] @ pose[:3, 2] > np.cos(ASIDE)
    near = away < CLOSE * reaches + DRIFT[not map_.metric] * since
    return [old[k] for k in np.flatnonzero(ahead & near)]


def close(place: Place) -> bool:
    """Whether a place is so close to its keyframe that it is exact."""
    kept = place.keyframe
    away = np.linalg.norm(place.map_from_camera[:3, 3] - kept.map_from_camera[:3, 3])
    return bool(away < CLOSE * kept.reach)
