"""Focal length, pose and scale from point maps with known truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.point_maps import CAMERA, rays, turned, wavy_depth

from gsemsplat_ros.geometry.matches import PairMatches, match_pair
from gsemsplat_ros.geometry.pose import (
    PairPose,
    camera_pose,
    focal_from_points,
    pair_pose,
    polished_pose,
    relative_pose,
)
from gsemsplat_ros.geometry.rays import snap_to_rays
from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.images.view import Pair, View, fit
from gsemsplat_ros.network.model import Prediction, ViewPrediction


def test_focal_length_of_its_own_points():
    points = rays(CAMERA) * wavy_depth(CAMERA)[..., None]
    conf = np.random.default_rng(0).uniform(1, 2, points.shape[:2])
    points[conf < 1.2] *= (1.5, 1, 1)  # the doubtful part is wrong and is left out
    assert focal_from_points(points, conf) == pytest.approx(150, rel=1e-6)
    with pytest.raises(ValueError, match='in front of the camera'):
        focal_from_points(-points, conf)


def test_relative_pose_with_outliers():
    first_from_second = turned(0.3, (0.2, 1, 0.1), (0.4, -0.1, 0.2))
    points = rays(CAMERA) * wavy_depth(CAMERA)[..., None]
    points = points @ first_from_second[:3, :3].T + first_from_second[:3, 3]
    rng = np.random.default_rng(0)
    points[rng.random(points.shape[:2]) < 0.3] += rng.normal(size=3)
    pose = relative_pose(points, np.ones(points.shape[:2]), CAMERA)
    np.testing.assert_allclose(pose.first_from_second_net, first_from_second, atol=2e-3)
    assert 0.6 < pose.inliers / pose.points < 0.8
    np.testing.assert_array_equal(
        relative_pose(points, np.ones(points.shape[:2]), CAMERA).first_from_second_net,
        pose.first_from_second_net,
    )
    assert relative_pose(rng.normal(size=points.shape) * 9, np.ones(points.shape[:2]), CAMERA) is None
    right = rng.random(points.shape[:2]) < 0.5
    minority = np.where(
        right[..., None], points, rng.normal(size=points.shape) * 9
    )  # a third of the network's agreed on
    assert relative_pose(minority, np.ones(points.shape[:2]), CAMERA) is None  # directions off by 90 degrees


def stereo_pair(camera, baseline, depth):
    """A textured fronto-parallel wall at `depth` seen by two parallel cameras."""
    rng = np.random.default_rng(1)
    shift = camera.fx * baseline / depth
    assert shift == int(shift)
    wall = rng.integers(0, 255, (camera.height, camera.width + 200), dtype=np.uint8)
    left = wall[:, 100 : 100 + camera.width]
    right = wall[:, 100 + int(shift) : 100 + int(shift) + camera.width]
    return Pair(
        View(np.repeat(left[..., None], 3, 2), camera), View(np.repeat(right[..., None], 3, 2)), baseline
    )


def test_scale_comes_from_the_baseline():
    camera = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
    pair = stereo_pair(camera, 0.1, 3.0)  # 10 px
    windows = [fit(view, 320, 240)[1] for view in (pair.first, pair.second)]
    points, conf = rays(CAMERA) * 1.5, np.ones((120, 160))
    matches = match_pair(pair).on_grid(*windows, 160, 120)
    pose = pair_pose(pair, matches, points[..., 2], points, conf, CAMERA)
    assert pose.scale_source == 'stereo baseline' and pose.inliers > 0.9 * pose.points > 5000
    assert pose.scale == pytest.approx(2.0, rel=0.02)
    np.testing.assert_allclose(pose.first_from_second[:3, 3], [0.1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(np.median(pose.matches.z_first), 1.5, rtol=0.02)
    beyond = replace(matches, uv_first=matches.uv_first + 999.0)  # outside what the network saw
    with pytest.raises(ValueError, match='0 of 0 disparities agree with the depths of the network'):
        pair_pose(pair, beyond, points[..., 2], points, conf, CAMERA)


def measured(first_from_second, unit):
    """Exact matches of the wavy surface, in `unit` metres, on the grid of CAMERA."""
    depth, step = wavy_depth(CAMERA)[10:-10:4, 10:-10:4], np.s_[10:-10:4, 10:-10:4]
    points = (rays(CAMERA)[step] * depth[..., None]).reshape(-1, 3)
    local = (points - first_from_second[:3, 3]) @ first_from_second[:3, :3]
    uv, _ = CAMERA.project(local)
    pose = first_from_second.copy()
    pose[:3, 3] /= unit
    return PairMatches(
        pose, pixel_grid(120, 160)[step].reshape(-1, 2), uv, points[:, 2] / unit, local[:, 2] / unit
    )


def test_matches_outrank_the_second_point_map():
    """Its own pose is wrong by 0.2 rad; the network's unit is half a metre; TF knows metres."""
    first_from_second, wrong = (
        turned(0.3, (0, 1, 0), (0.4, -0.1, 0.2)),
        turned(0.5, (0, 1, 0), (0.1, 0.3, 0.2)),
    )
    depth = wavy_depth(CAMERA)
    points = rays(CAMERA) * depth[..., None] * 2
    second = rays(CAMERA) * depth[..., None] * 2 @ wrong[:3, :3].T + wrong[:3, 3]
    view = View(np.zeros((120, 160, 3), np.uint8), CAMERA)
    seen = measured(first_from_second, 0.45)
    pose = pair_pose(Pair(view, view), seen, points[..., 2], second, np.ones((120, 160)), CAMERA)
    expected = first_from_second.copy()
    expected[:3, 3] *= 2
    np.testing.assert_allclose(pose.first_from_second_net, expected, atol=1e-6)
    np.testing.assert_allclose(pose.first_from_points_net, wrong, atol=0.01)
    assert pose.scale_source == 'network' and pose.inliers == pose.points > 300
    told = Pair(replace(view, map_from_camera=np.eye(4)), replace(view, map_from_camera=first_from_second))
    pose = pair_pose(told, seen, points[..., 2], second, np.ones((120, 160)), CAMERA)
    assert pose.scale_source == 'tf' and pose.scale == pytest.approx(0.5)
    np.testing.assert_allclose(pose.first_from_second, first_from_second, atol=1e-6)
    few = replace(seen, uv_first=seen.uv_first[:9], z_first=seen.z_first[:9])
    pose = pair_pose(Pair(view, view), few, points[..., 2], second, np.ones((120, 160)), CAMERA)
    np.testing.assert_allclose(pose.first_from_second_net, wrong, atol=0.01)
    assert pose.matches is None


