"""The motion between two views, by a consensus of pixels that look alike and of the network's depths.

Of a wide baseline few matches are right, and on epipolar lines alone a wrong motion gets as many votes as the
true one, above all where one plane fills the view. So a vote also needs a triangulated depth that fits the
network's; and these depths give motions to try from three matches instead of five.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from gsemsplat_ros.geometry.epipolar import Polished, epipolar_errors, polish, triangulate, with_focal
from gsemsplat_ros.geometry.features import LONG_SIDE, Alike
from gsemsplat_ros.geometry.matches import PairMatches
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.window import Window

EPIPOLAR_PX = 1.0  # a match this close to its epipolar line agrees with a motion,
DEPTH_AGREES = 0.4  # and so close [ln] to the network's depth, in the unit of the motion
CLEAR = 0.6  # votes per match with which the motion of the epipolar lines needs no other
FLAT = 0.4  # unless this share of the matches lies on one plane,
PLANE = 2.0  # within so many tolerances: then two motions fit
TRIED = 120  # otherwise so many triples of matches give motions to try,
VOTERS = 150  # on which at most so many matches vote,
POLISHED = 8  # and those with most votes are polished,
COARSE = (6.0, 2.0, 1.0)  # with these tolerances, in EPIPOLAR_PX, one after the other
MIN_VOTING = 8  # matches: fewer polish nothing
MIN_AGREEING = 20  # matches: fewer are no evidence,
MIN_SHARE = 0.3  # nor is a smaller share of all: repeated patterns agree on much
MAX_RIVAL = 0.9  # votes of another motion, over those of the best
ANOTHER = np.deg2rad(15)  # a motion turned this much, or this far from the direction, is another
MAX_SPREAD = np.deg2rad(8)  # of rotation and direction
MIN_PARALLAX = np.deg2rad(0.5)  # median angle between the rays of a match: below it a depth is noise


@dataclass(frozen=True)
class Motion:
    """Matches that agree on one motion, and the focal length that they tell.

    matches: in the distance between the cameras, pixels of the input images; focal_factor: of both cameras'
    focal lengths; focal_spread: standard deviation of its logarithm; 1 and 0 where they were given.
    """

    matches: PairMatches
    focal_factor: float
    focal_spread: float

    @property
    def agreeing(self) -> int:
        """How many matches agree."""
        return len(self.matches.z_first)


class Ballot(NamedTuple):
    """What motions are judged by: rays (N, 3) of matches in both views, ln of the network's depth (N,) in the
    first, and the tolerance of the epipolar lines [at depth 1]."""

    first: np.ndarray
    second: np.ndarray
    log_depth: np.ndarray
    tolerance: float

    def votes(self, pose: np.ndarray, focal_factor: float = 1.0, coarse: float = 1.0) -> np.ndarray:
        """(N,) in [0, 1], for a motion (4, 4) with a focal length `focal_factor` times that of the rays, at
        `coarse` times the tolerance."""
        first, second = (with_focal(rays, focal_factor) for rays in (self.first, self.second))
        errors = epipolar_errors(pose, first, second) * (focal_factor / (coarse * self.tolerance))
        z1, z2, _ = triangulate(first, second, pose)
        near = np.maximum(1 - errors**2, 0) * ((z1 > 0) & (z2 > 0))
        if not near.any():
            return near
        ratios = np.log(np.where(near > 0, z1, 1)) - self.log_depth
        apart = (ratios - np.median(ratios[near > 0])) / DEPTH_AGREES
        return near * np.maximum(1 - apart**2, 0)

    def of(self, some: np.ndarray) -> Ballot:
        """The same with only `some` matches."""
        return Ballot(self.first[some], self.second[some], self.log_depth[some], self.tolerance)


def find_motion(
    alike: Alike, cameras: tuple[Camera, Camera], depth: np.ndarray, window: Window, focal_spread: float = 0.0
) -> Motion | None:
    """The motion between two views on which the pixels that look `alike` agree.

    cameras: of the input images; depth (h, w): of the first view by the network, over `window` of its image.
    focal_spread > 0: the focal lengths are right up to one common factor, with this standard deviation of its
    logarithm; the factor is found with the motion. None: too few agree, another motion has nearly as many
    votes, or there is too little parallax.
    """
    alike, log_depth = _with_depth(alike, depth, window)
    if len(log_depth) < MIN_AGREEING:
        return None
    rays = cameras[0].rays(alike.uv_first), cameras[1].rays(alike.uv_second)
    side = max(cameras[0].width, cameras[0].height)
    tolerance = cameras[0].length(EPIPOLAR_PX * max(1.0, side / LONG_SIDE))
    ballot = Ballot(*rays, log_depth, tolerance)
    found = _by_lines(ballot, focal_spread)
    clear = max((votes for votes, _ in found), default=0.0) > CLEAR * len(log_depth)
    flat = _by_plane(ballot, focal_spread)
    if flat or not clear:
        found += flat + _by_depths(ballot, focal_spread)
    if not found:
        return None
    best, polished = max(found, key=lambda each: each[0])
    rival = max((votes for votes, other in found if _another(polished, other)), default=0.0)
    pose, factor = polished.first_from_second_rel, polished.focal_factor
    good = ballot.votes(pose, factor) > 0
    first, second = (with_focal(x[good], factor) for x in rays)
    z1, z2, angle = triangulate(first, second, pose)
    if (
        good.sum() < max(MIN_AGREEING, MIN_SHARE * len(good))
        or rival > MAX_RIVAL * best
        or polished.spread > MAX_SPREAD
        or np.median(angle) < MIN_PARALLAX
    ):
        return None
    matches = PairMatches(pose, alike.uv_first[good], alike.uv_second[good], z1, z2)
    return Motion(matches, factor, polished.focal_spread)


def _with_depth(alike: Alike, depth: np.ndarray, window: Window) -> tuple[Alike, np.ndarray]:
    """The matches inside the window of the first view that have a depth (h, w), and its logarithm (N,)."""
    height, width = depth.shape
    uv = window.to_network(alike.uv_first) + 0.5
    column, row = np.floor(uv * (width / window.width, height / window.height)).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    z = np.where(inside, depth[row * inside, column * inside], 0.0)
    known = inside & (z > 0)
    return Alike(alike.uv_first[known], alike.uv_second[known]), np.log(z[known])


def _by_lines(ballot: Ballot, focal_spread: float) -> list[tuple[float, Polished]]:
    """Motions with most epipolar votes, by the five-point method (Nister 2004) in MAGSAC (Barath et al.
    2019), of an unknown focal length: of five around it; each polished, after its votes."""
    found = []
    for factor in np.exp(focal_spread * np.arange(-2.0, 3.0)).tolist() if focal_spread else [1.0]:
        first, second = (with_focal(rays, factor) for rays in (ballot.first, ballot.second))
        cv2.setRNGSeed(0)  # the same pair gives the same pose
        essential, agree = cv2.findEssentialMat(
            first[:, :2], second[:, :2], np.eye(3), cv2.USAC_MAGSAC, 0.999, ballot.tolerance / factor
        )
        if essential is None or essential.shape != (3, 3) or not agree.any():
            continue
        some = agree[:, 0].astype(bool)
        _, rotation, translation, _ = cv2.recoverPose(essential, first[some, :2], second[some, :2], np.eye(3))
        found += _polished(ballot, _inverse(rotation, translation), focal_spread, factor, COARSE[1:])
    return found


def _by_plane(ballot: Ballot, focal_spread: float) -> list[tuple[float, Polished]]:
    """The motions that fit one plane equally well, where most of what agrees lies on one (Faugeras and
    Lustman 1988); none: it does not."""
    first, second = ballot.first[:, :2], ballot.second[:, :2]
    cv2.setRNGSeed(0)
    plane, agree = cv2.findHomography(
        first, second, cv2.USAC_MAGSAC, PLANE * ballot.tolerance, None, 500, 0.99
    )
    if plane is None or agree.sum() < FLAT * len(first):
        return []
    _, turns, ways, _ = cv2.decomposeHomographyMat(plane, np.eye(3))
    return [
        motion
        for turn, way in zip(turns, ways)
        if way.any()
        for motion in _polished(ballot, _inverse(turn, way), focal_spread, 1.0, COARSE[1:])
    ]


def _by_depths(ballot: Ballot, focal_spread: float) -> list[tuple[float, Polished]]:
    """The same by three matches and the network's depths there (Gao et al. 2003)."""
    rng = np.random.default_rng(0)
    points = ballot.first * np.exp(ballot.log_depth)[:, None]
    voters = ballot.of(rng.permutation(len(points))[:VOTERS])
    tried = []
    for _ in range(TRIED):
        three = rng.choice(len(points), 3, replace=False)
        seen = np.ascontiguousarray(ballot.second[three, :2])
        _, turns, ways = cv2.solveP3P(points[three], seen, np.eye(3), None, cv2.SOLVEPNP_AP3P)
        for turn, way in zip(turns, ways):
            pose = _inverse(cv2.Rodrigues(turn)[0], way)
            if np.isfinite(pose).all() and pose[:3, 3].any():
                tried.append((float(voters.votes(pose, coarse=COARSE[0]).sum()), pose))
    tried.sort(key=lambda each: -each[0])
    coarse = [
        motion
        for _, pose in tried[:POLISHED]
        for motion in _polished(voters, pose, focal_spread, 1.0, COARSE[:2])
    ]
    return [
        motion
        for _, (pose, factor, *_) in coarse
        for motion in _polished(ballot, pose, focal_spread, factor, COARSE[1:])
    ]


