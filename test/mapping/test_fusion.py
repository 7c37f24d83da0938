"""Scenes placed in the map one after the other: chained, given a pose, or refused with a reason."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.walked_room import CAMERA, ROOM, WALK, look, off_the_walls, picture, seen

from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.gaussians.rotations import rotation_to_quat
from gsemsplat_ros.mapping.fusion import START, Mapper
from gsemsplat_ros.mapping.map import Map


def test_more_than_two_images_become_one_map_at_one_scale():
    """Five keyframes, four pairs (the newest view first), each with a unit of its own."""
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    for k, unit in zip(range(1, 5), (1.0, 0.7, 1.2, 0.9)):
        scene, pair = seen(WALK[k], WALK[k - 1], unit, stamps=(k, k - 1))
        fusion = mapper.add(scene, pair)
        assert fusion.fused and fusion.reason == ('start' if k == 1 else 'keyframe in both')
        assert fusion.scale == pytest.approx(unit, rel=1e-4)  # the first one's unit is the map's
        np.testing.assert_allclose(fusion.map_from_camera, ROOM @ WALK[k], atol=1e-3)
    off = off_the_walls(mapper.map, ROOM)
    assert mapper.map.scenes == 4 and np.quantile(off, 0.98) < 1e-3
    assert off.max() < 0.03  # voxels in corners hold two walls
    assert mapper.map.scale_source == 'network' and mapper.map.frame == 'map'


def test_duplicates_do_not_compete():
    """What is seen again is merged: the same scene twice is no larger, and drawn as before, without holes."""
    scene, pair = seen(WALK[1], WALK[0])
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    mapper.add(scene, pair)
    once = mapper.map
    for _ in range(2):
        assert mapper.add(*seen(WALK[1], WALK[0], given=START)).fused
    assert len(mapper.map) == len(once) < len(scene.gaussians) and (mapper.map.whole.counts == 3).all()
    depth, _ = picture(WALK[1], CAMERA)
    drawn = [render(map_.gaussians, CAMERA, np.linalg.inv(START)) for map_ in (once, mapper.map)]
    for drawing in drawn:
        assert (drawing.alpha[4:-4, 4:-4] > 0.8).float().mean() > 0.97
        assert np.nanmedian(np.abs(drawing.depth.numpy() / depth - 1)) < 0.03
    # rounding decides which of two at one depth is drawn first
    assert (drawn[1].rgb - drawn[0].rgb).abs().mean() < 0.01
    np.testing.assert_allclose(mapper.map.gaussians.scales, once.gaussians.scales, rtol=1e-3)


def test_stereo_without_poses_is_chained_by_its_images():
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    right = np.eye(4)
    right[0, 3] = 0.1
    for k in range(1, 5):
        scene, pair = seen(WALK[k], WALK[k] @ right, source='stereo baseline', stamps=(k, k), baseline=0.1)
        fusion = mapper.add(scene, pair)
        assert fusion.fused and fusion.scale == 1.0
        assert fusion.reason == ('start' if k == 1 else 'features of both images')
        off = np.linalg.inv(ROOM @ WALK[k]) @ fusion.map_from_camera
        assert np.linalg.norm(off[:3, 3]) < 0.05 and np.trace(off[:3, :3]) > 1 + 2 * np.cos(np.deg2rad(1))
    assert np.quantile(off_the_walls(mapper.map, ROOM), 0.95) < 0.05


def test_a_lost_keyframe_is_bridged_by_features():
    """The keyframe before was replaced without a pair: images still tell where the new pair stands, and its
    scale.
    """
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    mapper.add(*seen(WALK[1], WALK[0], stamps=(1, 0)))
    fusion = mapper.add(*seen(WALK[3], WALK[2], unit=0.8, stamps=(3, 2)))
    assert (
        fusion.fused
        and fusion.reason == 'features of both images'
        and fusion.scale == pytest.approx(0.8, rel=0.03)
    )
    np.testing.assert_allclose(fusion.map_from_camera, ROOM @ WALK[3], atol=0.05)


def test_a_given_pose_overrides_the_chain():
    mapper = Mapper(Map.empty('odom', 0.04), 200_000)
    for k in (1, 2):
        fusion = mapper.add(
            *seen(WALK[k], WALK[k - 1], unit=(1.0, 0.6)[k - 1], stamps=(k, k - 1), given=WALK[k])
        )
        assert fusion.fused and fusion.reason == 'pose given'
        np.testing.assert_array_equal(fusion.map_from_camera, WALK[k])
    assert fusion.scale == pytest.approx(0.6, rel=1e-4)  # that of the first scene
    metric = Mapper(Map.empty('odom', 0.04), 200_000)
    for k, far in ((1, 0), (2, 40)):  # nothing in common but the frame
        seen_from = look(1, 2, 180 * k), look(0.9, 2, 180 * k)
        assert metric.add(*seen(*seen_from, source='tf', stamps=(k, -k), given=look(far, 0, 0))).fused
    np.testing.assert_allclose(
        metric.map.gaussians.means[-1] - metric.map.gaussians.means[0], (40, 0, 0), atol=8
    )


@pytest.mark.parametrize('unit, fused', [(0.2, False), (0.75, True), (1.5, True), (3.0, False)])
def test_a_scale_that_contradicts_the_given_poses_is_not_fused(unit, fused):
    """As of a calibration that changed, or matches that were all wrong."""
    mapper = Mapper(Map.empty('odom', 0.04), 200_000)
    right = {'source': 'stereo baseline', 'baseline': 0.1}
    assert mapper.add(*seen(WALK[1], WALK[0], stamps=(1, 1), given=WALK[1], **right)).fused
    before = mapper.map
    fusion = mapper.add(*seen(WALK[2], WALK[1], unit, stamps=(2, 2), given=WALK[2], **right))
    assert fusion.fused == fused and (mapper.map is before) != fused
    assert fused or re.search(rf'{unit:.2f} times as far away .poses given.', fusion.reason), fusion.reason
    assert mapper.add(*seen(WALK[3], WALK[2], stamps=(3, 3), given=WALK[3], **right)).fused


def bent(points):
    """A scene that contradicts itself and others: depths turned into noise."""
    return points * np.random.default_rng(0).uniform(0.3, 3, (len(points), 1))


@pytest.mark.parametrize(
    'change, said',
    [
        (dict(first_from_second=None), 'pose of the second camera was not found'),
        (dict(inliers=20, points=50), '20 of 50 measurements agree'),
        (dict(inliers=200, points=1500), '200 of 1500 measurements agree'),
        (dict(inliers=0, points=0), '0 of 0 measurements agree'),
    ],
)
def test_a_pair_that_fails_its_own_checks_is_not_fused(change, said):
    mapper = Mapper(Map.empty('map', 0.04), 1000)
    scene, pair = seen(WALK[1], WALK[0], given=START)
    fusion = mapper.add(replace(scene, **change), pair)
    assert not fusion.fused and said in fusion.reason and '\n' not in fusion.reason and len(mapper.map) == 0


@pytest.mark.parametrize(
    'kwargs, said',
    [
        (dict(unit=0.3), r'scale over its own is 0.30 \(keyframe in both\): wanted 0.50 to 2.00'),
        (dict(unit=0.6, source='tf'), 'wanted 0.75 to 1.25'),
        (dict(bend=bent), 'depths agree with the last scene'),
    ],
)
def test_a_scale_that_jumps_or_depths_that_contradict_are_not_fused(kwargs, said):
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    mapper.add(*seen(WALK[1], WALK[0], stamps=(1, 0)))
    before = mapper.map
    fusion = mapper.add(*seen(WALK[2], WALK[1], stamps=(2, 1), **kwargs))
    assert not fusion.fused and mapper.map is before
    assert re.search(said, fusion.reason), fusion.reason


def test_after_a_refusal_the_chain_goes_on():
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    mapper.add(*seen(WALK[1], WALK[0], stamps=(1, 0)))
    scene, pair = seen(WALK[2], WALK[1], stamps=(2, 1))
    assert not mapper.add(replace(scene, first_from_second=None), pair).fused
    fusion = mapper.add(*seen(WALK[3], WALK[2], stamps=(3, 2)))
    assert fusion.fused and fusion.reason == 'features of both images'


def test_what_shares_nothing_with_the_map_needs_a_pose():
    mapper = Mapper(Map.empty('map', 0.04), 200_000)
    mapper.add(*seen(look(1, 2, 0), look(0.9, 2, 0), stamps=(1, 0)))
    away = seen(look(1, 2, 180), look(1.1, 2, 180), stamps=(9, 8))
    assert mapper.add(*away).reason.startswith('shares too little with the last scene in the map')
    given = seen(look(1, 2, 180), look(1.1, 2, 180), stamps=(9, 8), given=START)
    assert mapper.add(*given).fused
    loaded = Mapper(mapper.map, 200_000)
    fusion = loaded.add(*away)
    assert not fusion.fused and 'loaded' in fusion.reason and loaded.map is mapper.map
    assert loaded.add(*given).fused and loaded.map.scenes == 3


def test_a_turned_and_grown_scene_keeps_its_shape_in_the_map():
    """Covariances turn and scale with the scene (s^2 R C R^T), also through the mapper."""
    scene, pair = seen(WALK[1], WALK[0], given=WALK[2])
    rng = np.random.default_rng(1)
    count, turned = len(scene.gaussians), rotation_to_quat(look(0, 0, 33)[:3, :3])
    flat = replace(
        scene.gaussians,
        scales=torch.tensor(rng.uniform(0.001, 0.02, (count, 3)), dtype=torch.float32),
        quats=torch.tensor(np.tile(turned, (count, 1)), dtype=torch.float32),
    )
    mapper = Mapper(Map.empty('map', 1e-4), 10**6)
    mapper.add(replace(scene, gaussians=flat), pair)
    alone = {tuple(x): i for i, x in enumerate(np.round(mapper.map.gaussians.means.double().numpy(), 4))}
    placed = flat.means.double().numpy() @ WALK[2][:3, :3].T + WALK[2][:3, 3]
    covariances, checked = mapper.map.gaussians.covariances().double().numpy(), 0
    for i in range(0, len(flat), 53):
        j = alone.get(tuple(np.round(placed[i], 4)))
        if j is not None and np.abs(mapper.map.gaussians.means[j].double().numpy() - placed[i]).max() < 1e-6:
            expected = WALK[2][:3, :3] @ flat.covariances()[i].double().numpy() @ WALK[2][:3, :3].T
            np.testing.assert_allclose(covariances[j], expected, atol=1e-6)
            checked += 1
    assert checked > 50
