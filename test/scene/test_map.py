"""Scenes merged into a map, against a plain dictionary."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.word_maps import HERE, cloud, scene_cloud

from gsemsplat_ros.gaussians.gaussians import TENSORS
from gsemsplat_ros.scene.map import MIN_OPACITY, Map


class PlainMap:
    """The twin: a dictionary from voxel to Gaussian, one Gaussian at a time."""

    def __init__(self, voxel):
        self.voxel, self.scenes, self.cells = voxel, 0, {}

    def merge(self, gaussians, here, budget):
        self.scenes += 1
        arrays = {name: getattr(gaussians, name).double().numpy() for name in TENSORS}
        found = {}
        for i in range(len(gaussians)):
            if arrays['opacities'][i] < MIN_OPACITY:
                continue
            cell = tuple(np.floor(arrays['means'][i] / self.voxel).astype(int))
            one = {name: array[i] for name, array in arrays.items()}
            distance = max(np.linalg.norm(one['means'] - here), 0.3)
            found.setdefault(cell, []).append((one['opacities'] / distance**2, one))
        for cell, members in found.items():
            before = self.cells.get(cell)
            if before:
                members.insert(0, (before['weight'], before['gaussian']))
            self.cells[cell] = {
                'gaussian': self.mixture(members),
                'weight': sum(w for w, _ in members),
                'count': 1 + (before['count'] if before else 0),
                'seen': self.scenes,
            }
        value = {cell: held['weight'] / (1 + self.scenes - held['seen']) for cell, held in self.cells.items()}
        for cell in sorted(value, key=value.get)[: max(0, len(self.cells) - budget)]:
            del self.cells[cell]

    @staticmethod
    def mixture(members):
        total = sum(w for w, _ in members)
        one = {
            name: sum(w * m[name] for w, m in members) / total
            for name in ('means', 'colors', 'opacities', 'codes')
        }
        one['quats'] = max(members, key=lambda member: member[0])[1]['quats']
        apart = [np.outer(x, x) for x in (m['means'] - one['means'] for _, m in members)]
        covariance = sum(w * (cov(m['quats'], m['scales']) + x) for (w, m), x in zip(members, apart)) / total
        axes = turn(one['quats'])
        one['scales'] = np.sqrt(np.diag(axes.T @ covariance @ axes))
        return one


def turn(quat):
    """The rotation by its axis and angle (Rodrigues), for a unit quaternion w x y z."""
    sine = np.linalg.norm(quat[1:])
    return cv2.Rodrigues(quat[1:] / max(sine, 1e-12) * 2 * np.arctan2(sine, quat[0]))[0]


def cov(quat, scales):
    return turn(quat) @ np.diag(np.square(scales)) @ turn(quat).T


@pytest.mark.parametrize('budget', [10**6, 2000])
def test_merging_equals_a_dictionary(budget):
    map_, plain = Map.empty('map', 0.05), PlainMap(0.05)
    for seed in range(4):
        gaussians = scene_cloud(seed, channels=8)
        here = HERE * seed
        map_ = map_.merged(gaussians, here, budget)
        plain.merge(gaussians, here, budget)
    assert len(map_) == len(plain.cells) and (budget > 10**5) == (len(map_) > 2000)
    assert (map_.keys.diff() > 0).all()
    order = sorted(plain.cells)  # keys grow with x, then y, then z, as tuples do
    for name in TENSORS:
        expected = np.array([plain.cells[cell]['gaussian'][name] for cell in order])
        np.testing.assert_allclose(
            getattr(map_.gaussians, name), expected, rtol=2e-4, atol=2e-6, err_msg=name
        )
    np.testing.assert_allclose(map_.weights, [plain.cells[cell]['weight'] for cell in order], rtol=1e-5)
    np.testing.assert_array_equal(map_.counts, [plain.cells[cell]['count'] for cell in order])
    np.testing.assert_array_equal(map_.last_seen, [plain.cells[cell]['seen'] for cell in order])
    assert map_.counts.max() > 1 and map_.last_seen.min() < 4


def test_a_map_never_changes():
    map_ = Map.empty('map', 0.05).merged(scene_cloud(0), HERE, 10**6)
    before = [
        tensor.clone() for tensor in (map_.keys, map_.weights, *(getattr(map_.gaussians, n) for n in TENSORS))
    ]
    scene = scene_cloud(1)
    kept = scene.means.clone()
    assert map_.merged(scene, HERE, 1000).scenes == 2 and map_.scenes == 1
    after = [map_.keys, map_.weights, *(getattr(map_.gaussians, n) for n in TENSORS)]
    assert all(torch.equal(a, b) for a, b in zip(before, after)) and torch.equal(kept, scene.means)


def test_what_is_alone_in_its_voxel_stays_bit_for_bit():
    scene = scene_cloud(0)
    scene = scene.select(scene.opacities >= MIN_OPACITY)
    map_ = Map.empty('map', 1e-4).merged(scene, HERE, 10**6)
    assert len(map_) == len(scene)
    order = np.lexsort(np.floor(scene.means.double().numpy() / 1e-4).T[::-1])
    for name in TENSORS:
        assert torch.equal(getattr(map_.gaussians, name), getattr(scene, name)[order]), name


def test_oldest_and_least_certain_go_first():
    """Three voxels, two scenes: the certain one seen long ago beats the faint one seen now, and loses with
    age.
    """

    def at(*placed):
        means = torch.tensor([[x, 0.01, 0.01] for x, _ in placed])
        opacities = torch.tensor([opacity for _, opacity in placed])
        return replace(scene_cloud(0, len(placed)), means=means, opacities=opacities)

    camera = np.array([0, 0, 5.0])
    map_ = Map.empty('map', 0.05).merged(at((0.01, 0.9), (0.11, 0.2)), camera, 10)
    map_ = map_.merged(at((0.21, 0.3)), camera, 2)
    np.testing.assert_allclose(map_.gaussians.means[:, 0], [0.01, 0.21])  # 0.9 / 2 and 0.3 beat 0.2 / 2
    for x in (0.31, 0.41):
        map_ = map_.merged(at((x, 0.5)), camera, 2)
    np.testing.assert_allclose(map_.gaussians.means[:, 0], [0.31, 0.41])  # 0.5 / 2 beats 0.9 / 4


def test_haze_strays_and_broken_numbers_stay_out():
    scene = scene_cloud(0, 8)
    scene.opacities[:] = 0.8
    scene.means[0, 1], scene.scales[1, 0], scene.codes[2, 3] = torch.nan, torch.inf, torch.nan
    scene.means[3], scene.opacities[4] = torch.tensor([1e9, 0, 0]), 0.01
    map_ = Map.empty('map', 0.001).merged(scene, HERE, 100)
    assert len(map_) == 3 and torch.isfinite(map_.gaussians.codes).all()
    nothing = map_.merged(scene.select(slice(0, 5)), HERE, 100)
    assert (
        len(nothing) == 3
        and nothing.scenes == 2
        and torch.equal(nothing.gaussians.means, map_.gaussians.means)
    )
    assert len(Map.empty('map', 0.001).merged(scene.select(slice(0, 5)), HERE, 100)) == 0


def test_fusing_takes_some_sortings_of_the_map():
    """100,000 Gaussians into a map of 500,000: 0.2 s on a free core, in which keys are sorted four times."""

    def surface(seed, count, side):
        rng = np.random.default_rng(seed)
        return cloud(np.column_stack((rng.uniform(0, side, (count, 2)), rng.integers(0, 3, count))), seed)

    map_ = Map.empty('map', 0.02)
    while len(map_) < 500_000:
        map_ = map_.merged(surface(map_.scenes, 250_000, 12.0), np.zeros(3), 500_000)
    scene, keys = surface(99, 100_000, 6.0), np.random.default_rng(0).integers(0, 2**60, 600_000)

    def seconds(work):
        start = time.thread_time()
        work()
        return time.thread_time() - start

    fuse = min(seconds(lambda: map_.merged(scene, np.zeros(3), 500_000)) for _ in range(3))
    sort = min(seconds(lambda: np.argsort(keys)) for _ in range(3))
    assert len(map_) == 500_000 and fuse < 16 * sort, (fuse, sort)
