"""Focal length, pose and scale from point maps with known truth."""

import numpy as np
import pytest
import torch

from gsemsplat_ros.mapping.calibrate import snap_to_rays
from gsemsplat_ros.mapping.pose import focal_from_points, pixel_grid, place, relative_pose, stereo_scale
from gsemsplat_ros.network.model import Prediction, ViewPrediction
from gsemsplat_ros.views.view import Camera, Pair, View

CAMERA = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)


def rays(camera):
    grid = pixel_grid(camera.height, camera.width)
    return np.concatenate(((grid - (camera.cx, camera.cy)) / (camera.fx, camera.fy), np.ones((*grid.shape[:2], 1))), -1)


def wavy_depth(camera):
    grid = pixel_grid(camera.height, camera.width)
    return 3 + 0.5 * np.sin(grid[..., 0] / 17) + 0.4 * np.cos(grid[..., 1] / 11)


def turned(angle, axis, translation):
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    pose = np.eye(4)
    pose[:3, :3] = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    pose[:3, 3] = translation
    return pose


def test_focal_length_of_its_own_points():
    points = rays(CAMERA) * wavy_depth(CAMERA)[..., None]
    conf = np.random.default_rng(0).uniform(1, 2, points.shape[:2])
    points[conf < 1.2] *= (1.5, 1, 1)                   # the doubtful part is wrong and is left out
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
    np.testing.assert_allclose(pose.first_from_second, first_from_second, atol=2e-3)
    assert 0.6 < pose.inliers / pose.points < 0.8
    np.testing.assert_array_equal(relative_pose(points, np.ones(points.shape[:2]), CAMERA).first_from_second,
                                  pose.first_from_second)
    assert relative_pose(rng.normal(size=points.shape) * 9, np.ones(points.shape[:2]), CAMERA) is None


def stereo_pair(camera, baseline, depth):
    """A textured fronto-parallel wall at `depth` seen by two parallel cameras."""
    rng = np.random.default_rng(1)
    shift = camera.fx * baseline / depth
    assert shift == int(shift)
    wall = rng.integers(0, 255, (camera.height, camera.width + 200), dtype=np.uint8)
    left = wall[:, 100:100 + camera.width]
    right = wall[:, 100 + int(shift):100 + int(shift) + camera.width]
    return Pair(View(np.repeat(left[..., None], 3, 2), camera), View(np.repeat(right[..., None], 3, 2)), baseline)


def test_scale_comes_from_the_baseline():
    camera = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
    pair = stereo_pair(camera, 0.1, 3.0)                 # 10 px
    scale = stereo_scale(pair, np.full((120, 160), 1.5))
    assert scale.factor == pytest.approx(2.0, rel=0.02) and scale.inliers > 0.9 * scale.points > 5000
    placed = place(pair, rays(CAMERA) * 1.5, rays(CAMERA) * 1.5, np.ones((120, 160)), CAMERA)
    assert placed.source == 'stereo baseline'
    np.testing.assert_allclose(placed.in_metres()[:3, 3], [0.1, 0, 0], atol=1e-9)
    blank = Pair(View(np.zeros((240, 320, 3), np.uint8), camera), View(np.zeros((240, 320, 3), np.uint8)), 0.1)
    assert stereo_scale(blank, np.full((120, 160), 1.5)) is None
    assert place(blank, rays(CAMERA), rays(CAMERA), np.ones((120, 160)), CAMERA).source == 'network'


def test_points_are_moved_onto_calibrated_rays():
    rng = np.random.default_rng(2)
    first_from_second = turned(0.2, (0, 1, 0), (0.3, 0, 0.1))
    depth = wavy_depth(CAMERA)
    true = [rays(CAMERA) * depth[..., None] @ pose[:3, :3].T + pose[:3, 3] for pose in (np.eye(4), first_from_second)]
    views = []
    for points, pose in zip(true, (np.eye(4), first_from_second)):
        sideways = rng.normal(scale=0.05, size=points.shape) * (1, 1, 0) @ pose[:3, :3].T     # off the ray, same depth
        tensor = torch.from_numpy(points + sideways).float()[None]
        views.append(ViewPrediction(tensor, torch.ones(tensor.shape[:3]), means=tensor + 0.01))
    snapped = snap_to_rays(Prediction(*views), CAMERA, CAMERA, first_from_second)
    for view, points in zip((snapped.first, snapped.second), true):
        np.testing.assert_allclose(view.pts3d[0].numpy(), points, atol=1e-5)
        np.testing.assert_allclose(view.means[0].numpy(), points + 0.01, atol=1e-5)
    kept = snap_to_rays(Prediction(*views), CAMERA, CAMERA, None)
    assert kept.second is views[1]
