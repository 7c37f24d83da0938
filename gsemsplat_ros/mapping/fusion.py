"""Placing scenes in the map, and accepting them. One thread adds; any thread reads the map, and notes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.geometry.similarity import Similarity
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.mapping.correction import Correction, after_jump, jump
from gsemsplat_ros.mapping.forgetting import free_space, misses_after
from gsemsplat_ros.mapping.graph_solver import MOST_STRAIN, solved, strain
from gsemsplat_ros.mapping.links import (
    Anchor,
    Link,
    by_features,
    chained,
    given_link,
    link_check,
    link_of,
    link_of_place,
    map_units,
    ratio_check,
    scale_check,
    self_check,
    shared_keyframe,
    start_link,
)
from gsemsplat_ros.mapping.loops import LoopFinder
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_keyframe import apart, apart_from, keyframe_of, with_keyframe
from gsemsplat_ros.mapping.object_identity import after, observed, recognised
from gsemsplat_ros.mapping.pose_graph import GraphLink, PoseGraph
from gsemsplat_ros.mapping.relocalisation import SURE, Place, place_of_image, place_of_scene
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer

# without a given pose the map begins at the first camera, as if level: x forward, y left, z up (REP 103)
START = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Fusion:
    """The result of fusing a scene.

    fused: whether it is now in the map. reason: in words, how it was placed or why it was left out.
    map_from_camera (4, 4): its keyframe's pose in the map, None if unknown; scale: map units per unit of the
    scene; inliers of points: depths that agree with the last scene's, or the pair's own measurements if those
    were too few (0 of 0 when the pose was given and nothing was compared).
    """

    fused: bool
    reason: str
    map_from_camera: np.ndarray | None = None
    scale: float = 1.0
    inliers: int = 0
    points: int = 0


class Mapper:
    """Fuses scene after scene. `map` is replaced, never changed, so any thread may read it; one thread adds.

    budget: largest number of Gaussians in the map; it may change at any time.
    """

    def __init__(self, map_: Map, budget: int):
        self.map = map_
        self.budget = budget
        self._anchor: Anchor | None = None
        self._doubtful: Anchor | None = None  # a scene that was known again, which a second one must confirm
        self._noting = threading.Lock()  # while the objects of the map change
        self._loops = LoopFinder()

    def add(self, scene: Scene, pair: Pair) -> Fusion:
        """Fuse `scene`, which was built from `pair`, into the map; if refused, the map stays as it was.

        If the pair's first view has a `map_from_camera` [m], in the map's frame, that is its pose, which then
        must fit the depths of the last scene. Where it jumps against the images, as a SLAM that corrects
        itself does, what was mapped follows (correction.py).
        Else the scene is chained to the last one in the map: by the keyframe in both, if the pair's
        second view is the last scene's first; or by features of the two first images. Where neither is
        found, and in a map that was loaded, it is looked for among the keyframes of the map. A scene without
        metric scale takes the map's. Where few features say what place that is, it waits for a second scene,
        from elsewhere, that says the same. A chain that comes back to a place (loops.py) corrects the map.
        """
        problem = self_check(scene)
        if problem:
            return Fusion(False, problem, inliers=scene.inliers, points=scene.points)
        given, anchor, number = pair.first.map_from_camera, self._anchor, self.map.scenes + 1
        if given is None and anchor is None:
            if len(self.map):
                return self._known(scene, pair)
            return self._fuse(scene, self._with(scene, Similarity(START), [start_link(START)]), 'start')
        link = None
        if anchor is not None:
            link = shared_keyframe(anchor, scene, pair) or by_features(anchor, scene)
        if given is not None and (scene.metric or link is None):
            return self._given(scene, given, link)
        if anchor is None or link is None:
            return self._known(scene, pair)
        problem = link_check(link, anchor, scene.metric)
        if problem:
            return Fusion(False, problem, scale=link.ratio, inliers=link.inliers, points=link.points)
        links, place = [link_of(link, anchor, scene, number)], chained(link, anchor, scene)
        if given is None:
            return self._chained(scene, place, links[0], link)
        links.append(given_link(given, place.scale, number))
        graph = self._with(scene, Similarity(given, place.scale), links)
        return self._fuse(scene, graph, 'pose given', link.inliers, link.points)

    def relocalize(self, seen: View | Scene) -> Place | str:
        """Where an image, or that of a scene, was taken in the map, or in words why that is not known."""
        if not self.map.keyframes:
            return 'the map has no keyframes: fuse scenes into it first'
        keyframes = self.map.keyframes
        place = place_of_image(keyframes, seen) if isinstance(seen, View) else place_of_scene(keyframes, seen)
        if isinstance(place, str):
            return place
        if place.inliers < SURE:
            return f'{looks_like(place)}: wanted {SURE}'
        if isinstance(seen, View):
            return place
        return ratio_check(place.ratio, seen.metric, place.keyframe.scale, 'a place known again') or place

    def note(self, asked: Map, answer: Answer) -> Answer:
        """The answer of `asked`, this map or an earlier one, with the history of its objects, which the map
        then knows. In any thread. Where the map is another by now, or was moved, nothing is noted.
        """
        with self._noting:
            before, now = asked.graph, self.map.graph
            if asked.scenes > self.map.scenes or not np.array_equal(before.poses, now.poses[: len(before)]):
                return recognised(asked, answer)
            objects, answer = observed(self.map.objects, asked, answer)
            self.map = self.map.with_objects(objects)
        return answer

    def _given(self, scene: Scene, pose: np.ndarray, link: Link | None) -> Fusion:
        """Fuse a scene at a pose that was given; if it jumps against the images, all before follows."""
        anchor, number = self._anchor, self.map.scenes + 1
        links, off = [given_link(pose, 1.0, number)], None
        if anchor is not None and link is not None and not link_check(link, anchor, scene.metric):
            links.append(link_of(link, anchor, scene, number))
            if self.map.metric:
                off = jump(Similarity(pose), chained(link, anchor, scene), links[-1])
        else:
            problem = scale_check(anchor, scene, pose)
            if problem:
                return Fusion(False, problem)
        graph = self._with(scene, Similarity(pose), links)
        if off is None:
            return self._fuse(scene, graph, 'pose given')
        reason = f'pose given, {self._lengths(off.way)} from where the images have it: the map follows'
        return self._fuse(scene, after_jump(graph, off), reason)

    def _chained(self, scene: Scene, place: Similarity, graph_link: GraphLink, link: Link) -> Fusion:
        """Fuse a scene after the last one; if it closes a loop, the map follows."""
        number, reason = self.map.scenes + 1, link.by
        graph = self._with(scene, place, [graph_link])
        loop = self._loops.closed(self.map, scene, place, number)
        if loop is not None:
            if not loop.worth_moving(self.map, place):  # the scene alone is put right
                graph = self._with(scene, loop.place, [graph_link, *loop.links])
            else:
                solution = solved(graph.with_links([*graph.links, *loop.links]), self.map.metric)
                bent = solution.strain[:-2].sum() - strain(graph, self.map.metric).sum()
                most = MOST_STRAIN + number - loop.links[0].first
                if solution.trusted[-2:].all() and bent < most:
                    graph = solution.graph
                    way = float(np.linalg.norm(graph.poses[-1][:3, 3] - place.pose[:3, 3]))
                    again = f'scene {loop.links[-1].first} known again'
                    reason = f'{reason}; {again}: the map moved by {self._lengths(way)} here'
        return self._fuse(scene, graph, reason, link.inliers, link.points)

    def _known(self, scene: Scene, pair: Pair) -> Fusion:
        """Fuse a scene where its picture was taken before."""
        place = place_of_scene(self.map.keyframes, scene)
        if isinstance(place, Place):
            inliers, points = place.inliers, place.points
            problem = ratio_check(place.ratio, scene.metric, place.keyframe.scale, 'a place known again')
            problem = problem or self._doubt(scene, pair, place)
            if problem:
                return Fusion(False, problem, None, place.ratio, inliers, points)
            there = Similarity(place.map_from_camera, map_units(scene, place.ratio))
            links = [link_of_place(place, there.scale, self.map.scenes + 1, self.map.graph)]
            reason = f'place of scene {place.keyframe.number}'
            return self._fuse(scene, self._with(scene, there, links), reason, inliers, points)
        lost = (
            'shares too little with the last scene in the map to say where it stands'
            if self._anchor
            else 'nothing ties this scene to the map that was loaded'
        )
        if not self.map.keyframes:
            return Fusion(
                False,
                f'{lost}, and the map has no keyframes, as it is of an earlier release or without texture: '
                f"give its pose in the frame '{self.map.frame}' (TF), or clear the map",
            )
        return Fusion(
            False, f'{lost}, and {place}: drive to a place that it shows, give poses (TF), or clear the map'
        )

    def _doubt(self, scene: Scene, pair: Pair, place: Place) -> str:
        """Why it is not certain that a scene is at this place, '' if it is."""
        if place.inliers >= SURE:
            return ''
        first, pose, reach = self._doubtful, place.map_from_camera, place.keyframe.reach
        link = (shared_keyframe(first, scene, pair) or by_features(first, scene)) if first else None
        if (
            first is None
            or link is None
            or link_check(link, first, scene.metric)
            or apart(chained(link, first, scene).pose, reach, pose) >= 1
        ):
            there = Similarity(pose, map_units(scene, place.ratio))
            self._doubtful = Anchor(self.map.scenes + 1, scene, there)
        elif apart(first.place.pose, reach, pose) >= 1:
            return ''
        return f'{looks_like(place)}: drive on, a second scene from elsewhere must say the same'

    def _with(self, scene: Scene, place: Similarity, links: Sequence[GraphLink]) -> PoseGraph:
        """The graph with a scene that is to be fused."""
        number, stamp_ns = self.map.scenes + 1, scene.keyframe.stamp_ns
        return self.map.graph.with_scene(number, place.pose, place.scale, stamp_ns, links)

    def _lengths(self, way: float) -> str:
        """A distance in the map, in words."""
        return f'{way:.2f} m' if self.map.metric else f'{way:.2f} of its units'

    def _fuse(self, scene: Scene, graph: PoseGraph, reason: str, inliers: int = 0, points: int = 0) -> Fusion:
        """Fuse a scene, the newest of `graph`, where that has it, and all others with it."""
        correction = Correction.of(self.map, graph)
        grown = correction.moved(self.map)
        number, place = grown.scenes + 1, grown.graph.place(-1)
        pose, scale = place
        placed = scene.gaussians.scaled(scale).transformed(pose, grown.frame)
        space = free_space(scene, pose, scale, grown.voxel)
        misses = misses_after(grown, space)
        grown = grown.merged(placed, pose[:3, 3], self.budget, scene.scale_source, misses)
        if not (apart_from(grown.keyframes, pose) < 1).any():
            new = keyframe_of(scene, number, pose, scale)
            if new is not None:
                grown = replace(grown, keyframes=with_keyframe(grown.keyframes, new))
        with self._noting:
            objects = correction.moved_objects(self.map.objects, grown)
            if misses:  # else pose or depths are no evidence
                objects = after(objects, grown, space, scene.keyframe.stamp_ns)
            self.map = grown.with_objects(objects)
        self._anchor, self._doubtful = Anchor(number, scene, place), None
        return Fusion(True, reason, pose, scale, inliers, points)


def looks_like(place: Place) -> str:
    """The beginning of the reason why a place is not believed."""
    return (
        f'it looks like the place of scene {place.keyframe.number} in the map, but only {place.inliers} '
        'features say so'
    )
