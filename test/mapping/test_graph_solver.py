"""The places of scenes by all that was measured of them, against truth and against SciPy's own solver."""

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from gsemsplat_ros.mapping.graph_solver import Measured, Places, linearised, solved, squares
from gsemsplat_ros.mapping.pose_graph import MAP, GraphLink, PoseGraph

SIGMAS = 0.01, 0.02, 0.02


def pose_of(turn, way):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), way
    return pose


def between(first, second):
    """The similarity (pose, scale) of `second` in `first`, both of them in the map."""
    (a, s), (b, t) = first, second
    pose = np.linalg.inv(a) @ b
    pose[:3, 3] /= s
    return pose, t / s


def link(places, i, j, rng=None, sigmas=SIGMAS, metric=True, **kwargs):
    """What is measured of scene j by scene i (0: the map), with noise if there is a generator."""
    pose, ratio = between((np.eye(4), 1.0) if i == MAP else places[i - 1], places[j - 1])
    if rng is not None:
        noise = rng.normal(size=7) * np.repeat(sigmas, (3, 3, 1))
        pose = pose @ pose_of(noise[:3], noise[3:6])
        ratio *= 1.0 if metric else np.exp(noise[6])
    return GraphLink(i, j, pose, ratio, sigmas, **kwargs)


def chained(links, count):
    """A graph whose scenes stand where the links to the scene before put them."""
    graph = PoseGraph.empty()
    for number in range(1, count + 1):
        one = next(x for x in links if x.second == number)
        row = graph.row(one.first)
        pose, scale = (np.eye(4), 1.0) if row is None else (graph.poses[row], graph.scales[row])
        moved = one.first_from_second.copy()
        moved[:3, 3] *= scale
        graph = graph.with_scene(number, pose @ moved, scale * one.ratio, number, ())
    return graph.with_links(links)


def ring(count, metric=True, radius=5.0):
    """(pose, scale) of cameras on a circle, each turned along it, back at its beginning."""
    rng = np.random.default_rng(1)
    scales = np.ones(count) if metric else np.exp(rng.normal(size=count) * 0.1)
    scales[0] = 1
    return [
        (pose_of((0, 0, angle), (radius * np.cos(angle), radius * np.sin(angle), 1)), float(scale))
        for angle, scale in zip(np.linspace(0, 2 * np.pi, count), scales)
    ]


def off(graph, places):
    """Distances (K,) [m] of the scenes from where they are."""
    return np.linalg.norm(graph.poses[:, :3, 3] - np.array([pose[:3, 3] for pose, _ in places]), axis=1)


def start(places):
    return link(places, MAP, 1, sigmas=(1e-4, 1e-4, 1e-4))


@pytest.mark.parametrize('metric', [True, False])
def test_a_ring_with_a_known_drift_returns_to_truth(metric):
    """Each link turns, and scales, by the same too much: the loop alone tells, and the ring closes."""
    places = ring(41, metric)
    drift = pose_of((0, 0, 0.01), (0, 0, 0))
    links = [start(places)]
    for k in range(1, 41):
        one = link(places, k, k + 1)
        grown = 1.0 if metric else 1.01
        links.append(replace(one, first_from_second=one.first_from_second @ drift, ratio=grown * one.ratio))
    loop = link(places, 1, 41, sigmas=(1e-3, 1e-3, 1e-3), doubtful=True)
    graph = chained([*links, loop], 41)
    assert off(graph, places)[-1] > 1.0
    solution = solved(graph, metric)
    assert solution.trusted.all()
    assert off(solution.graph, places)[-1] < 0.01
    assert solution.graph.scales[-1] == pytest.approx(places[-1][1], rel=0.01)
    if metric:
        np.testing.assert_array_equal(solution.graph.scales, 1)
        turns = np.einsum('kij,kj->ki', solution.graph.poses[:, :3, :3], np.array([[1.0, 0, 0]] * 41))
        true = np.array([pose[:3, 0] for pose, _ in places])
        assert np.arccos(np.einsum('ki,ki->k', turns, true).clip(-1, 1)).max() < np.deg2rad(12)  # 23 before
    again = solved(solution.graph, metric)
    np.testing.assert_allclose(again.graph.poses, solution.graph.poses, atol=1e-5)


