"""How a scene stands to the last one in the map, by what both show, and whether it is accepted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsemsplat_ros.geometry.features import matched_rows
from gsemsplat_ros.geometry.pose import MIN_INLIERS, RATIO_TOLERANCE, camera_pose, depth_ratio
from gsemsplat_ros.geometry.similarity import Similarity
from gsemsplat_ros.images.camera import pixel_grid
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.mapping.pose_graph import MAP, GraphLink, PoseGraph
from gsemsplat_ros.mapping.relocalisation import Place
from gsemsplat_ros.scene.scene import MIN_ALPHA, Scene

MIN_SHARE = 0.3  # of measurements, or of matched features, must agree on one pose
MIN_SAME = 0.5  # of the depths in two scenes must agree on one ratio; of random depths a third does
MAX_RESCALE = 2.0  # largest correction of a non-metric scene's scale against the scene before
# standard deviations of what is measured: turn [rad], position as a part of the distance of what is seen,
# logarithm of the scale
BY_PICTURES = float(np.deg2rad(0.2)), 0.006, 0.04
BY_POSE = float(np.deg2rad(1)), 0.05  # of a given pose: turn [rad], position [m]
EXACT, UNKNOWN = 1e-4, 1.0


@dataclass(frozen=True)
class Anchor:
    """The last scene in the map, with its number and its place, which places the next one."""

    number: int
    scene: Scene
    place: Similarity

    @property
    def scale(self) -> float:
        """Map units per unit of the scene."""
        return self.place.scale


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
    camera_from_anchor = np.linalg.inv(map_from_camera) @ anchor.place.pose
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


def chained(link: Link, anchor: Anchor, scene: Scene) -> Similarity:
    """The scene's place in the map, by its link to the anchor."""
    return Similarity(anchor.place.pose @ link.anchor_from_camera, map_units(scene, link.ratio))


def link_of(link: Link, anchor: Anchor, scene: Scene, number: int) -> GraphLink:
    """The link from the anchor to scene `number`, for the graph."""
    first_from_second = link.anchor_from_camera.copy()
    first_from_second[:3, 3] /= anchor.scale
    ratio = map_units(scene, link.ratio) / anchor.scale
    return GraphLink(anchor.number, number, first_from_second, ratio, sigmas(reach(anchor.scene)))


def link_of_place(place: Place, scale: float, number: int, graph: PoseGraph) -> GraphLink:
    """The link from the keyframe of a place to scene `number` that is known there; from the map itself where
    the graph does not have the keyframe. scale: map units per unit of the scene."""
    kept = place.keyframe
    turn, way, ratio = sigmas(kept.reach / kept.scale)
    if graph.row(kept.number) is None:
        way *= kept.scale
        return GraphLink(MAP, number, place.map_from_camera, scale, (turn, way, ratio), doubtful=True)
    first_from_second = np.linalg.inv(kept.map_from_camera) @ place.map_from_camera
    first_from_second[:3, 3] /= kept.scale
    return GraphLink(
        kept.number, number, first_from_second, scale / kept.scale, (turn, way, ratio), doubtful=True
    )


def start_link(pose: np.ndarray) -> GraphLink:
    """The link of the first scene of a map, whose pose is its frame and whose unit is the map's."""
    return GraphLink(MAP, 1, pose, 1.0, (EXACT, EXACT, EXACT))


def given_link(pose: np.ndarray, scale: float, number: int) -> GraphLink:
    """The link of a pose that was given; its scale was not."""
    return GraphLink(MAP, number, pose, scale, (*BY_POSE, UNKNOWN))


def sigmas(reach: float) -> tuple[float, float, float]:
    """BY_PICTURES of a scene that sees about `reach` far, in its own unit."""
    turn, way, ratio = BY_PICTURES
    return turn, way * reach, ratio


def reach(scene: Scene) -> float:
    """Median depth of what the keyframe shows, in the scene's unit."""
    drawn = scene.on_host
    return float(np.median(drawn.depth[drawn.alpha >= MIN_ALPHA]))