def _polished(
    ballot: Ballot, pose: np.ndarray, focal_spread: float, focal_factor: float, coarse: tuple[float, ...]
) -> list[tuple[float, Polished]]:
    """The motion (4, 4) after its votes, polished by its voters at each tolerance; none: too few voters."""
    polished = None
    for step in coarse:
        voting = ballot.votes(pose, focal_factor, step) > 0
        if voting.sum() < MIN_VOTING:
            return []
        polished = polish(
            pose,
            ballot.first[voting],
            ballot.second[voting],
            step * ballot.tolerance,
            focal_spread,
            focal_factor,
        )
        pose, focal_factor = polished.first_from_second_rel, polished.focal_factor
    return [] if polished is None else [(float(ballot.votes(pose, focal_factor).sum()), polished)]


def _inverse(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """first_from_second (4, 4), translation of length 1, from second_from_first's rotation (3, 3) and
    translation (3, 1)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ translation[:, 0]
    pose[:3, 3] /= max(float(np.linalg.norm(pose[:3, 3])), 1e-12)
    return pose


def _another(polished: Polished, other: Polished) -> bool:
    """Whether two motions are not the same one."""
    a, b = polished.first_from_second_rel, other.first_from_second_rel
    turn = np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1))
    direction = np.arccos(np.clip(a[:3, 3] @ b[:3, 3], -1, 1))
    return bool(max(turn, direction) > ANOTHER)
