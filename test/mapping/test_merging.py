"""Two maps become one: all that both hold, where the second stands in the first."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import walked_room
from support.walked_room import WALK, look, off_the_walls, seen

from gsemsplat_ros.cli import main
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.mapping.alignment import Alignment, alignment_of
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.known_objects import KnownObject, KnownObjects
from gsemsplat_ros.mapping.links import start_link
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import load_map, save_map
from gsemsplat_ros.mapping.merging import together
from gsemsplat_ros.mapping.pose_graph import GraphLink, PoseGraph
from gsemsplat_ros.mapping.relocalisation import Place
from gsemsplat_ros.mapping.voxels import voxel_keys
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.semantics.object_history import History, State
from gsemsplat_ros.semantics.objects import Object

SPACE = CodeSpace('small.safetensors', 'minilm-l6', 'abc', 32)
RIGHT = np.eye(4)
RIGHT[0, 3] = 0.1
QUARTER = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1]])  # a_from_b
B_FROM_ROOM = look(0.7, -0.4, 130) @ np.linalg.inv(look(0, 0, 0))


def gaussians(points, color, frame='map'):
    count = len(points)
    return Gaussians(
        torch.tensor(points, dtype=torch.float32),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.tensor([[0.01, 0.02, 0.03]]).repeat(count, 1),
        torch.full((count,), 0.8),
        torch.full((count, 3), color),
        torch.full((count, 2), color),
        frame,
    )


def small_map(*scenes, frame='map', voxel=0.1, source='stereo baseline'):
    """A map of these (points, color), each seen from a metre above its first point."""
    map_ = Map.empty(frame, voxel)
    for points, color in scenes:
        eye = np.array(points[0]) + (0, 0, 1.0)
        map_ = map_.merged(gaussians(points, color, frame), eye, 1000, source)
    return map_


def test_what_meets_in_a_voxel_is_merged_by_its_certainty():
    a = small_map(([(0.04, 0.05, 0.05)], 0.2), ([(5.05, 0.05, 0.05)], 0.3))
    # a quarter turn and a step take the first of b into the first of a, the second elsewhere
    b = small_map(([(-1.94, 0.94, 0.05), (3.05, 0.05, 0.05)], 0.8), frame='other', voxel=0.05)
    merged = together(a, b, Alignment(QUARTER))
    assert (merged.frame, merged.voxel, merged.scenes, len(merged)) == ('map', 0.1, 3, 3)
    means = merged.gaussians.means.numpy()
    order = np.argsort(means[:, 0])
    np.testing.assert_allclose(
        means[order], [[0.05, 0.055, 0.05], [0.95, 5.05, 0.05], [5.05, 0.05, 0.05]], atol=1e-5
    )
    whole = merged.whole
    assert whole.counts[order].tolist() == [2, 1, 1] and whole.last_seen[order].tolist() == [3, 3, 2]
    assert whole.owners[order].tolist()[1:] == [3, 2]
    np.testing.assert_allclose(whole.weights[order[:1]], 1.6, rtol=1e-5)
    np.testing.assert_allclose(merged.gaussians.colors.numpy()[order, 0], [0.5, 0.8, 0.3], atol=1e-6)
    np.testing.assert_allclose(merged.gaussians.codes.numpy()[order, 0], [0.5, 0.8, 0.3], atol=1e-6)
    # the axes of what was turned are turned
    cov = merged.gaussians.covariances().numpy()[order[1]]
    np.testing.assert_allclose(np.diag(cov), [0.02**2, 0.01**2, 0.03**2], rtol=1e-4)


def test_a_map_of_another_scale_grows_into_that_of_the_first():
    a = small_map(([(0.05, 0.05, 0.05)], 0.2))
    b = small_map(([(1.0, 0.0, 0.0)], 0.8), source='network')
    merged = together(a, b, Alignment(np.eye(4), scale=2.0))
    assert merged.metric and len(merged) == 2
    there = int(merged.gaussians.means[:, 0].argmax())
    np.testing.assert_allclose(merged.gaussians.means[there], [2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(merged.gaussians.scales[there], [0.02, 0.04, 0.06], rtol=1e-5)
    np.testing.assert_allclose(merged.whole.weights[there], 0.8 / 4, rtol=1e-5)  # per square metre


def chained_map(poses, keyframe, sigmas):
    """A map of scenes that were chained to where they stand, with a Gaussian a metre ahead of each."""
    map_, graph, kept = Map.empty('map', 0.05), PoseGraph.empty(), []
    for number, pose in enumerate(poses, 1):
        ahead = pose @ np.array([0, 0, 1.0, 1])
        map_ = map_.merged(gaussians([tuple(ahead[:3])], 0.5), pose[:3, 3], 1000, 'stereo baseline')
        step = start_link(pose)
        if number > 1:
            step = GraphLink(number - 1, number, np.linalg.inv(poses[number - 2]) @ pose, 1.0, sigmas)
        graph = graph.with_scene(number, pose, 1.0, number, [step])
        kept.append(replace(keyframe, number=number, map_from_camera=pose))
    return replace(map_, graph=graph, keyframes=tuple(kept))


def test_what_drifted_in_one_map_is_bent_to_where_the_other_has_it(maps):
    keyframe = maps[0].keyframes[0]
    true = [look(2.0 * k, 0, 0) for k in range(6)]
    drifted = [
        look(2.0 * k * np.cos(0.01 * k), 2.0 * k * np.sin(0.01 * k), np.degrees(0.02 * k)) for k in range(6)
    ]
    a, b = chained_map(true, keyframe, (1e-3, 1e-3, 1e-3)), chained_map(drifted, keyframe, (0.01, 0.05, 0.05))
    agreeing = tuple((b.keyframes[k], Place(true[k], a.keyframes[k], 200, 210)) for k in (0, 4, 5))
    merged = together(a, b, Alignment(np.eye(4), 1.0, agreeing, 3, 6))
    poses = merged.graph.poses
    np.testing.assert_allclose(poses[:6], true, atol=0.03)  # what was mapped rightly stays
    off = np.linalg.norm(poses[6:, :3, 3] - np.array(true)[:, :3, 3], axis=1)
    before = np.linalg.norm(np.array(drifted)[:, :3, 3] - np.array(true)[:, :3, 3], axis=1)
    assert before[5] > 0.4 and off.max() < 0.1 and off[5] < 0.03
    # the Gaussian ahead of the last scene went with it, into that of the first map
    ahead = np.array([*(true[5] @ np.array([0, 0, 1.0, 1]))[:3]])
    distance = np.linalg.norm(merged.gaussians.means.numpy() - ahead, axis=1)
    assert (distance < 0.1).sum() >= 1 and not ((distance > 0.1) & (distance < 0.6)).any()
    assert {kept.number for kept in merged.keyframes} >= {1, 2, 3, 4, 5, 6}


def known(number, center, text, owner, first, last, times, state=State.THERE):
    """An object of half a metre in the voxel of its centre (0.1 m)."""
    history = History(number, state, ((text, 0.9),), first, last, times)
    thing = Object(center, (0.4, 0.5, 0.6), 0.9, history)
    return KnownObject(thing, voxel_keys(np.array([center]), 0.1)[0], 1, owner)


def test_objects_of_both_keep_one_id_each():
    a = small_map(([(0.05, 0.05, 0.05), (5.05, 0.05, 0.05)], 0.2))
    b = small_map(([(-1.95, 0.95, 0.05), (3.05, 0.05, 0.05)], 0.8), frame='other')
    chair, lamp = (
        known(2, (0.05, 0.05, 0.05), 'chair', 1, 10, 20, 3),
        known(5, (5.05, 0.05, 0.05), 'lamp', 1, 10, 20, 2),
    )
    a = replace(a, objects=KnownObjects((chair, lamp), 7))
    again = known(2, (-1.95, 0.95, 0.1), 'chair', 1, 30, 40, 4, State.NOT_SEEN_LATELY)
    new = known(3, (3.05, 0.05, 0.05), 'chair', 0, 30, 40, 1)
    gone = known(4, (-1.95, 0.95, 0.05), 'chair', 1, 30, 40, 1, State.GONE)
    b = replace(b, objects=KnownObjects((again, new, gone), 9))
    objects = together(a, b, Alignment(QUARTER)).objects
    assert [one.history.id for one in objects.objects] == [2, 5, 7, 8] and objects.next_id == 9
    one, other, third, fourth = objects.objects
    assert one.history == History(2, State.NOT_SEEN_LATELY, (('chair', 0.9),), 10, 40, 7) and other is lamp
    np.testing.assert_allclose(one.thing.center, (0.05, 0.05, 0.1), atol=1e-9)  # as it was seen last
    np.testing.assert_allclose(third.thing.center, (0.95, 5.05, 0.05), atol=1e-9)
    np.testing.assert_allclose(third.thing.size, (0.5, 0.4, 0.6), atol=1e-9)
    assert third.keys.tolist() == voxel_keys(np.array([[0.95, 5.05, 0.05]]), 0.1)[0].tolist()
    assert (one.owner, third.owner, fourth.owner) == (2, 0, 2) and fourth.gone


def walked(poses, map_from_room=np.eye(4), frame='map'):
    """The map of scenes at these places of the room."""
    mapper = Mapper(Map.empty(frame, 0.05), 300_000)
    for stamp, pose in enumerate(poses, 1):
        scene, pair = seen(
            pose,
            pose @ RIGHT,
            source='stereo baseline',
            stamps=(stamp, stamp),
            baseline=0.1,
            given=map_from_room @ pose,
        )
        assert mapper.add(scene, pair).fused
    return mapper.map


@pytest.fixture(scope='module')
def maps():
    """Of two robots: one looked around the near wall, the other began there and saw the opposite one."""
    a = walked([WALK[0], WALK[2], WALK[4], look(2.9, 2.4, 98)])
    b = walked(
        [look(1.5, 1.4, 14), look(1.9, 1.8, 40), look(2.8, 2.3, 92), look(3, 2.5, 180)], B_FROM_ROOM, 'other'
    )
    return a, b


def test_two_robots_maps_become_that_of_their_room(maps):
    a, b = maps
    merged = together(a, b, alignment_of(a, b))
    assert merged.scenes == 8 and merged.frame == 'map'
    assert np.quantile(off_the_walls(merged), 0.95) < 0.06
    numbers = [kept.number for kept in merged.keyframes]
    assert numbers == sorted(numbers) and numbers[:4] == [1, 2, 3, 4] and numbers[-1] == 8
    far = look(3.1, 2.4, 175)  # only the second robot was there
    place = Mapper(merged, 300_000).relocalize(seen(far, far @ RIGHT)[1].first)
    assert np.linalg.norm(place.map_from_camera[:3, 3] - far[:3, 3]) < 0.02 and place.keyframe.number == 8
    assert merged.graph.stamp_ns(8) == 4 and merged.graph.stamp_ns(2) == 2
    row = merged.graph.row(8)
    np.testing.assert_allclose(merged.graph.poses[row], look(3, 2.5, 180), atol=0.02)
    ties = [link for link in merged.graph.links if 1 <= link.first <= 4 < link.second]
    assert len(ties) >= 3 and all(link.doubtful for link in ties)


def test_the_command_merges_files(maps, tmp_path, capsys):
    a, b = maps
    names = [str(tmp_path / f'{name}.safetensors') for name in ('a', 'b', 'both')]
    save_map(names[0], a, SPACE)
    save_map(names[1], b, SPACE)
    assert main(['map', 'merge', *names, '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    merged = load_map(names[2], SPACE)
    assert told['scenes'] == merged.scenes == 8 and told['gaussians'] == len(merged)
    assert told['place']['agreeing'] >= 3 and told['place']['asked'] == 4 and told['place']['scale'] == 1.0
    np.testing.assert_allclose(told['place']['a_from_b'], np.linalg.inv(B_FROM_ROOM), atol=0.02)
    assert (tmp_path / 'both.ply').is_file()
    assert main(['map', 'merge', *names]) == 0
    table = capsys.readouterr().out
    assert 'turned by 130.0 degrees' in table and 'scenes' in table
    assert main(['map', 'info', names[2], '--json']) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about['frame'], about['metric'], about['keyframes']) == ('map', True, len(merged.keyframes))
    assert about['weights'] == 'small.safetensors'


def test_what_does_not_fit_is_refused_in_one_line(maps, tmp_path, capsys, monkeypatch):
    a, b = maps
    names = [str(tmp_path / f'{name}.safetensors') for name in ('a', 'b', 'both')]
    save_map(names[0], a, SPACE)
    save_map(names[1], b, replace(SPACE, decoders='xyz'))

    def refused():
        assert main(['map', 'merge', *names]) == 2 and not (tmp_path / 'both.safetensors').exists()
        text = capsys.readouterr().err.strip()
        assert '\n' not in text
        return text

    assert refused().endswith('merge maps of one checkpoint')
    patches = np.random.default_rng(7).integers(0, 255, walked_room.PATCHES.shape, dtype=np.uint8)
    monkeypatch.setattr(walked_room, 'PATCHES', patches)
    save_map(names[1], walked(WALK[:3]), SPACE)
    assert 'finds no place in' in refused() and 'of 2 keyframes of the second map are known' in refused()
