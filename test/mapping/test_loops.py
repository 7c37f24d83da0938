"""A chain of scenes that comes back to where it began corrects itself; a place that only looks so changes
nothing."""

from dataclasses import replace

import numpy as np
import pytest
from support.walked_room import look, off_the_walls, seen

from gsemsplat_ros.mapping import fusion, loops
from gsemsplat_ros.mapping.fusion import START, Mapper
from gsemsplat_ros.mapping.map import Map

COUNT = 15  # scenes of one round and two more
RING = [look(3 + 0.5 * np.cos(a), 2.5 + 0.5 * np.sin(a), np.rad2deg(a)) for a in np.arange(COUNT) * np.pi / 6]
TURN = np.deg2rad(0.4)  # by which each scene's second camera is wrong
DRIFT = np.eye(4)
DRIFT[:3, :3] = [[np.cos(TURN), 0, np.sin(TURN)], [0, 1, 0], [-np.sin(TURN), 0, np.cos(TURN)]]


def drifting(k, source):
    """Scene and pair `k` of the ring, which says that the camera turned more than it did."""
    scene, pair = seen(RING[k], RING[k - 1], source=source, stamps=(k, k - 1))
    return replace(scene, first_from_second=scene.first_from_second @ DRIFT), pair


def off(map_, number, k):
    """How far the map has scene `number`, which was seen at RING[k], from there: [m], [degrees]."""
    true = START @ np.linalg.inv(RING[0]) @ RING[k]
    away = np.linalg.inv(true) @ map_.graph.poses[map_.graph.row(number)]
    degrees = np.degrees(np.arccos(np.clip((np.trace(away[:3, :3]) - 1) / 2, -1, 1)))
    return np.linalg.norm(away[:3, 3]), degrees


@pytest.fixture(scope='module')
def walked():
    """Maps after each scene of the ring, and what fusing them gave; in metres."""
    mapper = Mapper(Map.empty('map', 0.04), 300_000)
    fusions = [mapper.add(*seen(RING[0], RING[-1], source='tf', stamps=(0, -1)))]
    maps = [mapper.map]
    for k in range(1, COUNT):
        fusions.append(mapper.add(*drifting(k, 'tf')))
        maps.append(mapper.map)
    return maps, fusions


def test_a_loop_takes_the_drift_from_the_map(walked):
    maps, fusions = walked
    assert all(result.fused for result in fusions)
    (closing,) = [k for k, result in enumerate(fusions) if 'known again: the map moved by' in result.reason]
    assert closing >= 12  # only there does it see the beginning again
    before, after = maps[closing - 1], maps[closing]
    assert off(before, closing, closing - 1)[1] > 0.9 * closing * 0.4  # one scene's pose is its start
    metres, degrees = off(after, closing + 1, closing)
    assert metres < 0.02 and degrees < 0.5
    middle = [off(map_, 7, 6) for map_ in (before, after)]
    assert middle[1][0] < middle[0][0] + 0.02
    room = START @ np.linalg.inv(RING[0])
    errors = [np.quantile(off_the_walls(map_, room), 0.9) for map_ in (before, after)]
    assert errors[1] < 0.75 * errors[0]
    assert off(maps[-1], COUNT, COUNT - 1)[1] < 0.4 * (COUNT - closing) + 0.5  # the chain goes on from there


def test_what_belongs_to_a_map_moves_with_it_and_the_one_before_stays(walked):
    maps, fusions = walked
    closing = next(k for k, result in enumerate(fusions) if 'known again' in result.reason)
    before, after = maps[closing - 1], maps[closing]
    for kept in after.keyframes:
        place = after.graph.place(after.graph.row(kept.number))
        np.testing.assert_allclose(kept.map_from_camera, place.pose, atol=1e-9)
        assert kept.scale == 1.0
    np.testing.assert_array_equal(fusions[closing].map_from_camera, after.graph.poses[-1])
    turned = [off(map_, closing, closing - 1)[1] for map_ in (before, after)]
    assert turned[0] - turned[1] > 3  # degrees: the map before is as it was
    assert before.scenes == closing and len(before.graph) == closing


def test_the_scale_comes_back_too():
    """Each scene without metres says that the one before was larger than it was."""
    mapper = Mapper(Map.empty('map', 0.04), 300_000)
    mapper.add(*seen(RING[0], RING[-1], stamps=(0, -1)))
    scales, loop = [], None
    for k in range(1, COUNT):
        views = iter((1.0, 1.04))
        scene, pair = seen(RING[k], RING[k - 1], stamps=(k, k - 1), bend=lambda points: points * next(views))
        fusion_ = mapper.add(scene, pair)
        assert fusion_.fused, fusion_.reason
        scales.append(fusion_.scale)
        loop = loop or ('known again' in fusion_.reason and k)
    assert loop and scales[loop - 2] < 0.72 and scales[loop - 1] == pytest.approx(1, abs=0.03)
    assert mapper.map.graph.scales[6] > 0.8  # 0.79 by the chain alone