@pytest.mark.parametrize('metric', [True, False])
def test_noise_is_shared_as_scipys_own_solver_shares_it(metric):
    rng = np.random.default_rng(3)
    places = ring(8, metric)
    links = [start(places), *(link(places, k, k + 1, rng, metric=metric) for k in range(1, 8))]
    links += [link(places, 2, 7, rng, metric=metric), link(places, MAP, 5, rng, metric=metric)]
    graph = chained(links, 8)
    size = 6 if metric else 7
    measured, places_now = Measured.of(graph, size), Places.of(graph)

    def errors(x):
        return (measured.weights * linearised(places_now.after(x.reshape(-1, size)), measured)[0]).ravel()

    plain = least_squares(errors, np.zeros(8 * size), xtol=1e-12, ftol=1e-12)
    ours = Places.of(solved(graph, metric).graph)
    assert squares(ours, measured).sum() == pytest.approx(2 * plain.cost, rel=1e-5)
    theirs = places_now.after(plain.x.reshape(-1, size))
    np.testing.assert_allclose(ours.ways, theirs.ways, atol=1e-4)
    np.testing.assert_allclose(ours.scales, theirs.scales, rtol=1e-4)


def test_derivatives_are_those_of_small_steps():
    rng = np.random.default_rng(0)
    places = ring(5, metric=False)
    links = [start(places), *(link(places, k, k + 1, rng, (0.5, 0.5, 0.5), False) for k in range(1, 5))]
    graph = chained(links, 5)
    graph = replace(
        graph, poses=np.array([pose @ pose_of(rng.normal(size=3) * 0.3, (0.1, 0, 0)) for pose, _ in places])
    )
    now, measured = Places.of(graph), Measured.of(graph, 7)
    _, of_first, of_second = linearised(now, measured)
    for column in range(7):
        for row, blocks, of in ((2, of_first, measured.first), (3, of_second, measured.second)):
            step = np.zeros((5, 7))
            step[row - 1, column] = 1e-6
            ahead, behind = (linearised(now.after(sign * step), measured)[0] for sign in (1, -1))
            expected = (ahead - behind)[of == row] / 2e-6
            np.testing.assert_allclose(blocks[of == row][:, :, column], expected, atol=1e-5)


@pytest.mark.parametrize('metric', [True, False])
def test_a_false_loop_is_outvoted(metric):
    """Three right loops, and one that says that two sides of the ring are one place."""
    rng = np.random.default_rng(4)
    places = ring(60, metric)
    links = [start(places), *(link(places, k, k + 1, rng, metric=metric) for k in range(1, 60))]
    right = [link(places, i, j, rng, metric=metric, doubtful=True) for i, j in ((1, 60), (2, 59), (3, 58))]
    false = GraphLink(10, 40, np.eye(4), 1.0, SIGMAS, doubtful=True)
    best = solved(chained([*links, *right], 60), metric)
    solution = solved(chained([*links, *right, false], 60), metric)
    assert solution.trusted.tolist() == [True] * 63 + [False]
    np.testing.assert_allclose(off(solution.graph, places), off(best.graph, places), atol=0.01)
    assert off(solution.graph, places)[-1] < 0.05 < off(chained(links, 60), places)[-1]


def test_a_loop_that_the_chain_alone_contradicts_is_outvoted():
    """It would have to bend each link by more than it may be wrong."""
    rng = np.random.default_rng(5)
    places = ring(20)
    links = [start(places), *(link(places, k, k + 1, rng) for k in range(1, 20))]
    solution = solved(chained([*links, GraphLink(5, 15, np.eye(4), 1.0, SIGMAS, doubtful=True)], 20), True)
    assert not solution.trusted[-1] and solution.trusted[:-1].all()
    np.testing.assert_allclose(off(solution.graph, places), off(chained(links, 20), places), atol=0.01)


def test_what_nothing_ties_stays():
    places = ring(6)
    links = [start(places), link(places, 1, 2), link(places, 4, 5)]
    graph = PoseGraph(
        np.arange(1, 7), np.array([pose for pose, _ in places]), np.ones(6), np.arange(6), tuple(links)
    )
    np.testing.assert_allclose(solved(graph, True).graph.poses, graph.poses, atol=1e-6)


def test_2000_scenes_take_about_a_second():
    rng = np.random.default_rng(6)
    places = ring(2000, radius=60)
    small = 0.001, 0.005, 0.02
    links = [start(places), *(link(places, k, k + 1, rng, small) for k in range(1, 2000))]
    loops = [link(places, k, 2001 - k, rng, small, doubtful=True) for k in (1, 11, 21)]
    false = GraphLink(300, 1500, np.eye(4), 1.0, small, doubtful=True)
    graph = chained([*links, *loops, false], 2000)
    began = time.process_time()
    solution = solved(graph, True)
    seconds = time.process_time() - began
    assert solution.trusted[-4:].tolist() == [True, True, True, False]
    assert off(solution.graph, places)[-1] < 0.05 < 0.5 < off(graph, places)[-1]
    assert seconds < 6  # 1.5 s, of which the false loop takes all but 0.3
