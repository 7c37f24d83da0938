"""Scenes merged into a map, against a plain dictionary."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.word_maps import HERE, cloud, scene_cloud

from gsemsplat_ros.gaussians.gaussians import TENSORS
from gsemsplat_ros.gaussians.rotations import multiply_quats, rotation_to_quat
from gsemsplat_ros.mapping.map import MIN_OPACITY, Map
from gsemsplat_ros.mapping.tile import HISTORY
from gsemsplat_ros.mapping.voxels import HALF, SIDE, keys_of, tile_cells, tiles_of, voxel_cells, voxel_keys


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
        spare = budget // 16 if len(self.cells) > budget else 0
        for cell in sorted(value, key=value.get)[: max(0, len(self.cells) - budget + spare)]:
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
    order = [tuple(cell) for cell in voxel_cells(map_.keys.numpy()).tolist()]
    assert sorted(order) == sorted(plain.cells)
    for name in TENSORS:
        expected = np.array([plain.cells[cell]['gaussian'][name] for cell in order])
        np.testing.assert_allclose(
            getattr(map_.gaussians, name), expected, rtol=2e-4, atol=2e-6, err_msg=name
        )
    np.testing.assert_allclose(map_.whole.weights, [plain.cells[cell]['weight'] for cell in order], rtol=1e-5)
    np.testing.assert_array_equal(map_.whole.counts, [plain.cells[cell]['count'] for cell in order])
    np.testing.assert_array_equal(map_.whole.last_seen, [plain.cells[cell]['seen'] for cell in order])
    assert map_.whole.counts.max() > 1 and map_.whole.last_seen.min() < 4


def test_a_map_never_changes():
    map_ = Map.empty('map', 0.05).merged(scene_cloud(0), HERE, 10**6)
    before = [
        tensor.clone()
        for tensor in (map_.keys, map_.whole.weights, *(getattr(map_.gaussians, n) for n in TENSORS))
    ]
    scene = scene_cloud(1)
    kept = scene.means.clone()
    assert map_.merged(scene, HERE, 1000).scenes == 2 and map_.scenes == 1
    after = [map_.keys, map_.whole.weights, *(getattr(map_.gaussians, n) for n in TENSORS)]
    assert all(torch.equal(a, b) for a, b in zip(before, after)) and torch.equal(kept, scene.means)


def test_what_is_alone_in_its_voxel_stays_bit_for_bit():
    scene = scene_cloud(0)
    scene = scene.select(scene.opacities >= MIN_OPACITY)
    map_ = Map.empty('map', 1e-4).merged(scene, HERE, 10**6)
    assert len(map_) == len(scene)
    order = np.argsort(voxel_keys(scene.means.numpy(), 1e-4)[0])
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


def test_owners_are_those_of_the_strongest():
    scene = scene_cloud(0, 3)
    scene = replace(scene, means=torch.tensor([[0.01, 0, 0.01], [0.11, 0, 0.01], [0.11, 0, 0.01]]))
    once, twice = torch.tensor([0.5, 0.5, 0.2]), torch.tensor([0.4, 0.4, 0.8])
    map_ = Map.empty('map', 0.05).merged(replace(scene, opacities=once), HERE, 10)
    map_ = map_.merged(replace(scene, opacities=twice), HERE, 10)
    assert map_.whole.owners.tolist() == [1, 2] and map_.whole.counts.tolist() == [2, 2]


def test_tiles_are_cubes_in_the_order_of_keys_and_shared_where_nothing_is_new():
    far = cloud(np.random.default_rng(1).uniform(2.1, 2.4, (200, 3)), 1)
    map_ = Map.empty('map', 0.02).merged(scene_cloud(0, side=2.0), HERE, 10**6)
    grown = map_.merged(far, HERE, 10**6)
    assert [*grown.tiles] == sorted(grown.tiles) and (grown.keys.diff() > 0).all()
    for key, tile in grown.tiles.items():
        first = tile_cells(np.array([key]))[0] * 0.02
        means = tile.gaussians.means.numpy()
        assert (means >= first - 1e-6).all() and (means <= first + 64 * 0.02 + 1e-6).all()
    shared = [key for key, tile in map_.tiles.items() if grown.tiles[key] is tile]
    assert len(shared) == len(map_.tiles) - 1 and len(map_.tiles) == 64
    cells = np.random.default_rng(0).integers(-HALF, HALF, (1000, 3))
    np.testing.assert_array_equal(voxel_cells(keys_of(cells)), cells)
    keys = keys_of(cells)
    np.testing.assert_array_equal(tile_cells(tiles_of(keys)), cells // SIDE * SIDE)
    assert keys.min() >= 0 and len(np.unique(keys)) == 1000


def test_a_map_is_looked_up_by_voxel():
    map_ = Map.empty('map', 0.05)
    for seed in range(3):
        map_ = map_.merged(scene_cloud(seed, 800, side=2.0), HERE, 10**6)
    rng = np.random.default_rng(0)
    keys = np.concatenate((rng.permutation(map_.keys.numpy())[:500], rng.integers(0, 2**63 - 1, 100)))
    keys = rng.permutation(np.concatenate((keys, keys[:50], map_.keys.numpy()[:20] + 1)))
    columns = (getattr(map_.whole, name).tolist() for name in ('keys', 'last_seen', 'counts', 'owners'))
    plain = {key: (True, *values) for key, *values in zip(*columns)}
    expected = [plain.get(key, (False, 0, 0, 0)) for key in keys.tolist()]
    np.testing.assert_array_equal(np.stack(map_.lookup(keys), 1), expected)
    assert 500 < map_.lookup(keys).there.sum() < len(keys) and len(map_.lookup(keys[:0]).there) == 0


def similarity(seed, reach=0.3):
    """A small turn and shift (4, 4), and a ratio."""
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rng.uniform(-0.5, 0.5, 3))[0], rng.uniform(-reach, reach, 3)
    return pose, rng.uniform(0.8, 1.25)


def test_what_moves_with_its_scene_equals_a_dictionary():
    """Scenes 2 and 3 of three; plain: what stays, then all that moved, one at a time."""
    map_, voxel = Map.empty('map', 0.05), 0.05
    for seed in range(3):
        map_ = map_.merged(scene_cloud(seed, 500, side=0.5, channels=4), HERE * seed, 10**6)
    poses, ratios = map(np.array, zip((np.eye(4), 1), (np.eye(4), 1), similarity(1), similarity(2)))
    moved = map_.moved(poses, ratios)
    whole = map_.whole
    rows = [
        {name: getattr(whole.gaussians, name)[i].double().numpy() for name in TENSORS}
        | {name: getattr(whole, name)[i].item() for name in HISTORY}
        for i in range(len(whole))
    ]
    cells = {}
    for one in rows:
        pose, ratio = poses[one['owners']], ratios[one['owners']]
        one['means'] = pose[:3, :3] @ (ratio * one['means']) + pose[:3, 3]
        quat = rotation_to_quat(pose[:3, :3])
        one['quats'] = multiply_quats(quat, one['quats'])
        one['scales'], one['weights'] = ratio * one['scales'], one['weights'] / ratio**2
        cell = tuple(np.floor(np.float32(one['means']).astype(np.float64) / voxel).astype(int))
        cells.setdefault(cell, []).append(one)
    keys = keys_of(np.array([*cells]))
    np.testing.assert_array_equal(np.sort(keys), moved.keys)
    met = 0
    for key, members in zip(keys, cells.values()):
        row = int(np.searchsorted(moved.keys.numpy(), key))
        members.sort(key=lambda one: one['owners'] != 1)  # the one that stays first
        stays = [one['counts'] for one in members if one['owners'] == 1]
        moves = [one['counts'] for one in members if one['owners'] != 1]
        expected = PlainMap.mixture([(one['weights'], one) for one in members])
        met += len(members) > 1
        for name in TENSORS:
            got = getattr(moved.gaussians, name)[row]
            np.testing.assert_allclose(got, expected[name], rtol=3e-4, atol=3e-6, err_msg=name)
        assert moved.whole.weights[row].item() == pytest.approx(sum(one['weights'] for one in members), 1e-5)
        assert moved.whole.counts[row] == sum(stays) + max(moves, default=0)
        assert moved.whole.last_seen[row] == max(one['last_seen'] for one in members)
        assert moved.whole.misses[row] == min(one['misses'] for one in members)
        strongest = max(members, key=lambda one: one['weights'])
        assert moved.whole.owners[row] == strongest['owners']
    assert met > 30 and moved.scenes == 3 and moved.frame == 'map'


def test_moving_one_scene_leaves_the_tiles_of_others_as_they_are():
    near, far = scene_cloud(0, 300), cloud(np.random.default_rng(1).uniform(6, 7, (300, 3)), 1)
    map_ = Map.empty('map', 0.05).merged(near, HERE, 10**6).merged(far, HERE, 10**6)
    poses, ratios = np.stack([np.eye(4)] * 3), np.ones(3)
    assert map_.moved(poses, ratios) is map_
    poses[2, :3, 3] = 100, 0, 0
    moved = map_.moved(poses, ratios)
    mine = set((map_.whole.owners == 1).nonzero()[:, 0].tolist())
    kept = [key for key, tile in map_.tiles.items() if (tile.owners == 1).all()]
    assert len(kept) == 8 and len(mine) > 200 and all(moved.tiles[key] is map_.tiles[key] for key in kept)
    theirs = moved.gaussians.means[moved.whole.owners == 2]
    before = map_.gaussians.means[map_.whole.owners == 2] + torch.tensor([100.0, 0, 0])
    np.testing.assert_allclose(theirs.sort(0).values, before.sort(0).values, atol=1e-5)
    assert len(moved) == len(map_) and set(moved.tiles) - set(kept) and theirs[:, 0].min() > 105
    poses[2, 0, 3] = 1e6  # beyond the grid
    assert len(map_.moved(poses, ratios)) == (map_.whole.owners == 1).sum()


def test_fusing_takes_some_sortings_of_the_map():
    """100,000 Gaussians into a map of 500,000: 0.2 s on a free core, in which keys are sorted 13 times; on a
    machine that does other things too, memory is slower than sorting."""

    def surface(seed, count, side):
        rng = np.random.default_rng(seed)
        return cloud(np.column_stack((rng.uniform(0, side, (count, 2)), rng.integers(0, 3, count))), seed)

    map_ = Map.empty('map', 0.02)
    for _ in range(4):
        map_ = map_.merged(surface(map_.scenes, 250_000, 12.0), np.zeros(3), 500_000)
    scene, keys = surface(99, 100_000, 6.0), np.random.default_rng(0).integers(0, 2**60, 600_000)

    def seconds(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    fuse = min(seconds(lambda: map_.merged(scene, np.zeros(3), 500_000)) for _ in range(3))
    sort = min(seconds(lambda: np.argsort(keys)) for _ in range(3))
    assert 460_000 < len(map_) <= 500_000 and fuse < 40 * sort, (fuse, sort)
