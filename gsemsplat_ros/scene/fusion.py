"""Placing scenes in the map, and accepting them. One thread uses the mapper, any thread its map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.geometry.features import matched_rows
from gsemsplat_ros.geometry.pose import MIN_INLIERS, RATIO_TOLERANCE, camera_pose, depth_ratio
from gsemsplat_ros.images.camera import pixel_grid
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.scene.forgetting import misses_after
from gsemsplat_ros.scene.map import Map
from gsemsplat_ros.scene.map_keyframe import apart_from, keyframe_of, with_keyframe
from gsemsplat_ros.scene.relocalisation import Place, place_of_image, place_of_scene
from gsemsplat_ros.scene.scene import Scene

MIN_SHARE = 0.3  # of measurements, or of matched features, must agree on one pose
MIN_SAME = 0.5  # of the depths in two scenes must agree on one ratio; of random depths a third does
MAX_RESCALE = 2.0  # largest correction of a non-metric scene's scale against the scene before
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


@dataclass(frozen=True)
class Anchor:
    """The last scene in the map, which places the next one; scale: map units per unit of the scene."""

    scene: Scene
    map_from_camera: np.ndarray
    scale: float


@dataclass(frozen=True)
class Link:
    """The scene's camera relative to the anchor's. anchor_from_camera (4, 4): in the map's
    unit; ratio: map units per unit of the scene, by its depths; `inliers` of `points` of them
    agree; by: kind of comparison, in words.
    """

    anchor_from_camera: np.ndarray
    ratio: float
    inliers: int
    points: int
    by: str


class Mapper:
    """Fuses scene after scene. `map` is replaced, never changed, so any thread may read it; one thread adds.

    budget: largest number of Gaussians in the map; it may change at any time.
    """

    def __init__(self, map_: Map, budget: int):
        self.map = map_
        self.budget = budget
        self._anchor: Anchor | None = None

    def add(self, scene: Scene, pair: Pair) -> Fusion:
        """Fuse `scene`, which was built from `pair`, into the map; if refused, the map stays as it was.

        If the pair's first view has a `map_from_camera` [m], in the map's frame, that is its pose, which then
        must fit the depths of the last scene.
        Else the scene is chained to the last one in the map: by the keyframe in both, if the pair's
        second view is the last scene's first; or by features of the two first images. Where neither is
        found, and in a map that was loaded, it is looked for among the keyframes of the map. A scene without
        metric scale takes the map's.
        """
        given = pair.first.map_from_camera
        problem = self_check(scene)
        if problem:
            return Fusion(False, problem, inliers=scene.inliers, points=scene.points)
        if given is not None and (scene.metric or self._anchor is None):
            problem = scale_check(self._anchor, scene, given)
            if problem:
                return Fusion(False, problem)
            return self._fuse(scene, given, 1.0, 'pose given')
        anchor = self._anchor
        if anchor is None and not len(self.map):
            return self._fuse(scene, START, 1.0, 'start')
        link = None
        if anchor is not None:
            link = shared_keyframe(anchor, scene, pair) or by_features(anchor, scene)
        if anchor is None or link is None:
            return self._fuse(scene, given, 1.0, 'pose given') if given is not None else self._known(scene)
        problem = link_check(link, anchor, scene.metric)
        if problem:
            return Fusion(False, problem, scale=link.ratio, inliers=link.inliers, points=link.points)
        pose, reason = given, 'pose given'
        if pose is None:
            pose, reason = anchor.map_from_camera @ link.anchor_from_camera, link.by
        return self._fuse(scene, pose, map_units(scene, link.ratio), reason, link.inliers, link.points)

    def relocalize(self, seen: View | Scene) -> Place | str:
        """Where an image, or that of a scene, was taken in the map, or in words why that is not known."""
        if not self.map.keyframes:
            return 'the map has no keyframes: fuse scenes into it first'
        if isinstance(seen, View):
            return place_of_image(self.map.keyframes, seen)
        place = place_of_scene(self.map.keyframes, seen)
        if isinstance(place, str):
            return place
        problem = ratio_check(place.ratio, seen.metric, place.keyframe.scale, 'a place known again')
        return problem or place

    def _known(self, scene: Scene) -> Fusion:
        """Fuse a scene where its picture was taken before."""
        place = place_of_scene(self.map.keyframes, scene)
        if isinstance(place, Place):
            inliers, points = place.inliers, place.points
            problem = ratio_check(place.ratio, scene.metric, place.keyframe.scale, 'a place known again')
            if problem:
                return Fusion(False, problem, None, place.ratio, inliers, points)
            reason, scale = f'place of scene {place.keyframe.number}', map_units(scene, place.ratio)
            return self._fuse(scene, place.map_from_camera, scale, reason, inliers, points)
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

    def _fuse(
        self,
        scene: Scene,
        map_from_camera: np.ndarray,
        scale: float,
        reason: str,
        inliers: int = 0,
        points: int = 0,
    ) -> Fusion:
        pose = np.array(map_from_camera, np.float64)
        placed = scene.gaussians.scaled(scale).transformed(pose, self.map.frame)
        misses = misses_after(self.map, scene, pose, scale)
        self.map = self.map.merged(placed, pose[:3, 3], self.budget, scene.scale_source, misses)
        kept = self.map.keyframes
        if not (apart_from(kept, pose) < 1).any():
            new = keyframe_of(scene, self.map.scenes, pose, scale)
            if new is not None:
                self.map = replace(self.map, keyframes=with_keyframe(kept, new))
        self._anchor = Anchor(scene, pose, scale)
        return Fusion(True, reason, pose, scale, inliers, points)


def self_check(scene: Scene) -> str:
    """Why the pair itself does not hold together; '' when it does."""
    if scene.first_from_second is None:
        return 'the pose of the second camera was not found'
    if scene.inliers < max(MIN_INLIERS, MIN_SHARE * scene.points):
        return f'{scene.inliers} of {scene.points} measurements agree with its pose and scale: too few'
    return ''


def link_check(link: Link, anchor: Anchor, metric: bool) -> str:
    """Why the scene does not fit the map, '' if it does; `metric`: in metres, not to be rescaled."""
    if link.inliers < max(MIN_INLIERS, MIN_SAME * link.points):
        share = f'{link.inliers} of {link.points} depths'
        return f'{share} agree with the last scene in the map ({link.by}): too few'
    return ratio_check(link.ratio, metric, anchor.scale, link.by)


def ratio_check(ratio: float, metric: bool, scale: float, by: str) -> str:
    """Why a scale is not that of the map, '' if it is. ratio: map units per unit of the scene; scale: that of
    what it is compared with; `metric`: in metres, not to be rescaled; by: kind of comparison, in words.
    """
    low, high = (
        (1 - RATIO_TOLERANCE, 1 + RATIO_TOLERANCE) if metric else (scale / MAX_RESCALE, scale * MAX_RESCALE)
    )
    if low <= ratio <= high:
        return ''
    return f"the map's scale over its own is {ratio:.2f} ({by}): wanted {low:.2f} to {high:.2f}"


def scale_check(anchor: Anchor | None, scene: Scene, map_from_camera: np.ndarray) -> str:
    """Why the lengths of a scene in metres, at its given pose, do not fit the last one in metres; '' if they
    do. Most depths of the points that both see must differ by one factor: what moved or hides others does not
    do that.
    """
    if anchor is None or not (anchor.scene.metric and scene.metric):
        return ''
    keyframe, old = scene.keyframe, anchor.scene.keyframe
    pixels = pixel_grid(old.camera.height, old.camera.width).reshape(-1, 2)
    points, seen = anchor.scene.lifted(old.to_input_pixel(pixels))
    camera_from_anchor = np.linalg.inv(map_from_camera) @ anchor.map_from_camera
    points = points[seen] @ camera_from_anchor[:3, :3].T + camera_from_anchor[:3, 3]
    uv, in_front = keyframe.camera.project(points)
    inside = in_front & keyframe.camera.in_image(uv)
    again, there = scene.lifted(keyframe.to_input_pixel(uv[inside]))
    ratio, inliers = depth_ratio(points[inside][there, 2], again[there, 2])
    if inliers < max(MIN_INLIERS, MIN_SAME * there.sum()) or 1 / MAX_RESCALE <= ratio <= MAX_RESCALE:
        return ''
    return (
        f'the last scene in the map shows the same things {ratio:.2f} times as far away (poses given): '
        f'wanted {1 / MAX_RESCALE:.2f} to {MAX_RESCALE:.2f}; is the baseline, or the TF of the camera, wrong?'
    )


def shared_keyframe(anchor: Anchor, scene: Scene, pair: Pair) -> Link | None:
    """The link by one image in two scenes: second in the new, first in the anchor's; None: they share none.

    Each of its pixels has a depth in both; the median of their ratios is the scale.
    """
    keyframe = anchor.scene.keyframe
    if pair.baseline_m is not None or (pair.second.stamp_ns, pair.second.frame) != (
        keyframe.stamp_ns,
        keyframe.frame,
    ):
        return None
    old, new = (s.on_host.means.astype(np.float64) for s in (anchor.scene, scene))
    if len(old) != len(new):
        return None  # images of other sizes
    assert scene.first_from_second is not None  # self_check
    second_from_first = np.linalg.inv(scene.first_from_second)
    before = anchor.scale * old[: len(old) // 2, 2]  # view 1 comes first, row by row (Gaussians)
    after = new[len(new) // 2 :] @ second_from_first[2, :3] + second_from_first[2, 3]
    ratio, inliers = depth_ratio(before, after)
    second_from_first[:3, 3] *= map_units(scene, ratio)
    return Link(second_from_first, ratio, inliers, len(before), 'keyframe in both')


def by_features(anchor: Anchor, scene: Scene) -> Link | None:
    """The link by features of both first images, the anchor's depths and PnP; None: too few agree."""
    old, new = anchor.scene.keyframe, scene.keyframe
    rows, others = matched_rows(old.features.descriptors, new.features.descriptors)
    points, seen = anchor.scene.lifted(old.features.uv[rows])
    points, after = anchor.scale * points[seen], new.features.uv[others][seen]
    found = camera_pose(points, new.to_rendering_pixel(after), new.camera)
    if found is None or len(found[1]) < max(MIN_INLIERS, MIN_SHARE * len(points)):
        return None
    camera_from_anchor, chosen = found
    depth = points[chosen] @ camera_from_anchor[2, :3] + camera_from_anchor[2, 3]
    again, seen = scene.lifted(after[chosen])
    ratio, inliers = depth_ratio(depth[seen], again[seen, 2])
    return Link(np.linalg.inv(camera_from_anchor), ratio, inliers, len(chosen), 'features of both images')


def map_units(scene: Scene, ratio: float) -> float:
    """Map units per unit of the scene: 1 for a scene in metres."""
    return 1.0 if scene.metric else ratio
