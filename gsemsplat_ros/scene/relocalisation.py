"""Where a picture was taken in a map, by the keyframes that the map keeps.

A wrong place is worse than none. The likest keyframes are matched by features; a pose on which these agree
must then fit the depths of the scene and the whole picture of the keyframe, and no other place may do so too.
What is compared are the keyframes' pictures and not the map's Gaussians: guessed ones hang in front of
measured ones, so that from another side the map hides what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.geometry.features import DESCRIPTOR_UNIT, Features, described, matched_rows
from gsemsplat_ros.geometry.pose import REPROJECTION_PX, camera_pose, depth_ratio, polished_pose
from gsemsplat_ros.geometry.retrieval import image_vector
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import View
from gsemsplat_ros.scene.map_keyframe import MapKeyframe, apart, apart_from, in_small, measured_depth
from gsemsplat_ros.scene.scene import Scene

CANDIDATES = 6  # keyframes that are matched by features,
OF_ONE_PLACE = 3  # of which at most so many see about the same
MIN_INLIERS = 15  # features; of two rooms six agree on a pose by chance
MIN_SHARE = 0.2  # of the matched features
BLOCK, MIN_BLOCKS = 5, 6  # side in cells, and least number, of the parts of a picture with such features
MIN_CELLS = 0.1  # of the keyframe's picture in small lie in the new one,
LIGHT = 4.0  # cells: what is smoother is not compared
MIN_LIKENESS = 0.5  # and are correlated with it there; two rooms reach 0.3
MIN_SAME, FEWEST_SAME = 0.6, 20  # of the depths agree, and at least so many
SAME_DEPTH, HIDDEN = 0.15, 0.25  # as a fraction: depths that agree; a surface behind another one
ELSEWHERE = 5.0  # `apart` of two places; nearer is the drift of one
CLEARLY = 2  # times as many features as on any other place


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
    """What is looked for: the image's camera and features, its gray cells (h, w), and its scene if it has
    one."""

    camera: Camera
    features: Features
    gray: np.ndarray
    scene: Scene | None = None


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
    return place_of(keyframes, Picture(view.camera, described(view.image), in_small(view.image)))


def place_of_scene(keyframes: Sequence[MapKeyframe], scene: Scene) -> Place | str:
    """Where a scene belongs, or in words why that is not known. Whether its scale fits is not judged."""
    keyframe = scene.keyframe
    return place_of(
        keyframes, Picture(keyframe.input_camera, keyframe.features, in_small(keyframe.image), scene)
    )


def place_of(keyframes: Sequence[MapKeyframe], picture: Picture) -> Place | str:
    """Where a picture was taken, or in words why that is not known."""
    reason = 'no keyframe of the map shows enough of the same'
    passed: list[Match] = []
    matches = [match for kept in likest(keyframes, picture.features) if (match := matched(kept, picture))]
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


def likest(keyframes: Sequence[MapKeyframe], features: Features) -> list[MapKeyframe]:
    """The keyframes that look most like a picture with these features, and not all of one place."""
    chosen: list[MapKeyframe] = []
    if not keyframes:
        return chosen
    vectors = np.stack([kept.vector for kept in keyframes]).astype(np.float32)
    for k in np.argsort(-vectors @ image_vector(features.descriptors), kind='stable'):
        if (apart_from(chosen, keyframes[k].map_from_camera) < ELSEWHERE).sum() < OF_ONE_PLACE:
            chosen.append(keyframes[k])
        if len(chosen) == CANDIDATES:
            break
    return chosen


def matched(kept: MapKeyframe, picture: Picture) -> Match | None:
    """The features of a keyframe in the picture; None: too few agree on a pose."""
    theirs = kept.descriptors * np.float32(DESCRIPTOR_UNIT)
    rows, others = matched_rows(theirs, picture.features.descriptors)
    pose = kept.map_from_camera
    points = kept.points[rows].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    pixels = picture.features.uv[others]
    found = camera_pose(points, pixels, picture.camera) if len(rows) >= MIN_INLIERS else None
    if found is None or len(found[1]) < max(MIN_INLIERS, MIN_SHARE * len(rows)):
        return None
    camera_from_map, agreeing = found
    ratio = 1.0
    if picture.scene is not None:
        depth = points[agreeing] @ camera_from_map[2, :3] + camera_from_map[2, 3]
        ratio = depth_ratio(depth, measured_depth(picture.scene, pixels[agreeing], picture.camera))[0]
    return Match(kept, points, pixels, camera_from_map, agreeing, ratio)


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
    if blocks.mean() < 0.5:  # the rest of the picture must agree: one thing can stand in two rooms
        rows, columns = camera.index(uv)[0]
        both &= ~blocks[rows // BLOCK, columns // BLOCK]
    uv, depth, cells = uv[both], points[both, 2], high_pass(kept.gray).ravel()[both]
    if picture.scene is not None:
        scale = 1.0 if picture.scene.metric else match.ratio
        times = depth / (scale * measured_depth(picture.scene, uv, camera))
        known, same = int(np.isfinite(times).sum()), int((np.abs(times - 1) < SAME_DEPTH).sum())
        if same < max(FEWEST_SAME, MIN_SAME * known):
            return f'only {same} of {known} depths agree'
        visible = ~(times > 1 + HIDDEN)  # true where the new depth is unknown
        uv, cells = uv[visible], cells[visible]
    likeness = 0.0
    if len(uv) >= FEWEST_SAME:
        at = uv.astype(np.float32)[:, None]
        now = cv2.remap(high_pass(picture.gray), at, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)[:, 0]
        spread = now.std() * cells.std()
        likeness = ((now - now.mean()) * (cells - cells.mean())).mean() / max(spread, 1e-9)
    if likeness < MIN_LIKENESS:
        return f'the likeness of the pictures is {likeness:.2f}, wanted {MIN_LIKENESS}'
    return ''


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