def test_one_scene_alone_closes_no_loop(walked):
    """Nor do two that disagree about how far the chain is off, or one to which nothing is near."""
    maps, fusions = walked
    closing = next(k for k, result in enumerate(fusions) if 'known again' in result.reason)
    map_, finder = maps[closing - 1], loops.LoopFinder()
    scene, _ = drifting(closing, 'tf')
    place = map_.graph.place(-1)
    assert finder.closed(map_, scene, place, closing + 1) is None
    turned = place._replace(pose=place.pose @ np.linalg.matrix_power(DRIFT, 8))
    assert finder.closed(map_, scene, turned, closing + 2) is None
    assert finder.closed(map_, scene, turned, closing + 3) is not None  # as the one before
    assert finder.closed(map_, scene, turned, closing + 4) is None  # a pause
    far = place.pose.copy()
    far[0, 3] += 3
    assert loops.may_be_seen(map_, far, closing + 1) == []


def test_a_loop_that_bends_the_chain_too_much_is_left_out(walked, monkeypatch):
    """As of a place that only looks like another."""
    maps, fusions = walked
    closing = next(k for k, result in enumerate(fusions) if 'known again' in result.reason)
    mapper = Mapper(maps[closing - 1], 300_000)
    scene, _ = drifting(closing - 1, 'tf')
    mapper._anchor = fusion.Anchor(closing, scene, mapper.map.graph.place(-1))
    link = mapper.map.graph.links[-1]
    wrong = [
        replace(link, first=1, second=closing + k, first_from_second=RING[6], doubtful=True) for k in (0, 1)
    ]
    away = loops.Similarity(START @ RING[6])
    monkeypatch.setattr(mapper._loops, 'closed', lambda *_: loops.Loop((wrong[0], wrong[1]), away))
    before = mapper.map.graph.poses
    result = mapper.add(*drifting(closing, 'tf'))
    assert result.fused and result.reason == 'keyframe in both'
    np.testing.assert_array_equal(mapper.map.graph.poses[:-1], before)
    assert not any(link.doubtful for link in mapper.map.graph.links)


def test_a_loop_must_not_bend_the_chain_alone(walked, monkeypatch):
    """Half a metre beside the right place: the chain could bend so far, but hardly is so wrong."""
    maps, fusions = walked
    closing = next(k for k, result in enumerate(fusions) if 'known again' in result.reason)
    before = maps[closing - 1].graph
    for shift, fused in ((0.0, True), (0.7, False)):
        mapper = Mapper(maps[closing - 1], 300_000)
        scene, _ = drifting(closing - 1, 'tf')
        mapper._anchor = fusion.Anchor(closing, scene, before.place(-1))
        off_by = np.linalg.inv(RING[0]) @ RING[closing]
        off_by[0, 3] += shift
        other = np.linalg.inv(RING[0]) @ RING[closing - 1]
        other[0, 3] += shift
        sigmas = before.links[-1].sigmas
        links = [
            fusion.GraphLink(1, closing + k, pose, 1.0, sigmas, doubtful=True)
            for k, pose in enumerate((other, off_by))
        ]
        away = loops.Similarity(START @ RING[6])
        monkeypatch.setattr(mapper._loops, 'closed', lambda *_: loops.Loop((links[0], links[1]), away))
        result = mapper.add(*drifting(closing, 'tf'))
        assert ('known again' in result.reason) is fused


def test_a_chain_that_is_hardly_off_is_put_right_without_moving_the_map(walked, monkeypatch):
    maps, fusions = walked
    closing = next(k for k, result in enumerate(fusions) if 'known again' in result.reason)
    mapper = Mapper(maps[closing - 1], 300_000)
    before, (scene, _) = mapper.map.graph, drifting(closing - 1, 'tf')
    mapper._anchor = fusion.Anchor(closing, scene, before.place(-1))
    found = []

    def nearly(map_, scene, place, number):
        pose = place.pose.copy()
        pose[0, 3] += 0.03
        link = replace(before.links[-1], first=1, second=number, doubtful=True)
        found.append(loops.Similarity(pose))
        return loops.Loop((link, link), found[0])

    monkeypatch.setattr(mapper._loops, 'closed', nearly)
    result = mapper.add(*drifting(closing, 'tf'))
    np.testing.assert_array_equal(result.map_from_camera, found[0].pose)
    np.testing.assert_array_equal(mapper.map.graph.poses[:-1], before.poses)
    assert len(mapper.map.graph.links) == len(before.links) + 3
