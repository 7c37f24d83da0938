"""Corrections of a map: its scenes move to where a loop, or a given pose, says that they are.

Gaussians and objects move with the scene that owns them, keyframes with their own; the map before stays as it
was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.geometry.similarity import Similarity
from gsemsplat_ros.mapping import object_identity
from gsemsplat_ros.mapping.graph_solver import MOST_STRAIN, Solution, solved, strain
from gsemsplat_ros.mapping.known_objects import KnownObjects
from gsemsplat_ros.mapping.links import BY_POSE
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.pose_graph import MAP, GraphLink, PoseGraph

NOTICEABLE = 0.2, np.deg2rad(0.1), 0.002  # of a voxel, turn and scale: scenes that move less stay
TIGHT = 0.1  # of BY_POSE: deviations of the pose that was given last
JUMP = 3.0  # standard deviations between a given pose and the images


@dataclass(frozen=True, eq=False)
class Correction:
    """What takes a map to where a graph has its scenes.

    graph: with all that would hardly move where it is; map_new_from_map_old (S + 1, 4, 4) and ratios (S + 1,)
    by the number of a scene, as of `Map.moved`.
    """

    graph: PoseGraph
    map_new_from_map_old: np.ndarray
    ratios: np.ndarray

    @classmethod
    def of(cls, map_: Map, graph: PoseGraph) -> Correction:
        """For a graph of the scenes of the map, which may have newer ones too."""
        old, poses, scales = map_.graph, graph.poses.copy(), graph.scales.copy()
        moves, ratios = np.tile(np.eye(4), (map_.scenes + 1, 1, 1)), np.ones(map_.scenes + 1)
        changed = (old.poses != poses[: len(old)]).any((1, 2)) | (old.scales != scales[: len(old)])
        for row in np.flatnonzero(changed):
            move = graph.place(row) @ old.place(row).inverse
            way = float(np.linalg.norm(poses[row][:3, 3] - old.poses[row][:3, 3]))
            size = way / map_.voxel, move.turn, abs(np.log(move.scale))
            if any(value > least for value, least in zip(size, NOTICEABLE)):
                moves[old.numbers[row]], ratios[old.numbers[row]] = move
            else:
                poses[row], scales[row] = old.poses[row], old.scales[row]
        return cls(replace(graph, poses=poses, scales=scales), moves, ratios)

    @property
    def nothing(self) -> bool:
        """Whether all stays where it is."""
        return bool(self._stays.all())

    @property
    def _stays(self) -> np.ndarray:
        """Which (S + 1,) scenes stay."""
        return (self.map_new_from_map_old == np.eye(4)).all((1, 2)) & (self.ratios == 1)

    def moved(self, map_: Map) -> Map:
        """The map, its keyframes and its graph; not its objects."""
        if self.nothing:
            return replace(map_, graph=self.graph)
        moves, ratios, stays = self.map_new_from_map_old, self.ratios, self._stays
        keyframes = tuple(
            kept if stays[kept.number] else kept.moved(moves[kept.number], ratios[kept.number])
            for kept in map_.keyframes
        )
        return replace(map_.moved(moves, ratios), keyframes=keyframes, graph=self.graph)

    def moved_objects(self, known: KnownObjects, map_: Map) -> KnownObjects:
        """The objects of a map that was `moved`."""
        return object_identity.moved(known, map_, self.map_new_from_map_old, self.ratios)


def jump(given: Similarity, chained: Similarity, link: GraphLink) -> Similarity | None:
    """How far a pose that was given is from where the images have it, `chained` by this link; None: no
    farther than either may be wrong. In metres."""
    off, (turn, way, _) = chained.inverse @ given, link.sigmas
    if off.turn > JUMP * np.hypot(turn, BY_POSE[0]) or off.way > JUMP * np.hypot(way, BY_POSE[1]):
        return off
    return None


def after_jump(graph: PoseGraph, off: Similarity) -> PoseGraph:
    """The graph in metres, whose newest scene's given pose is `off` from where the images have it, with those
    before where they follow it.

    The newest pose holds, and the first, unless the images forbid that: then all before moves as a whole.
    What was given in between is wrong by as much as the jump, all together; it holds too if the scene before
    was not given, since then only the chain is wrong. From now on all that was given is where it is found.
    """
    given = [link.second for link in graph.links if is_given(link)]
    newest, follows = given[-1], int(graph.numbers[-2]) in given
    loose = np.sqrt(len(given)) * np.maximum(BY_POSE, (off.turn, off.way))

    def holding(those: Collection[int]) -> Solution:
        """The places if what was given of `those` scenes is exact, and all else that was given loose."""
        links = []
        for link in graph.links:
            if is_given(link):
                turn, way = TIGHT * np.array(BY_POSE) if link.second in those else loose
                link = replace(link, sigmas=(float(turn), float(way), link.sigmas[2]))
            links.append(link)
        return solved(graph.with_links(links), metric=True)

    found = holding((given[0], newest) if follows else given)
    by_images = np.array([link.first != MAP for link in graph.links])
    before = by_images & np.array([link.second != newest for link in graph.links])
    bent = found.strain[by_images].sum() - strain(graph, metric=True)[before].sum()
    if follows and bent > MOST_STRAIN + newest - given[0]:
        found = holding((newest,))
    return found.graph.with_links([given_anew(link, found.graph) for link in graph.links])


def given_anew(link: GraphLink, graph: PoseGraph) -> GraphLink:
    """The link, and if it is a pose that was given then with that which `graph` has."""
    if not is_given(link):
        return link
    place = graph.place(int(np.searchsorted(graph.numbers, link.second)))
    return replace(link, first_from_second=place.pose, ratio=place.scale)


def is_given(link: GraphLink) -> bool:
    """Whether it is a pose that was given, and not a place known again."""
    return link.first == MAP and not link.doubtful
