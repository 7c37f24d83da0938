"""Placing scenes in the map, and accepting them. One thread uses the mapper, any thread its map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.geometry.features import matched_pixels
from gsemsplat_ros.geometry.pose import MIN_INLIERS, RATIO_TOLERANCE, REPROJECTION_PX
from gsemsplat_ros.images.camera import pixel_grid
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.scene.forgetting import misses_after
from gsemsplat_ros.scene.map import Map
from gsemsplat_ros.scene.scene import Keyframe, Scene

MIN_SHARE = 0.3  # of measurements, or of matched features, must agree on one pose
MIN_SAME = 0.5  # of the depths in two scenes must agree on one ratio; of random depths a third does
MAX_RESCALE = 2.0  # largest correction of a non-metric scene's scale against the scene before
MIN_ALPHA = 0.5  # a rendered depth is used where at least this much was drawn
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
        second view is the last scene's first; or by features of the two first images. A scene
        without metric scale takes the map's.
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
        if self._anchor is None:
            if not len(self.map):
                return self._fuse(scene, START, 1.0, 'start')
            return Fusion(
                False,
                'nothing ties this scene to the map that was loaded: give its pose in the frame '
                f"'{self.map.frame}' (TF), or clear the map",
            )
        link = shared_keyframe(self._anchor, scene, pair) or by_features(self._anchor, scene)
        if link is None:
            if given is not None:
                return self._fuse(scene, given, 1.0, 'pose given')
            return Fusion(
                False,
                'shares too little with the last scene in the map to say where it stands: drive back '
                'there, give poses (TF), or clear the map',
            )
        problem = link_check(link, self._anchor, scene.metric)
        if problem:
            return Fusion(False, problem, scale=link.ratio, inliers=link.inliers, points=link.points)
        pose, reason = given, 'pose given'
        if pose is None:
            pose, reason = self._anchor.map_from_camera @ link.anchor_from_camera, link.by
        return self._fuse(scene, pose, map_units(scene, link.ratio), reason, link.inliers, link.points)

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
    low, high = (
        (1 - RATIO_TOLERANCE, 1 + RATIO_TOLERANCE)
        if metric
        else (anchor.scale / MAX_RESCALE, anchor.scale * MAX_RESCALE)
    )
    if not low <= link.ratio <= high:
        return f"the map's scale over its own is {link.ratio:.2f} ({link.by}): wanted {low:.2f} to {high:.2f}"
    return ''


def scale_check(anchor: Anchor | None, scene: Scene, map_from_camera: np.ndarray) -> str:
    """Why the lengths of a scene in metres, at its given pose, do not fit the last one in metres; '' if they
    do. Most depths of the points that both see must differ by one factor: what moved or hides others does not
    do that.
    """
    if anchor is None or not (anchor.scene.metric and scene.metric):
        return ''
    keyframe, old = scene.keyframe, anchor.scene.keyframe
    pixels = pixel_grid(old.camera.height, old.camera.width).reshape(-1, 2)
    points, seen = lifted(old, old.to_input_pixel(pixels))
    camera_from_anchor = np.linalg.inv(map_from_camera) @ anchor.map_from_camera
    points = points[seen] @ camera_from_anchor[:3, :3].T + camera_from_anchor[:3, 3]
    uv, in_front = keyframe.camera.project(points)
    inside = in_front & keyframe.camera.in_image(uv)
    again, there = lifted(keyframe, keyframe.to_input_pixel(uv[inside]))
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
    old, new = (s.gaussians.means.cpu().numpy().astype(np.float64) for s in (anchor.scene, scene))
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
    before, after = matched_pixels(old.image, new.image)
    points, seen = lifted(old, before)
    points, after = anchor.scale * points[seen], after[seen]
    if len(points) < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)  # the same scenes give the same pose
    found, rotation, translation, chosen = cv2.solvePnPRansac(
        points,
        new.to_rendering_pixel(after),
        new.camera.K,
        None,
        iterationsCount=200,
        reprojectionError=REPROJECTION_PX * new.camera.width / 512,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or chosen is None or len(chosen) < max(MIN_INLIERS, MIN_SHARE * len(points)):
        return None
    camera_from_anchor = np.eye(4)
    camera_from_anchor[:3, :3] = cv2.Rodrigues(rotation)[0]
    camera_from_anchor[:3, 3] = translation[:, 0]
    chosen = chosen[:, 0]
    depth = points[chosen] @ camera_from_anchor[2, :3] + camera_from_anchor[2, 3]
    again, seen = lifted(new, after[chosen])
    ratio, inliers = depth_ratio(depth[seen], again[seen, 2])
    return Link(np.linalg.inv(camera_from_anchor), ratio, inliers, len(chosen), 'features of both images')


def depth_ratio(before: np.ndarray, after: np.ndarray) -> tuple[float, int]:
    """Median of before / after over depths (N,) of the same points, and how many agree; (nan, 0): none."""
    ahead = (before > 0) & (after > 0)  # false for NaN
    if not ahead.any():
        return float('nan'), 0
    ratios = before[ahead] / after[ahead]
    ratio = float(np.median(ratios))
    return ratio, int((np.abs(ratios / ratio - 1) < RATIO_TOLERANCE).sum())


def map_units(scene: Scene, ratio: float) -> float:
    """Map units per unit of the scene: 1 for a scene in metres."""
    return 1.0 if scene.metric else ratio


def lifted(keyframe: Keyframe, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (M, 3) in the keyframe's camera, in its scene's unit, at pixels (M, 2) of the input image, and
    which (M,) bool have a rendered depth.
    """
    camera = keyframe.camera
    uv = keyframe.to_rendering_pixel(pixels)
    at, inside = camera.index(uv)
    depth = keyframe.rendering.depth.cpu().numpy()[at].astype(np.float64)
    seen = inside & np.isfinite(depth) & (keyframe.rendering.alpha.cpu().numpy()[at] >= MIN_ALPHA)
    return camera.rays(uv) * depth[:, None], seen
