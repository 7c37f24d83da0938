"""The pose graph of a map: what the mapper notes of each scene, and its place in the map's file."""

from dataclasses import replace

import numpy as np
import pytest
from support.walked_room import ROOM, WALK, seen

from gsemsplat_ros.mapping import graph_file
from gsemsplat_ros.mapping.fusion import START, Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import load_map, save_map
from gsemsplat_ros.mapping.pose_graph import MAP, PoseGraph
from gsemsplat_ros.scene.coded_file import CodeSpace


@pytest.fixture(scope='module')
def walked():
    """The map of four scenes: a start, one chained at a unit of its own, one with a pose, one known again."""
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    for k, unit in ((1, 1.0), (2, 0.8)):
        assert mapper.add(*seen(WALK[k], WALK[k - 1], unit, stamps=(100 + k, 99 + k))).fused
    assert mapper.add(*seen(WALK[3], WALK[2], 0.9, stamps=(103, 102), given=ROOM @ WALK[3])).fused
    again = Mapper(mapper.map, 200_000)
    assert again.add(*seen(WALK[2], WALK[1], stamps=(108, 107))).reason.startswith('place of scene')
    return again.map


def test_each_scene_has_its_place_and_what_was_measured_of_it(walked):
    graph = walked.graph
    assert graph.numbers.tolist() == [1, 2, 3, 4] and graph.stamps_ns.tolist() == [101, 102, 103, 108]
    assert [graph.stamp_ns(number) for number in (0, 1, 4, 5)] == [None, 101, 108, None]
    np.testing.assert_allclose(graph.poses, [ROOM @ WALK[k] for k in (1, 2, 3, 2)], atol=0.02)
    np.testing.assert_allclose(graph.scales, (1, 0.8, 0.9, 1), rtol=0.02)
    assert [(link.first, link.second) for link in graph.links[:-1]] == [(MAP, 1), (1, 2), (2, 3), (MAP, 3)]
    assert graph.links[-1].second == 4 and [link.doubtful for link in graph.links] == 4 * [False] + [True]
    for link in graph.links:  # each says what the poses say, in the unit of its first scene
        second, first = graph.row(link.second), graph.row(link.first)
        pose, scale = (np.eye(4), 1.0) if first is None else (graph.poses[first], graph.scales[first])
        moved = link.first_from_second.copy()
        moved[:3, 3] *= scale
        np.testing.assert_allclose(pose @ moved, graph.poses[second], atol=0.02)
        assert scale * link.ratio == pytest.approx(graph.scales[second], rel=0.02)
    np.testing.assert_array_equal(graph.links[0].first_from_second, START)


def test_a_place_in_a_map_of_an_earlier_release_is_one_in_the_map_itself(walked):
    old = Mapper(replace(walked, graph=PoseGraph.empty()), 200_000)
    fusion = old.add(*seen(WALK[2], WALK[1], stamps=(9, 8)))
    graph = old.map.graph
    assert fusion.fused and graph.numbers.tolist() == [5] and graph.stamp_ns(4) is None
    (link,) = graph.links
    assert (link.first, link.second, link.doubtful) == (MAP, 5, True)
    np.testing.assert_array_equal(link.first_from_second, fusion.map_from_camera)


def test_a_saved_graph_loads_to_the_last_bit(walked, tmp_path):
    space = CodeSpace('small.safetensors', 'minilm-l6', 'abc', 32)
    save_map(tmp_path / 'map.safetensors', walked, space)
    again = load_map(tmp_path / 'map.safetensors', space).graph
    for name in ('numbers', 'poses', 'scales', 'stamps_ns'):
        np.testing.assert_array_equal(getattr(again, name), getattr(walked.graph, name))
    for link, kept in zip(again.links, walked.graph.links, strict=True):
        for name, value in vars(kept).items():
            np.testing.assert_array_equal(getattr(link, name), value)
    assert len(graph_file.graph_of(graph_file.tensors_of(PoseGraph.empty()))) == 0


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda t: t.update(graph_link_real=t['graph_link_real'][:-1]), 'cut off'),
        (lambda t: t['graph_scene_whole'].__setitem__(0, 5), 'not in order or out of their range, 1 to 4'),
        (lambda t: t['graph_scene_whole'].__setitem__(0, 2), 'not in order'),
        (lambda t: t['graph_link_whole'].__setitem__(0, 3), 'not of its scenes'),
        (lambda t: t['graph_link_whole'].__setitem__(1, 9), 'not of its scenes'),
        (lambda t: t['graph_link_whole'].__setitem__(2, 7), 'not of its scenes'),
        (lambda t: t['graph_link_real'].__setitem__(19, 0.0), 'out of their range'),
        (lambda t: t['graph_link_real'].__setitem__(3, float('nan')), 'out of their range'),
        (lambda t: t['graph_scene_real'].__setitem__(0, 2.0), 'not rigid'),
        (lambda t: t.update({name: t[name].repeat(20) for name in list(t)[2:]}), 'links of 4 scenes'),
    ],
)
def test_a_graph_of_a_file_that_cannot_be_is_named(walked, change, said):
    tensors = {name: tensor.clone() for name, tensor in graph_file.tensors_of(walked.graph).items()}
    assert graph_file.defect(tensors, 4) == ''
    change(tensors)
    assert said in graph_file.defect(tensors, 4)
