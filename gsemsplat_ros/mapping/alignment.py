"""Where one map stands in another, by the keyframes of both.

Each keyframe of map b is looked for among those of map a, as a scene is, and says by itself where b stands.
What most of them say is taken, unless they all look at one thing, as many say something else, or too few of
those that ought to be known again there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gsemsplat_ros.geometry.similarity import similarity
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe, apart, apart_from
from gsemsplat_ros.mapping.relocalisation import CLEARLY, ELSEWHERE, Place, place_of_keyframe

FEWEST = 3  # keyframes must agree
DRIFT, SAME_SCALE = 2.0, 0.25  # largest `apart` of poses, and difference of scales as a fraction, that agree
NEAR, MIN_SHARE = 1.5, 0.3  # `apart` of keyframes that see about the same; at least so many of these agree
ROUNDS = 10  # of taking those that agree, and what fits them best


@dataclass(frozen=True)
class Alignment:
    """Where map b stands in map a: a point p of b is at a_from_b (scale p), with a_from_b (4, 4) rigid. Of
    the `asked` keyframes of b `known` were found in a; those that say this are `agreeing`, with their places.
    """

    a_from_b: np.ndarray
    scale: float = 1.0
    agreeing: tuple[tuple[MapKeyframe, Place], ...] = ()
    known: int = 0
    asked: int = 0

    def placed(self, b_from_camera: np.ndarray) -> np.ndarray:
        """Poses (..., 4, 4) in b as poses in a."""
        poses = b_from_camera.copy()
        poses[..., :3, 3] *= self.scale
        return self.a_from_b @ poses


class Votes(NamedTuple):
    """K keyframes of b that were found in a: their poses (K, 4, 4) in both; reaches (K,): how far they see,
    in the unit of a; scales (K,): units of a in one of b."""

    a_from_camera: np.ndarray
    b_from_camera: np.ndarray
    reaches: np.ndarray
    scales: np.ndarray

    def select(self, rows: np.ndarray) -> Votes:
        """Some of them."""
        return Votes(*(values[rows] for values in self))


def alignment_of(a: Map, b: Map, tick: Callable[[], object] = lambda: None) -> Alignment | str:
    """Where `b` stands in `a`, or in words why that is not known. tick: called after each keyframe of `b`."""
    for map_, name in ((a, 'first'), (b, 'second')):
        if not map_.keyframes:
            return f'the {name} map has no keyframes, as it is of an earlier release or without texture'
    if b.metric and not a.metric:
        return 'lengths are metres in the second map and not in the first: exchange them'
    known = []
    for kept in b.keyframes:
        place = place_of_keyframe(a.keyframes, kept, b.metric)
        if isinstance(place, Place):
            known.append((kept, place))
        tick()
    share = f'{len(known)} of {len(b.keyframes)} keyframes of the second map are known again in the first'
    if len(known) < FEWEST:
        return f'{share}: wanted {FEWEST} at least; both maps must show a common place'
    votes = Votes(
        np.stack([place.map_from_camera for _, place in known]),
        np.stack([kept.map_from_camera for kept, _ in known]),
        np.array([place.keyframe.reach for _, place in known]),
        np.array([1.0 if b.metric else place.ratio for _, place in known]),
    )
    found, agree = elected(votes, b.metric)
    count = int(agree.sum())
    if count < FEWEST:
        return f'{share}, but no {FEWEST} agree on where it stands'
    _, others = elected(votes.select(~agree), b.metric)
    if others.sum() * CLEARLY > count:
        return f'{share}, but {count} of them say that it stands in one place, and {others.sum()} in another'
    seen = votes.select(agree)
    if not (apart(seen.a_from_camera[:, None], seen.reaches[:, None], seen.a_from_camera) > ELSEWHERE).any():
        return f'{share}, but all of them look at the same thing: it may be in both'
    poses = found.placed(np.stack([kept.map_from_camera for kept in b.keyframes]))
    near = sum(bool((apart_from(a.keyframes, pose) < NEAR).any()) for pose in poses)
    if count < MIN_SHARE * near:
        return f'{share}, but where {count} of them say that it stands, {near} ought to be'
    pairs = tuple(pair for pair, agrees in zip(known, agree) if agrees)
    return Alignment(found.a_from_b, found.scale, pairs, len(known), len(b.keyframes))


def elected(votes: Votes, metric: bool) -> tuple[Alignment, np.ndarray]:
    """What most of the votes say, and which (K,) these are; `metric`: both maps are in metres."""
    best, agree = Alignment(np.eye(4)), np.zeros(len(votes.scales), bool)
    for k in range(len(agree)):
        if agree[k]:
            continue  # what it says has been tried
        found, now = fitted(votes.select(np.array([k])), metric), agree
        for _ in range(ROUNDS):
            before, now = now, agreeing(votes, found)
            if not now.any() or (now == before).all():
                break
            found = fitted(votes.select(now), metric)
        if now.sum() > agree.sum():
            best, agree = found, now
    return best, agree


def agreeing(votes: Votes, alignment: Alignment) -> np.ndarray:
    """Which (K,) of the votes say about the same as an alignment."""
    off = apart(votes.a_from_camera, votes.reaches, alignment.placed(votes.b_from_camera))
    return (off < DRIFT) & (np.abs(votes.scales / alignment.scale - 1) < SAME_SCALE)


def fitted(votes: Votes, metric: bool) -> Alignment:
    """What fits the votes best: points around each camera, as far from it as it sees, come closest."""
    steps = np.concatenate((np.eye(3), -np.eye(3)))

    def around(poses: np.ndarray, reaches: np.ndarray) -> np.ndarray:
        turned = np.einsum('kij,nj->kni', poses[:, :3, :3], steps)
        return (poses[:, None, :3, 3] + reaches[:, None, None] * turned).reshape(-1, 3)

    points, to = (
        around(votes.b_from_camera, votes.reaches / votes.scales),
        around(votes.a_from_camera, votes.reaches),
    )
    scale, rotation, _ = similarity(points, to)
    pose, scale = np.eye(4), 1.0 if metric else scale
    pose[:3, :3] = rotation
    pose[:3, 3] = to.mean(0) - scale * rotation @ points.mean(0)
    return Alignment(pose, scale)