def test_points_are_moved_onto_calibrated_rays_and_measured_depths():
    rng = np.random.default_rng(2)
    first_from_second, own = turned(0.2, (0, 1, 0), (0.3, 0, 0.1)), turned(0.4, (0, 1, 0), (0.1, 0, 0.2))
    depth = wavy_depth(CAMERA)
    views, truth = [], []
    for own_pose, true_pose in ((np.eye(4), np.eye(4)), (own, first_from_second)):
        local = rays(CAMERA) * depth[..., None]
        truth.append(local @ true_pose[:3, :3].T + true_pose[:3, 3])
        local = local + rng.normal(scale=0.05, size=local.shape) * (1, 1, 0)  # off the ray, same depth
        tensor = torch.from_numpy(local @ own_pose[:3, :3].T + own_pose[:3, 3]).float()[None]
        views.append(
            ViewPrediction(
                tensor, torch.ones(tensor.shape[:3]), means=tensor + 0.01, scales=torch.full_like(tensor, 0.1)
            )
        )
    on_host = tuple(view.pts3d[0].numpy() for view in views)
    images = (np.full((120, 160, 3), 128, np.uint8),) * 2
    pose = PairPose(first_from_second, own)
    snapped = snap_to_rays(Prediction(*views), on_host, (CAMERA, CAMERA), pose, images)
    for view, points in zip((snapped.first, snapped.second), truth):
        np.testing.assert_allclose(view.pts3d[0].numpy(), points, atol=1e-5)
        np.testing.assert_allclose(view.means[0].numpy(), points + 0.01, atol=1e-5)
    kept = snap_to_rays(
        Prediction(*views), on_host, (CAMERA, CAMERA), replace(pose, first_from_second_net=None), images
    )
    assert kept.second is views[1]
    seen = measured(np.eye(4), 0.8)  # all is 1.25 times as far as the network thinks
    bent = snap_to_rays(
        Prediction(*views), on_host, (CAMERA, CAMERA), replace(pose, matches=seen), images
    ).first
    np.testing.assert_allclose(bent.pts3d[0].numpy(), 1.25 * truth[0], rtol=2e-3)
    np.testing.assert_allclose((bent.means - bent.pts3d).numpy(), 0.0125, rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(bent.scales.numpy(), 0.125, rtol=2e-3)


def test_points_that_coincide_give_no_pose():
    camera = Camera.centred(640, 480, 500.0)
    point = np.array([[0.1, 0.2, 3.0]])
    assert camera_pose(np.repeat(point, 40, 0), np.repeat(camera.project(point)[0], 40, 0), camera) is None


def test_the_pose_of_a_camera_from_points_and_pixels_is_exact():
    rng, camera = np.random.default_rng(0), Camera.centred(640, 480, 500.0)
    points = rng.uniform((-1, -1, 2), (1, 1, 4), (60, 3))
    pixels = camera.project(points)[0]
    pixels[:20] += rng.uniform(50, 100, (20, 2))  # wrong matches
    pose, rows = camera_pose(points + (0.3, -0.2, 0.1), pixels, camera)
    np.testing.assert_allclose(pose[:3], [[1, 0, 0, -0.3], [0, 1, 0, 0.2], [0, 0, 1, -0.1]], atol=1e-4)
    assert rows.tolist() == list(range(20, 60))
    rough = pose.copy()
    rough[:3, 3] += 0.05
    np.testing.assert_allclose(
        polished_pose(points[20:] + (0.3, -0.2, 0.1), pixels[20:], camera, rough), pose, atol=1e-4
    )
