"""The most likely places of a map's scenes, by all that was measured of them (least squares on similarities).

Gauss-Newton on the sparse normal equations, factorised by SciPy (SuperLU): 2000 scenes take about a second.
GTSAM solves the same graphs, incrementally too. But a graph is solved here only when a loop is found; SciPy
has wheels for each Python of this package, and a Debian package that rosdep knows, and GTSAM (4.3) has no
wheel for Python 3.10 and no such package.

Doubtful links are outvoted by graduated non-convexity (Yang et al. 2020, "Graduated Non-Convexity for Robust
Spatial Perception", with the loss of Geman and McClure): all are trusted at first, and then, step by step,
those less that the others contradict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from gsemsplat_ros.mapping.pose_graph import MAP, PoseGraph

# scale of the loss, in standard deviations of a whole link: one is trusted up to 5.1 of them, as 99.9 % of
# right ones of seven values are (chi-squared)
AGREES, TRUSTED = 8.0, 0.5
# by how much the strain of a chain may grow for the sake of a new link, beside 1 for each of its links: their
# errors are neither normal nor independent
MOST_STRAIN = 36.0
LESS = 4.0  # factor between two steps of doubt
MOST_STEPS, A_FEW, SMALL_STEP = 20, 2, 1e-6
FAINT = 1e-6  # what nothing ties stays where it is


@dataclass(frozen=True, eq=False)
class Solution:
    """graph: with the poses and scales found; trusted (L,) bool: its links that the others agree with; strain
    (L,): see `strain`."""

    graph: PoseGraph
    trusted: np.ndarray
    strain: np.ndarray


@dataclass(frozen=True, eq=False)
class Measured:
    """The links of a graph, as arrays: first, second (L,): rows of their places, 0 for the map; turns
    (L, 3, 3), ways (L, 3), ratios (L,); weights (L, D): one over their standard deviations."""

    first: np.ndarray
    second: np.ndarray
    turns: np.ndarray
    ways: np.ndarray
    ratios: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, graph: PoseGraph, size: int) -> Measured:
        """size: D, 6 for places whose scales are held, else 7."""
        links, numbers = graph.links, np.array([MAP, *graph.numbers])
        poses = np.array([link.first_from_second for link in links])
        ratios = np.array([link.ratio for link in links])
        turn, way, ratio = np.array([link.sigmas for link in links]).T
        sigmas = np.stack((turn, turn, turn, *3 * (way / ratios,), ratio), 1)[:, :size]
        first, second = (
            np.searchsorted(numbers, [getattr(link, end) for link in links]) for end in ('first', 'second')
        )
        return cls(first, second, poses[:, :3, :3], poses[:, :3, 3], ratios, 1 / sigmas)


@dataclass(frozen=True, eq=False)
class Places:
    """Of the map itself (the identity) and of K scenes: turns (K + 1, 3, 3), ways (K + 1, 3), scales."""

    turns: np.ndarray
    ways: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, graph: PoseGraph) -> Places:
        """Those that the graph has now."""
        poses = np.concatenate((np.eye(4)[None], graph.poses))
        return cls(poses[:, :3, :3], poses[:, :3, 3], np.append(1.0, graph.scales))

    def after(self, step: np.ndarray) -> Places:
        """Each scene's place followed by a small one of its own: step (K, D), the turn, the way and, where it
        has seven values, the logarithm of the scale."""
        turns, ways, scales = (values.copy() for values in (self.turns, self.ways, self.scales))
        ways[1:] += scales[1:, None] * np.einsum('kij,kj->ki', turns[1:], step[:, 3:6])
        turns[1:] = turns[1:] @ Rotation.from_rotvec(step[:, :3]).as_matrix()
        if step.shape[1] == 7:
            scales[1:] *= np.exp(step[:, 6])
        return Places(turns, ways, scales)


def solved(graph: PoseGraph, metric: bool) -> Solution:
    """The graph with the places that fit its links best; those of a `metric` map keep their scales.

    A scene that no link ties to the map, by way of others, stays where it is.
    """
    size = 6 if metric else 7
    measured, places = Measured.of(graph, size), Places.of(graph)
    doubts, trust = np.flatnonzero([link.doubtful for link in graph.links]), np.ones(len(graph.links))
    places = settled(places, measured, trust)
    errors = squares(places, measured)[doubts] / AGREES**2
    doubt = 2 * float(errors.max(initial=0))
    while doubt > 1:
        trust[doubts] = (doubt / (errors + doubt)) ** 2
        places = settled(places, measured, trust, A_FEW)
        errors, doubt = squares(places, measured)[doubts] / AGREES**2, doubt / LESS
    trust[doubts] = (1 / (errors + 1)) ** 2 >= TRUSTED
    places = settled(places, measured, trust)
    poses = graph.poses.copy()
    poses[:, :3, :3], poses[:, :3, 3] = places.turns[1:], places.ways[1:]
    found = replace(graph, poses=poses, scales=places.scales[1:])
    return Solution(found, trust > 0, squares(places, measured))


def strain(graph: PoseGraph, metric: bool) -> np.ndarray:
    """How far each link is from where the graph has its scenes: squares (L,) of standard deviations."""
    return squares(Places.of(graph), Measured.of(graph, 6 if metric else 7))


def settled(places: Places, measured: Measured, trust: np.ndarray, most: int = MOST_STEPS) -> Places:
    """The places after steps until they are small, `most` at most."""
    for _ in range(most):
        places, length = stepped(places, measured, trust)
        if length < SMALL_STEP:
            break
    return places


def stepped(places: Places, measured: Measured, trust: np.ndarray) -> tuple[Places, float]:
    """The places after one step of Gauss-Newton, links weighted by `trust` (L,), and its largest value."""
    links, size = measured.weights.shape
    errors, of_first, of_second = linearised(places, measured)
    weights = np.sqrt(trust)[:, None] * measured.weights
    rows = np.arange(links * size).reshape(links, size, 1) + np.zeros((1, 1, size), int)
    values, at_rows, columns = [], [], []
    for blocks, of in (of_first, measured.first), (of_second, measured.second):
        held = of > 0  # the map stands still
        values.append((weights[:, :, None] * blocks)[held].ravel())
        at_rows.append(rows[held].ravel())
        unknowns = size * (of[held] - 1)[:, None, None] + np.arange(size)
        columns.append((unknowns + np.zeros((1, size, 1), int)).ravel())
    unknowns = size * (len(places.scales) - 1)
    jacobian = csr_matrix(
        (np.concatenate(values), (np.concatenate(at_rows), np.concatenate(columns))), (links * size, unknowns)
    )
    normal = (jacobian.T @ jacobian + FAINT * identity(unknowns)).tocsc()
    factor = splu(normal, permc_spec='MMD_AT_PLUS_A', diag_pivot_thresh=0, options={'SymmetricMode': True})
    step = -factor.solve(jacobian.T @ (weights * errors).ravel())
    return places.after(step.reshape(-1, size)), float(np.abs(step).max(initial=0))


def squares(places: Places, measured: Measured) -> np.ndarray:
    """Squared error (L,) of each link, in its standard deviations."""
    return ((measured.weights * linearised(places, measured)[0]) ** 2).sum(1)


def linearised(places: Places, measured: Measured) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error (L, D) of each link: what is left between the place that it measured and that of its second
    scene, in the unit of that; and its derivatives (L, D, D) by a small step (`Places.after`) of its first
    and of its second scene."""
    size, first, second = measured.weights.shape[1], measured.first, measured.second
    back = places.turns[first].transpose(0, 2, 1)
    turns = back @ places.turns[second]
    scale = places.scales[first]
    ways = np.einsum('lij,lj->li', back, places.ways[second] - places.ways[first]) / scale[:, None]
    ratios = places.scales[second] / scale
    unmeasured = measured.turns.transpose(0, 2, 1)
    off = unmeasured @ turns
    turned = Rotation.from_matrix(off).as_rotvec()
    errors = np.zeros((len(first), 7))
    errors[:, :3] = turned
    errors[:, 3:6] = np.einsum('lij,lj->li', unmeasured, ways - measured.ways) / measured.ratios[:, None]
    errors[:, 6] = np.log(ratios / measured.ratios)
    inverse = inverse_right_jacobian(turned)
    of_first, of_second = np.zeros((2, len(first), 7, 7))
    of_second[:, :3, :3] = inverse
    of_second[:, 3:6, 3:6] = (ratios / measured.ratios)[:, None, None] * off
    of_first[:, :3, :3] = -inverse @ turns.transpose(0, 2, 1)
    shrunk = unmeasured / measured.ratios[:, None, None]
    of_first[:, 3:6, 3:6] = -shrunk
    of_first[:, 3:6, :3] = shrunk @ crossing(ways)
    of_first[:, 3:6, 6] = -np.einsum('lij,lj->li', shrunk, ways)
    of_second[:, 6, 6], of_first[:, 6, 6] = 1, -1
    return errors[:, :size], of_first[:, :size, :size], of_second[:, :size, :size]


def inverse_right_jacobian(turned: np.ndarray) -> np.ndarray:
    """(L, 3, 3): how rotation vectors (L, 3) change by small turns that come after
    (Sola, Deray and Atchuthan 2018, 144)."""
    angle = np.linalg.norm(turned, axis=1)
    small = angle < 1e-3
    some = np.where(small, 1.0, angle)
    second = np.where(small, 1 / 12, 1 / some**2 - (1 + np.cos(some)) / (2 * some * np.sin(some)))
    cross = crossing(turned)
    return np.eye(3) + cross / 2 + second[:, None, None] * cross @ cross


def crossing(vectors: np.ndarray) -> np.ndarray:
    """The matrices (L, 3, 3) of the cross products with vectors (L, 3)."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).reshape(-1, 3, 3)
