"""Where a picture was taken in a map, by the keyframes that the map keeps.

A wrong place is worse than none. The likest keyframes are matched by features; a pose on which these agree
must then fit the depths of the scene and the whole picture of the keyframe, and no other place may do so too.
What is compared are the keyframes' pictures and not the map's Gaussians: guessed ones hang in front of
measured ones, so that from another side the map hides what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from gsemsplat_ros.geometry.features import DESCRIPTOR_UNIT, LONG_SIDE, Features, described, matched_rows
from gsemsplat_ros.geometry.pose import REPROJECTION_PX, camera_pose, depth_ratio, polished_pose
from gsemsplat_ros.geometry.retrieval import image_vector
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import View
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe, apart, apart_from, in_small, measured_depth
from gsemsplat_ros.scene.scene import Scene

CANDIDATES = 6  # keyframes that are matched by features,
OF_ONE_PLACE = 3  # of which at most so many see about the same
SEED = 8  # features must agree on a pose before more are looked for near it; of two rooms six do
AROUND, MIN_FEATURE_LIKENESS = 0.015, 0.75  # at most so far, as a part of the width; at least so alike
MIN_INLIERS = 15  # features must agree in the end,
MIN_SHARE = 0.2  # of those that were matched
BLOCK, MIN_BLOCKS = 5, 8  # side in cells, and least number, of the parts of a picture with such features
MIN_CELLS = 0.1  # of the keyframe's picture in small lie in the new one,
LIGHT = 4.0  # cells: what is smoother is not compared
MIN_LIKENESS, REST_LIKENESS = 0.6, 0.5  # and are correlated with it; two rooms reach 0.3
MIN_SAME, REST_SAME, FEWEST_SAME = 0.65, 0.5, 20  # of the depths agree, and at least so many
SAME_DEPTH, HIDDEN = 0.15, 0.25  # as a fraction: depths that agree; a surface behind another one
ELSEWHERE = 5.0  # `apart` of two places; nearer is the drift of one
CLEARLY = 2  # times as many features as on any other place
SURE = 100  # features must agree where nothing else says so; one thing that stands in two rooms has 62


@dataclass(frozen=True)
class Place:
    """Where a picture was taken. map_from_camera (4, 4): its camera in the map; keyframe: of the map, that
    shows the same; `inliers` of `points` matched features agree; ratio: map units per unit of the scene, by
    its depths, 1 for an image alone.
    """

    map_from_camera: np.ndarray
    keyframe: MapKeyframe
    inliers: int
    points: int
    ratio: float = 1.0


@dataclass(frozen=True)
class Picture:
    """What is looked for: the image's camera and features, their vector (see `image_vector`), and its gray
    cells (h, w). depth: gives measured depths at pixels of the image as a camera has it (see
    `measured_depth`), None for an image alone; metric: whether they are metres."""

    camera: Camera
    features: Features
    vector: np.ndarray
    gray: np.ndarray
    depth: Callable[[np.ndarray, Camera], np.ndarray] | None = None
    metric: bool = False


@dataclass(frozen=True)
class Match:
    """A keyframe with features of the picture: points (M, 3) in the map at pixels (M, 2) of the image.
    camera_from_map (4, 4): the pose on which the `rows` (R,) of them agree; ratio: see Place."""

    keyframe: MapKeyframe
    points: np.ndarray
    pixels: np.ndarray
    camera_from_map: np.ndarray
    rows: np.ndarray
    ratio: float

    @property
    def map_from_camera(self) -> np.ndarray:
        """The same pose the other way round."""
        return np.linalg.inv(self.camera_from_map)


def place_of_image(keyframes: Sequence[MapKeyframe], view: View) -> Place | str:
    """Where a single image was taken, or in words why that is not known."""
    if view.camera is None:
        return 'the image has no camera: give its calibration'
    features = described(view.image)
    vector = image_vector(features.descriptors)
    return place_of(keyframes, Picture(view.camera, features, vector, in_small(view.image)))


def place_of_scene(keyframes: Sequence[MapKeyframe], scene: Scene) -> Place | str:
    """Where a scene belongs, or in words why that is not known. Whether its scale fits is not judged."""
    keyframe, depth = scene.keyframe, partial(measured_depth, scene)
    camera, features, gray = keyframe.input_camera, keyframe.features, in_small(keyframe.image)
    vector = image_vector(features.descriptors)
    return place_of(keyframes, Picture(camera, features, vector, gray, depth, scene.metric))


def place_of_keyframe(keyframes: Sequence[MapKeyframe], kept: MapKeyframe, metric: bool) -> Place | str:
    """Where a keyframe of another map belongs, or in words why that is not known; `metric`: both maps are in
    metres."""
    camera = kept.camera.resized(LONG_SIDE, round(LONG_SIDE * kept.camera.height / kept.camera.width))
    features = Features(camera.project(kept.points)[0], kept.descriptors * np.float32(DESCRIPTOR_UNIT))
    return place_of(keyframes, Picture(camera, features, kept.vector, kept.gray, kept.depth_at, metric))


def place_of(keyframes: Sequence[MapKeyframe], picture: Picture) -> Place | str:
    """Where a picture was taken, or in words why that is not known."""
    reason = 'no keyframe of the map shows enough of the same'
    passed: list[Match] = []
    matches = [match for kept in likest(keyframes, picture.vector) if (match := matched(kept, picture))]
    for match in sorted(matches, key=lambda match: len(match.rows)):  # the best one gives the reason
        problem = contradiction(match, picture)
        if problem:
            reason = f'it looks like the place of scene {match.keyframe.number} in the map, but {problem}'
        else:
            passed.insert(0, match)
    if not passed:
        return reason
    best = passed[0]
    for other in passed[1:]:
        if len(other.rows) * CLEARLY > len(best.rows) and far(best, other) > ELSEWHERE:
            numbers = f'{best.keyframe.number} and {other.keyframe.number}'
            return f'it looks like the places of scenes {numbers} in the map alike'
    return Place(
        polished([match for match in passed if far(best, match) < 1], picture.camera),
        best.keyframe,
        len(best.rows),
        len(best.points),
        best.ratio,
    )


def likest(keyframes: Sequence[MapKeyframe], vector: np.ndarray) -> list[MapKeyframe]:
    """The keyframes that look most like a picture with this vector (D,), and not all of one place."""
    chosen: list[MapKeyframe] = []
    if not keyframes:
        return chosen
    vectors = np.stack([kept.vector for kept in keyframes]).astype(np.float32)
    for k in np.argsort(-vectors @ vector.astype(np.float32), kind='stable'):
        if (apart_from(chosen, keyframes[k].map_from_camera) < ELSEWHERE).sum() < OF_ONE_PLACE:
            chosen.append(keyframes[k])
        if len(chosen) == CANDIDATES:
            break
    return chosen


def matched(kept: MapKeyframe, picture: Picture) -> Match | None:
    """The features of a keyframe in the picture; None: too few agree on a pose."""
    features, camera, pose = picture.features, picture.camera, kept.map_from_camera
    theirs = kept.descriptors * np.float32(DESCRIPTOR_UNIT)
    all_points = kept.points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    rows, others = distinct(kept, features, *matched_rows(theirs, features.descriptors))
    first = camera_pose(all_points[rows], features.uv[others], camera)
    if first is None or len(first[1]) < SEED:
        return None
    # once more, and only where that pose sees them: there the next best need not be worse
    uv, in_front = camera.project(all_points @ first[0][:3, :3].T + first[0][:3, 3])
    near = (np.abs(uv[:, None] - features.uv) < AROUND * camera.width).all(2) & in_front[:, None]
    likeness = np.where(near, theirs @ features.descriptors.T, 0)
    best = likeness.argmax(1)
    same = (likeness.argmax(0)[best] == np.arange(len(best))) & (likeness.max(1) > MIN_FEATURE_LIKENESS)
    rows, others = distinct(kept, features, np.flatnonzero(same), best[same])
    points, pixels = all_points[rows], features.uv[others]
    found = camera_pose(points, pixels, camera)
    if found is None or len(found[1]) < max(MIN_INLIERS, MIN_SHARE * len(rows)):
        return None
    camera_from_map, agreeing = found
    ratio = 1.0
    if picture.depth is not None:
        depth = points[agreeing] @ camera_from_map[2, :3] + camera_from_map[2, 3]
        ratio = depth_ratio(depth, picture.depth(pixels[agreeing], camera))[0]
    return Match(kept, points, pixels, camera_from_map, agreeing, ratio)


def distinct(
    kept: MapKeyframe, features: Features, rows: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Matched rows of a keyframe's features and of others without what is there twice: one pixel may have
    features of several directions."""
    for values, of in ((kept.points, 0), (features.uv, 1)):
        once = np.sort(np.unique(values[(rows, others)[of]], axis=0, return_index=True)[1])
        rows, others = rows[once], others[once]
    return rows, others


