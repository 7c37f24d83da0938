"""A map at given poses follows when these jump, as those of a SLAM that corrects itself do."""

from dataclasses import replace

import numpy as np
import pytest
from support.walked_room import look, off_the_walls, seen

from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map import Map

PATH = [look(1.5 + 0.15 * k, 1.5 + 0.1 * k, 10 * k) for k in range(13)]


def shifted(pose, x, y=0.0):
    moved = pose.copy()
    moved[:2, 3] += x, y
    return moved


def driven(given, source='tf'):
    """A mapper, and what it made of the path with these given poses."""
    mapper = Mapper(Map.empty('map', 0.04), 300_000)
    fusions = []
    for k, pose in enumerate(given):
        before = PATH[k - 1] if k else shifted(PATH[0], -0.15)
        fusions.append(mapper.add(*seen(PATH[k], before, source=source, stamps=(k, k - 1), given=pose)))
    assert all(result.fused for result in fusions), fusions
    return mapper, fusions


def off(mapper):
    """Distances (K,) [m] of the scenes from where they were seen."""
    poses = mapper.map.graph.poses
    return np.linalg.norm(poses[:, :3, 3] - np.array(PATH)[: len(poses), :3, 3], axis=1)


def test_what_was_mapped_follows_a_corrected_drift():
    """Of 3 cm a scene, for twelve scenes; then TF tells the truth."""
    wrong = [shifted(PATH[k], 0, 0.03 * k) for k in range(12)]
    drifted, _ = driven(wrong)
    before = drifted.map
    mapper, fusions = driven([*wrong, PATH[12]])
    assert fusions[-1].reason.startswith('pose given, 0.33 m from where the images have it: the map follows')
    assert off(drifted).max() == pytest.approx(0.33) and off(mapper).max() < 0.05
    assert off(mapper)[0] < 0.01 and off(mapper)[-1] < 0.01
    walls = [np.quantile(off_the_walls(map_), 0.9) for map_ in (before, mapper.map)]
    assert walls[1] < 0.4 * walls[0]
    for kept in mapper.map.keyframes:
        row = mapper.map.graph.row(kept.number)
        np.testing.assert_allclose(kept.map_from_camera, mapper.map.graph.poses[row])


def test_a_place_that_was_wrong_from_the_beginning_moves_as_a_whole():
    """As AMCL with a wrong initial pose: the images do not let a metre vanish between five scenes."""
    mapper, _ = driven([*(shifted(PATH[k], 1.0, 0.5) for k in range(5)), PATH[5]])
    assert off(mapper).max() < 0.03
    assert np.quantile(off_the_walls(mapper.map), 0.9) < 0.05


def test_small_corrections_move_nothing():
    rng = np.random.default_rng(0)
    given = [shifted(pose, *rng.normal(size=2) * 0.02) for pose in PATH]
    mapper, fusions = driven(given)
    np.testing.assert_array_equal(mapper.map.graph.poses, given)
    assert {result.reason for result in fusions} == {'pose given'}


def test_a_second_jump_moves_what_followed_the_first():
    given = [
        *(shifted(PATH[k], 0, 0.4) for k in range(5)),
        *PATH[5:9],
        *(shifted(PATH[k], 0.5) for k in range(9, 11)),
    ]
    mapper, fusions = driven(given)
    assert [k for k, result in enumerate(fusions) if 'follows' in result.reason] == [5, 9]
    assert np.abs(off(mapper)[9:] - 0.5).max() < 0.02
    off_now = mapper.map.graph.poses[:, :2, 3] - np.array(PATH)[:11, :2, 3]
    steps = np.linalg.norm(np.diff(off_now, axis=0), axis=1)
    assert steps.max() < 0.15  # nowhere is the map torn


def test_scenes_without_a_pose_take_the_whole_correction():
    """TF was silent for some scenes, whose chain was off: what was given before stays."""
    turn = np.deg2rad(0.4)
    drift = np.eye(4)
    drift[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    mapper = Mapper(Map.empty('map', 0.04), 300_000)
    for k in range(13):
        before = PATH[k - 1] if k else shifted(PATH[0], -0.15)
        given = None if 4 <= k < 12 else PATH[k]
        scene, pair = seen(PATH[k], before, source='tf', stamps=(k, k - 1), given=given)
        if given is None:
            pose = scene.first_from_second @ drift
            pose[:3, 3] *= 1.2
            scene = replace(scene, first_from_second=pose)
        result = mapper.add(scene, pair)
        if k == 11:
            assert off(mapper)[-1] > 0.2
    assert 'the map follows' in result.reason
    assert off(mapper)[:4].max() < 0.03 and off(mapper)[-1] < 0.02 and off(mapper).max() < 0.08
