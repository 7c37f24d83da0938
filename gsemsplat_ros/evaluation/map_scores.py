"""What a map makes of a walk through a house that changes: drift, what stays, what is lost, places told.

A Gaussian of the map is followed by its voxel: which true place and thing it was seen of is noted where its
scene is fused. Where the map moves what it holds, the voxels are followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gsemsplat_ros.evaluation.map_walk import Keyframe
from gsemsplat_ros.evaluation.metrics import at_keyframe, median_scale, rotation_error_deg
from gsemsplat_ros.geometry.similarity import Similarity, similarity
from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.mapping.correction import Correction
from gsemsplat_ros.mapping.fusion import Fusion
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.pose_graph import MAP
from gsemsplat_ros.mapping.voxels import voxel_keys
from gsemsplat_ros.scene.scene import Scene

VIEWS = 3  # that look through a place, after which what was there should have gone
BEHIND = 0.1, 0.05  # m and share of its depth: a view looks through what is nearer than that to what it sees
RIGHT = 0.1  # m from its true place: a Gaussian that must not be removed
PLACE = 0.1  # m, edge of the places of what stands
NEAR = 0.3, 10.0  # m and degrees: a pose that is right
GAP = 3  # keyframes left out in a row that break no chain
NUMBER = re.compile(r'-?\d+(\.\d+)?')  # in the reason why a scene was left out
STRIDE = 2  # of its pixels along either side, a scene's Gaussians are followed


@dataclass(frozen=True)
class Followed:
    """Gaussians of one scene: keys (N,) of their voxels; places (N, 3) m in the world and instances (N,) of
    the truth in their pixels; errors (N,) m of their positions; round: 1 or 2."""

    keys: np.ndarray
    places: np.ndarray
    instances: np.ndarray
    errors: np.ndarray
    round: int


@dataclass
class Record:
    """What one mapper made of a walk; grows by `add`. gone: instances that the second round misses at their
    place. poses: of all keyframes, map_from_camera as the map has it now, None where it was not fused;
    scenes: their numbers in the map. misplaced: number that was placed wrongly after a lost link."""

    camera: Camera
    gone: frozenset[int]
    poses: list[np.ndarray | None] = field(default_factory=list)
    scenes: list[int | None] = field(default_factory=list)
    truth: list[np.ndarray] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    followed: list[Followed] = field(default_factory=list)
    misplaced: int = 0
    map: Map | None = None
    old: Gone | None = None

    def add(self, keyframe: Keyframe, scene: Scene, fusion: Fusion, map_: Map, seconds: float) -> None:
        """Note what fusing the scene of a keyframe gave: `map_` after `seconds`."""
        if keyframe.round == 2 and self.old is None and self.map is not None:
            self.old = Gone.of(self.followed, self.gone, self.map)
        lost = self.map is not None and self.poses[-1] is None
        if lost and fusion.fused and not right_pose(self, keyframe.world_from_camera, fusion):
            self.misplaced += 1
        self._move(map_)
        self.poses.append(fusion.map_from_camera if fusion.fused else None)
        self.scenes.append(map_.scenes if fusion.fused else None)
        self.truth.append(keyframe.world_from_camera)
        self.rounds.append(keyframe.round)
        self.seconds.append(seconds)
        if not fusion.fused:
            reason = NUMBER.sub('n', fusion.reason)
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            return
        self.map = map_
        self.followed.append(follow(keyframe, scene, fusion, map_))
        if self.old is not None and keyframe.round == 2:
            self.old.look(keyframe, self.camera, map_)

    def _move(self, map_: Map) -> None:
        """Poses and voxels follow where `map_` has moved what is in the one before."""
        if self.map is None:
            return
        correction = Correction.of(self.map, map_.graph)
        if correction.nothing:
            return
        graph = map_.graph
        rows = {number: row for row, number in enumerate(graph.numbers.tolist())}
        self.poses = [
            graph.poses[rows[number]] if number in rows else pose
            for pose, number in zip(self.poses, self.scenes)
        ]
        before, old = self.map, self.old
        self.followed = [
            replace(part, keys=moved_keys(before, correction, part.keys)) for part in self.followed
        ]
        if old is not None:
            old.keys = moved_keys(before, correction, old.keys)


@dataclass
class Gone:
    """Gaussians of things that are no longer there: keys (N,), places (N, 3) m. scenes: number in the map
    when they went; counts (N,): views that looked through them; stale: for those with enough views, whether
    they were still there then."""

    keys: np.ndarray
    places: np.ndarray
    scenes: int
    counts: np.ndarray
    stale: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, followed: Sequence[Followed], gone: frozenset[int], map_: Map) -> Gone:
        """Those of `map_` of which most pixels showed one of the `gone` instances."""
        keys = np.concatenate([rows.keys for rows in followed])
        places = np.concatenate([rows.places for rows in followed])
        mine = np.isin(np.concatenate([rows.instances for rows in followed]), list(gone))
        unique, where = np.unique(keys, return_inverse=True)
        share = np.bincount(where, mine) / np.bincount(where)
        chosen = (share > 0.5) & map_.lookup(unique).there
        sums = [np.bincount(where, mine * column) for column in places.T]
        with np.errstate(invalid='ignore'):
            means = np.stack(sums, 1) / np.bincount(where, mine)[:, None]
        return cls(unique[chosen], means[chosen], map_.scenes, np.zeros(chosen.sum(), int))

    def look(self, keyframe: Keyframe, camera: Camera, map_: Map) -> None:
        """A keyframe of the second round was fused into `map_`."""
        through = looks_through(keyframe, camera, self.places)
        self.counts += through
        due = through & (self.counts == VIEWS)
        there, last_seen, *_ = map_.lookup(self.keys[due])
        self.stale.append(there & (last_seen <= self.scenes))

    @property
    def share(self) -> float | None:
        """Share that is stale; None if there were too few views."""
        told = np.concatenate(self.stale) if self.stale else np.zeros(0)
        return float(told.mean()) if len(told) else None


def moved_keys(map_: Map, correction: Correction, keys: np.ndarray) -> np.ndarray:
    """Keys (N,) of voxels of `map_` as those in which their Gaussians are after the correction."""
    there, _, _, owners = map_.lookup(keys)
    all_ = map_.whole.arrays
    rows = np.searchsorted(all_.keys, keys[there])
    moves, owners = correction.map_new_from_map_old, owners[there]
    points = correction.ratios[owners, None] * all_.means[rows]
    points = np.einsum('nij,nj->ni', moves[owners, :3, :3], points) + moves[owners, :3, 3]
    keys = keys.copy()
    keys[there] = voxel_keys(points, map_.voxel)[0]
    return keys


def looks_through(keyframe: Keyframe, camera: Camera, places: np.ndarray) -> np.ndarray:
    """Which (N,) of the places (N, 3) m in the world lie clearly before what a keyframe truly sees."""
    camera_from_world = np.linalg.inv(keyframe.world_from_camera)
    points = places @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    uv, in_front = camera.project(points, near=0.05)
    at, inside = camera.index(uv)
    z = points[:, 2]
    return in_front & inside & (keyframe.depth[at] > z + np.maximum(BEHIND[0], BEHIND[1] * z))


def follow(keyframe: Keyframe, scene: Scene, fusion: Fusion, map_: Map) -> Followed:
    """The Gaussians of the first view that are now in `map_`, with their truth."""
    view = scene.keyframe
    size = view.camera.height, view.camera.width
    means = scene.gaussians.means[: size[0] * size[1]].cpu().numpy().astype(np.float64).reshape(*size, 3)
    depth, instance = at_keyframe(view, keyframe.depth), at_keyframe(view, keyframe.instance)
    true = view.camera.rays(pixel_grid(*size)) * depth[..., None]
    scale = 1.0 if scene.metric else median_scale(means[..., 2], depth)
    errors = np.linalg.norm(means * scale - true, axis=-1)
    some = np.zeros(size, bool)
    some[::STRIDE, ::STRIDE] = True
    some &= instance > 0
    assert fusion.map_from_camera is not None
    pose, world = fusion.map_from_camera, keyframe.world_from_camera
    placed = scene.gaussians.scaled(fusion.scale).transformed(
        pose, map_.frame
    )  # to the last bit as the mapper
    keys, inside = voxel_keys(placed.means[: some.size].cpu().numpy()[some.ravel()], map_.voxel)
    inside &= map_.lookup(keys).there
    places = true[some] @ world[:3, :3].T + world[:3, 3]
    return Followed(
        keys[inside], places[inside], instance[some][inside], errors[some][inside], keyframe.round
    )


def wrongly_removed(record: Record) -> float | None:
    """Share of the true places of what stands that the map once had right, and has nothing of at the end."""
    if record.map is None:
        return None
    rows = []
    for part in record.followed:
        good = part.errors <= RIGHT
        if part.round == 1:
            good &= ~np.isin(part.instances, list(record.gone))
        rows.append((part.keys[good], voxel_keys(part.places[good], PLACE)[0]))
    keys, places = (np.concatenate(column) for column in zip(*rows))
    if not len(keys):
        return None
    unique, where = np.unique(places, return_inverse=True)
    kept = np.bincount(where, record.map.lookup(keys).there, len(unique)) > 0
    return float(1 - kept.mean())


def world_from_map(
    record: Record, poses: Sequence[np.ndarray | None] | None = None
) -> tuple[float, np.ndarray, np.ndarray] | None:
    """Scale, rotation and translation from the map into the world: of a metric map by the first pose, else
    the similarity that fits the camera's positions of the first round; None if too few were placed. poses: of
    the keyframes, None: as the map has them."""
    placed = [
        (pose, true)
        for pose, true, i in zip(poses or record.poses, record.truth, record.rounds)
        if pose is not None and i == 1
    ]
    if record.map is None or not placed:
        return None
    if record.map.metric:
        move = placed[0][1] @ np.linalg.inv(placed[0][0])
        return 1.0, move[:3, :3], move[:3, 3]
    if len(placed) < 3:
        return None
    return similarity(*(np.array([pair[side][:3, 3] for pair in placed]) for side in (0, 1)))


def chained_poses(record: Record) -> list[np.ndarray | None]:
    """Poses of the keyframes by the first link of each, as if no loop had been closed."""
    places = {MAP: Similarity(np.eye(4))}
    for link in record.map.graph.links if record.map is not None else ():
        if link.first == MAP or link.second not in places:
            places[link.second] = places[link.first] @ Similarity(link.first_from_second, link.ratio)
    return [
        places[number].pose if number in places else pose for pose, number in zip(record.poses, record.scenes)
    ]


def drift(record: Record) -> dict[str, float | None]:
    """Of the first round, which ends where it began, beside the first pose:

    drift_m: error of the last position before loops are closed, None if it was not placed, or more than GAP
    keyframes in a row were not: what is then placed may be tied to the beginning instead; drift_closed_m: the
    same in the map at the end, None if it was not placed; path_error_m: mean over the placed ones, in that
    map; still_error_m: the same of a map that links nothing and takes each camera for the first;
    drift_percent: error of the last one placed before loops are closed, of the way until there.
    """
    first_round = [k for k, i in enumerate(record.rounds) if i == 1]
    placed = [k for k in first_round if record.poses[k] is not None]
    chained, closed = (
        position_errors(record, poses, placed) for poses in (chained_poses(record), record.poses)
    )
    if chained is None or closed is None:
        return dict.fromkeys(('drift_m', 'drift_closed_m', 'path_error_m', 'still_error_m', 'drift_percent'))
    true = np.array([record.truth[k][:3, 3] for k in placed])
    unbroken = np.diff(placed).max() <= GAP + 1
    way = np.array([record.truth[k][:3, 3] for k in range(placed[0], placed[-1] + 1)])
    driven = float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum())
    ended = placed[-1] == first_round[-1]
    return {
        'drift_m': float(chained[-1]) if ended and unbroken else None,
        'drift_closed_m': float(closed[-1]) if ended else None,
        'path_error_m': float(closed[1:].mean()),
        'still_error_m': float(np.linalg.norm(true - true[0], axis=1)[1:].mean()),
        'drift_percent': 100 * float(chained[-1]) / driven if driven > 0 else None,
    }


def position_errors(
    record: Record, poses: Sequence[np.ndarray | None], placed: Sequence[int]
) -> np.ndarray | None:
    """Errors (K,) [m] of the positions of `placed` keyframes beside the first one; None if they cannot be
    told."""
    move = world_from_map(record, poses)
    if move is None or len(placed) < 2:
        return None
    scale, rotation, translation = move
    some = [pose for pose in (poses[k] for k in placed) if pose is not None]
    found = np.array([scale * rotation @ pose[:3, 3] + translation for pose in some])
    true = np.array([record.truth[k][:3, 3] for k in placed])
    return np.linalg.norm((found - found[0]) - (true - true[0]), axis=1)


def right_pose(record: Record, true: np.ndarray, fusion: Fusion) -> bool:
    """Whether a scene was placed where the map has its surroundings: compared with the keyframe of the map
    that is nearest to its `true` pose, world_from_camera."""
    assert fusion.map_from_camera is not None
    placed = [k for k, pose in enumerate(record.poses) if pose is not None]
    nearest = min(placed, key=lambda k: float(np.linalg.norm(record.truth[k][:3, 3] - true[:3, 3])))
    move = world_from_map(record)
    unit = move[0] if move else 1.0  # metres
    there = record.poses[nearest]
    assert there is not None
    wanted = np.linalg.inv(record.truth[nearest]) @ true
    found = np.linalg.inv(there) @ fusion.map_from_camera
    off = np.linalg.norm(unit * found[:3, 3] - wanted[:3, 3])
    return bool(off <= NEAR[0] and rotation_error_deg(found, wanted) <= NEAR[1])
