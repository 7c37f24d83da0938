"""Placing scenes in the map, and accepting them. One thread adds; any thread reads the map, and notes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.scene.forgetting import free_space, misses_after
from gsemsplat_ros.scene.links import (
    Anchor,
    by_features,
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
from gsemsplat_ros.scene.map import Map
from gsemsplat_ros.scene.map_keyframe import apart, apart_from, keyframe_of, with_keyframe
from gsemsplat_ros.scene.object_identity import after, observed, recognised
from gsemsplat_ros.scene.pose_graph import GraphLink
from gsemsplat_ros.scene.relocalisation import SURE, Place, place_of_image, place_of_scene
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

    def add(self, scene: Scene, pair: Pair) -> Fusion:
        """Fuse `scene`, which was built from `pair`, into the map; if refused, the map stays as it was.

        If the pair's first view has a `map_from_camera` [m], in the map's frame, that is its pose, which then
        must fit the depths of the last scene.
        Else the scene is chained to the last one in the map: by the keyframe in both, if the pair's
        second view is the last scene's first; or by features of the two first images. Where neither is
        found, and in a map that was loaded, it is looked for among the keyframes of the map. A scene without
        metric scale takes the map's. Where few features say what place that is, it waits for a second scene,
        from elsewhere, that says the same.
        """
        problem = self_check(scene)
        if problem:
            return Fusion(False, problem, inliers=scene.inliers, points=scene.points)
        given, anchor, number = pair.first.map_from_camera, self._anchor, self.map.scenes + 1
        if given is not None and (scene.metric or anchor is None):
            problem = scale_check(anchor, scene, given)
            if problem:
                return Fusion(False, problem)
            return self._fuse(scene, given, 1.0, 'pose given', [given_link(given, 1.0, number)])
        if anchor is None and not len(self.map):
            return self._fuse(scene, START, 1.0, 'start', [start_link(START)])
        link = None
        if anchor is not None:
            link = shared_keyframe(anchor, scene, pair) or by_features(anchor, scene)
        if anchor is None or link is None:
            if given is None:
                return self._known(scene, pair)
            return self._fuse(scene, given, 1.0, 'pose given', [given_link(given, 1.0, number)])
        problem = link_check(link, anchor, scene.metric)
        if problem:
            return Fusion(False, problem, scale=link.ratio, inliers=link.inliers, points=link.points)
        pose, reason = given, 'pose given'
        scale, links = map_units(scene, link.ratio), [link_of(link, anchor, scene, number)]
        if pose is None:
            pose, reason = anchor.map_from_camera @ link.anchor_from_camera, link.by
        else:
            links.append(given_link(pose, scale, number))
        return self._fuse(scene, pose, scale, reason, links, link.inliers, link.points)

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

    def _known(self, scene: Scene, pair: Pair) -> Fusion:
        """Fuse a scene where its picture was taken before."""
        place = place_of_scene(self.map.keyframes, scene)
        if isinstance(place, Place):
            inliers, points = place.inliers, place.points
            problem = ratio_check(place.ratio, scene.metric, place.keyframe.scale, 'a place known again')
            problem = problem or self._doubt(scene, pair, place)
            if problem:
                return Fusion(False, problem, None, place.ratio, inliers, points)
            reason, scale = f'place of scene {place.keyframe.number}', map_units(scene, place.ratio)
            links = [link_of_place(place, scene, self.map.scenes + 1, self.map.graph)]
            return self._fuse(scene, place.map_from_camera, scale, reason, links, inliers, points)
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
            or apart(first.map_from_camera @ link.anchor_from_camera, reach, pose) >= 1
        ):
            self._doubtful = Anchor(self.map.scenes + 1, scene, pose, map_units(scene, place.ratio))
        elif apart(first.map_from_camera, reach, pose) >= 1:
            return ''
        return f'{looks_like(place)}: drive on, a second scene from elsewhere must say the same'

    def _fuse(
        self,
        scene: Scene,
        map_from_camera: np.ndarray,
        scale: float,
        reason: str,
        links: Sequence[GraphLink],
        inliers: int = 0,
        points: int = 0,
    ) -> Fusion:
        pose = np.array(map_from_camera, np.float64)
        placed = scene.gaussians.scaled(scale).transformed(pose, self.map.frame)
        misses = misses_after(self.map, scene, pose, scale)
        grown = self.map.merged(placed, pose[:3, 3], self.budget, scene.scale_source, misses)
        kept, number = grown.keyframes, grown.scenes
        if not (apart_from(kept, pose) < 1).any():
            new = keyframe_of(scene, number, pose, scale)
            kept = with_keyframe(kept, new) if new is not None else kept
        graph = grown.graph.with_scene(number, pose, scale, scene.keyframe.stamp_ns, links)
        grown = replace(grown, keyframes=kept, graph=graph)
        space = free_space(scene, pose, scale, grown.voxel)
        with self._noting:
            objects = after(self.map.objects, grown, space, scene.keyframe.stamp_ns)
            self.map = grown.with_objects(objects)
        self._anchor, self._doubtful = Anchor(number, scene, pose, scale), None
        return Fusion(True, reason, pose, scale, inliers, points)


def looks_like(place: Place) -> str:
    """The beginning of the reason why a place is not believed."""
    return (
        f'it looks like the place of scene {place.keyframe.number} in the map, but only {place.inliers} '
        'features say so'
    )
