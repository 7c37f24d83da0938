"""Floaters: points that lead from the edge of a thing to the wall behind it go; thing and wall stay."""

import numpy as np
import torch

from gsemsplat_ros.gaussians.floaters import floaters
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera

CAMERA = Camera(80, 60, 70.0, 70.0, 39.5, 29.5)
FIRST_FROM_SECOND = np.eye(4)
FIRST_FROM_SECOND[0, 3] = 0.2


def pair(scale=1.0):
    """(Gaussians of two pictures, which of them are floaters): a board 1 m away before a wall 3 m away; in
    the first picture the pixels along the board's right edge lie in between."""
    parts, bridge = [], []
    for pose in np.eye(4), FIRST_FROM_SECOND:
        edge = CAMERA.cx - CAMERA.fx * pose[0, 3]  # of the board, at x = 0 in the first frame
        columns = np.arange(80)[None] - edge
        depth = np.where(columns < 0, 1.0, 3.0) + np.zeros((60, 1))
        between = (np.abs(columns) < 1) & (pose[0, 3] == 0) & np.ones((60, 1), bool)
        depth[between] = np.random.default_rng(0).uniform(1.4, 2.6, between.sum())
        parts.append(CAMERA.unproject(depth).reshape(-1, 3) + pose[:3, 3])
        bridge.append(between.ravel())
    means = np.concatenate(parts) * scale
    count, sizes = len(means), 0.006 * means[:, 2:] * [1, 1, 0.3]
    arrays = (
        means,
        np.tile([1.0, 0, 0, 0], (count, 1)),
        sizes,
        np.ones(count),
        np.ones((count, 3)),
        means[:, :0],
    )
    gaussians = Gaussians(*(torch.tensor(array, dtype=torch.float32) for array in arrays), frame='camera')
    return gaussians, np.concatenate(bridge)


def scaled(pose, scale):
    return np.block([[pose[:3, :3], scale * pose[:3, 3:]], [pose[3:]]])


def test_points_between_a_thing_and_the_wall_are_floaters():
    for scale in 1.0, 20.0:  # of any unit
        gaussians, bridge = pair(scale)
        found = floaters(gaussians, CAMERA, scaled(FIRST_FROM_SECOND, scale))
        assert found[bridge].mean() > 0.7 and not found[~bridge].any(), (found[bridge].mean(), found.sum())


def test_dense_things_and_other_gaussians_than_those_of_a_pair_stay():
    gaussians, _ = pair()
    thick = gaussians.scaled(1.0)
    thick.scales[:] = 0.5
    assert not floaters(thick, CAMERA, FIRST_FROM_SECOND).any()
    assert not floaters(gaussians.select(slice(0, 4800)), CAMERA, FIRST_FROM_SECOND).any()