def contradiction(match: Match, picture: Picture) -> str:
    """Why the keyframe's whole picture does not fit the new one at the pose of the match; '' if it does."""
    kept, camera = match.keyframe, picture.camera.resized(*picture.gray.shape[::-1])
    camera_from_kept = match.camera_from_map @ kept.map_from_camera
    points = kept.camera.unproject(kept.depth.astype(np.float64)).reshape(-1, 3)
    points = points @ camera_from_kept[:3, :3].T + camera_from_kept[:3, 3]
    uv, in_front = camera.project(points)
    both = in_front & camera.in_image(uv)  # false where there is no depth
    if both.mean() < MIN_CELLS:
        return 'too little of its picture is seen'
    blocks = np.zeros((-(-camera.height // BLOCK), -(-camera.width // BLOCK)), bool)
    agreeing = picture.camera.rays(match.pixels[match.rows])
    rows, columns = camera.index(camera.project(agreeing)[0])[0]
    blocks[rows // BLOCK, columns // BLOCK] = True
    if blocks.sum() < MIN_BLOCKS:
        return 'only one thing in it is the same'
    rows, columns = camera.index(uv)[0]
    rest = both & ~blocks[rows // BLOCK, columns // BLOCK]
    likeness, kept_cells = [], high_pass(kept.gray).ravel()
    # away from the features too: one thing can stand in two rooms
    for part, share, fewest in (both, MIN_SAME, FEWEST_SAME), (rest, REST_SAME, 0):
        visible = part
        if picture.depth is not None:
            scale = 1.0 if picture.metric else match.ratio
            times = points[:, 2] / (scale * picture.depth(uv, camera))
            known = part & np.isfinite(times)
            same = int((np.abs(times[known] - 1) < SAME_DEPTH).sum())
            if same < max(fewest, share * known.sum()):
                return f'only {same} of {known.sum()} depths agree'
            visible = part & ~(times > 1 + HIDDEN)  # true where the new depth is unknown
        likeness.append(correlation(kept_cells[visible], high_pass(picture.gray), uv[visible]))
    alone = picture.depth is None and rest.sum() >= FEWEST_SAME
    if likeness[0] < MIN_LIKENESS or (alone and likeness[1] < REST_LIKENESS):
        return f'the likeness of the pictures is {min(likeness):.2f}, wanted {MIN_LIKENESS}'
    return ''


def correlation(values: np.ndarray, cells: np.ndarray, uv: np.ndarray) -> float:
    """Of values (N,) with the cells (h, w) at pixels (N, 2), 0 for too few."""
    if len(uv) < FEWEST_SAME:
        return 0.0
    at = uv.astype(np.float32)[:, None]
    there = cv2.remap(cells, at, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)[:, 0]
    values, there = values - values.mean(), there - there.mean()
    return float((values * there).mean() / max(values.std() * there.std(), 1e-9))


def high_pass(gray: np.ndarray) -> np.ndarray:
    """Gray cells (h, w) without what is smooth, float32."""
    cells = gray.astype(np.float32)
    return cells - cv2.GaussianBlur(cells, (0, 0), LIGHT)


def far(a: Match, b: Match) -> float:
    """How far apart two matches see the camera, as `apart`."""
    return float(apart(a.map_from_camera[None], np.array([a.keyframe.reach]), b.map_from_camera)[0])


def polished(matches: Sequence[Match], camera: Camera) -> np.ndarray:
    """map_from_camera (4, 4) that fits all features of these matches best which the first of them fits."""
    points, pixels = (np.concatenate([getattr(m, name) for m in matches]) for name in ('points', 'pixels'))
    pose = matches[0].camera_from_map
    uv, in_front = camera.project(points @ pose[:3, :3].T + pose[:3, 3])
    fits = in_front & (np.linalg.norm(uv - pixels, axis=1) < REPROJECTION_PX * camera.width / 512)
    return np.linalg.inv(polished_pose(points[fits], pixels[fits], camera, pose))
