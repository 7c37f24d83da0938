"""What has gone leaves the map, and nothing else does."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.walked_room import AROUND, BASELINE, BOX, CAMERA, GRID, SIZE, look, off_the_walls, seen, stereo

from gsemsplat_ros.gaussians.render import Rendering
from gsemsplat_ros.mapping import forgetting
from gsemsplat_ros.mapping.forgetting import (
    GUESSED,
    MISSED,
    SEEN,
    compare,
    exposure,
    free_space,
    in_view,
    misses_after,
)
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map import Map, cut
from gsemsplat_ros.mapping.tile import HISTORY, MISSES_TO_GO
from gsemsplat_ros.mapping.voxels import tiles_of, voxel_keys

NONE = np.zeros(GRID[::-1], bool)


def mapped(poses, map_=None, **more):
    """The map after scenes from all of `poses`."""
    mapper = Mapper(map_ or Map.empty('map', 0.04), 10**6)
    for pose in poses:
        fusion = mapper.add(*stereo(pose, **more))
        assert fusion.fused, fusion.reason
    return mapper.map


def of_the_box(map_):
    """(N,) bool: Gaussians that stand in the room, as the box does."""
    return off_the_walls(map_) > 0.25


def kept(before, after):
    """(N,) bool: which Gaussians of `before` have their voxel in `after`."""
    return np.isin(before.keys.numpy(), after.keys.numpy())


def noise(seed, sigma_px):
    """A network whose disparities are wrong by patches of 4 pixels: `sigma_px` of its rendering."""
    rng = np.random.default_rng(seed)

    def see(z):
        patches = rng.normal(0, sigma_px, (GRID[1] // 4, GRID[0] // 4)).astype(np.float32)
        f_b = CAMERA.fx * BASELINE
        return f_b / np.maximum(f_b / z + cv2.resize(patches, GRID, interpolation=cv2.INTER_LINEAR), 0.1)

    return see


def with_rendering(scene, depth=None, alpha=None, rgb=None):
    drawn = scene.keyframe.rendering
    given = zip((rgb, depth, alpha), (drawn.rgb, drawn.depth, drawn.alpha))
    rendering = Rendering(*(old if new is None else torch.from_numpy(new) for new, old in given), drawn.codes)
    return replace(scene, keyframe=replace(scene.keyframe, rendering=rendering))


def test_margins_by_hand():
    """A wall 2 m before a camera of fx 70 and a baseline of 0.2: a disparity of 0.2 px is 1/70 of 1/z."""
    scene, _ = stereo(AROUND[0])
    scene = with_rendering(scene, np.full(GRID[::-1], 2, np.float32), np.ones(GRID[::-1], np.float32))
    space = free_space(scene, np.eye(4), 1.0, 0.05)
    near, far = 2 / (1 + 0.03 + 2 / 70) - 0.05, 2 / (1 - 0.03 - 2 / 70) + 0.05  # 1.84 and 2.17
    at = 36, 48  # the middle; CAMERA.cx is 47.5
    for values, expected in ((space.near, near), (space.free, near), (space.far, far)):
        assert values[at] == pytest.approx(expected, abs=1e-4)
    assert space.free[1, 48] <= 0 and space.near[1, 48] == pytest.approx(
        near, abs=0.01
    )  # too near the border
    depths = np.array([near - 0.01, near + 0.01, 2, far - 0.01, far + 0.01, -1], np.float32)
    means = np.stack([depths * 0, depths * 0, depths], 1)
    found, pixels = compare(means, space)
    np.testing.assert_array_equal(found, [MISSED, SEEN, SEEN, SEEN, 0, 0])
    assert pixels[36, 48] == MISSED | SEEN and (pixels > 0).sum() == 1
    # a scene of half the unit: the same in metres, and the baseline too
    half = replace(scene, first_from_second=np.diag([1.0, 1, 1, 1]))
    half.first_from_second[0, 3] = BASELINE / 2
    half = with_rendering(half, np.full(GRID[::-1], 1, np.float32), np.ones(GRID[::-1], np.float32))
    np.testing.assert_allclose(free_space(half, np.eye(4), 2.0, 0.05).free, space.free, rtol=1e-5)


def test_a_camera_that_moves_ahead_measures_nothing_straight_ahead():
    scene, _ = seen(AROUND[0], AROUND[0] @ forward(0.3), source='tf', measured=~NONE)
    free = free_space(scene, np.eye(4), 1.0, 0.04).free
    depth = scene.keyframe.rendering.depth.numpy()
    assert free[35, 47] < 0.4 * depth[35, 47] and free[35, 10] > 0.8 * depth[35, 10]


def forward(length):
    pose = np.eye(4)
    pose[2, 3] = length
    return pose


def plain(scene, map_from_camera, scale, voxel, means, colors, gain):
    """The twin: one Gaussian at a time."""
    rgb = scene.keyframe.rendering.rgb.numpy()
    camera, depth = scene.keyframe.camera, scene.keyframe.rendering.depth.numpy() * scale
    alpha, found = scene.keyframe.rendering.alpha.numpy(), []
    baseline = scene.first_from_second[:3, 3] * scale

    def surfaces(row, column, around):
        for r in range(row - around, row + around + 1):
            for c in range(column - around, column + around + 1):
                if 0 <= r < camera.height and 0 <= c < camera.width:
                    yield depth[r, c] if alpha[r, c] >= forgetting.MIN_ALPHA and depth[r, c] > 0 else None
                else:
                    yield 'outside'

    for mean, color in zip(means.astype(np.float64), colors):
        x, y, z = np.linalg.inv(map_from_camera)[:3] @ (*mean, 1)
        column = int(np.rint(camera.fx * x / z + camera.cx)) if z > 0 else -1
        row = int(np.rint(camera.fy * y / z + camera.cy)) if z > 0 else -1
        if not (0 <= row < camera.height and 0 <= column < camera.width):
            found.append(0)
            continue
        ray = np.array([(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy, 1])
        across = np.linalg.norm(np.cross(ray, baseline)) / np.linalg.norm(ray)
        margin = forgetting.MARGIN_PX / (camera.fx * across)

        def limit(d, sign):
            return 1 / ((1 + sign * forgetting.MARGIN_RATIO) / d + sign * margin) - sign * voxel

        (here,) = surfaces(row, column, 0)
        beside = [d for d in surfaces(row, column, 1) if isinstance(d, float | np.floating)]
        around = list(surfaces(row, column, forgetting.AROUND_PX))
        reach = forgetting.AROUND_PX
        colours = rgb[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        colours = colours.reshape(-1, 3)
        alike = (
            (colours.min(0) - forgetting.COLOR_MARGIN <= gain * color)
            & (gain * color <= colours.max(0) + forgetting.COLOR_MARGIN)
        ).all()
        near, far, surface = 0, 0, 0
        if here is not None:
            near, far, surface = limit(min(beside), 1), limit(max(beside), -1), max(beside) + voxel
        firm = scene.measured[row, column]
        free = firm and all(isinstance(d, float | np.floating) for d in around) and z < limit(min(around), 1)
        if free or (firm and not alike and z <= surface):
            found.append(MISSED)
        elif not alike and z < forgetting.GUESS_RATIO * surface:
            found.append(GUESSED)
        else:
            found.append(SEEN if alike and near <= z <= far else 0)
    return np.array(found)


def test_the_fast_comparison_equals_a_plain_one():
    rng = np.random.default_rng(0)
    depth = cv2.resize(rng.uniform(1, 4, (9, 12)).astype(np.float32), GRID, interpolation=cv2.INTER_NEAREST)
    alpha = np.where(rng.random(GRID[::-1]) < 0.02, 0.5, 1).astype(np.float32)
    depth[rng.random(depth.shape) < 0.02] = np.nan
    scene, _ = stereo(AROUND[0], measured=rng.random(GRID[::-1]) < 0.9)
    rgb = cv2.resize(rng.random((18, 24, 3), np.float32), GRID)
    scene = with_rendering(scene, depth, alpha, rgb)
    means = rng.uniform((0, 0, 0), SIZE, (4000, 3)).astype(np.float32)
    colors, gain = rng.random((4000, 3), np.float32), np.array([0.8, 1, 1.2], np.float32)
    colors[::2] = 0.5
    found, _ = compare(means, free_space(scene, AROUND[0], 1.3, 0.05), colors, gain)
    expected = plain(scene, AROUND[0], 1.3, 0.05, means, colors, gain)
    assert (found != expected).mean() < 0.002  # on the edge of a margin or pixel, by rounding
    assert {*np.unique(expected)} == {0, SEEN, MISSED, GUESSED}
    assert np.bincount(expected)[[0, SEEN, MISSED, GUESSED]].min() > 50


def test_an_object_that_was_carried_away_goes_within_three_views_and_all_else_stays():
    before = mapped(AROUND, thing=BOX)
    box = of_the_box(before)
    assert box.sum() > 300
    after = mapped(AROUND, before)
    stays = kept(before, after)
    assert stays[box].mean() < 0.05 and stays[~box].mean() > 0.998
    # what was behind it is there now, and what one view alone looked through is not gone yet
    assert len(after) - stays.sum() > 500 and not of_the_box(after).sum() > 0.05 * box.sum()
    once = kept(before, mapped(AROUND[:1], before))
    assert once[box].all() and once.mean() > 0.999


def test_a_moved_object_is_at_its_new_place_only():
    there = BOX + (0.9, -0.9, 0)
    before = mapped(AROUND, thing=BOX)
    after = mapped(AROUND, before, thing=there)
    means = after.gaussians.means.numpy()[of_the_box(after)]
    near = np.abs(means - there.mean(0)).max(1) < 0.75
    assert near.sum() > 300 and (~near).sum() < 0.05 * near.sum()


def test_an_object_seen_often_needs_no_more_views_to_go():
    before = mapped(AROUND * 3, thing=BOX)
    box = of_the_box(before)
    assert before.whole.counts.max() >= 9 and kept(before, mapped(AROUND, before))[box].mean() < 0.05


def test_where_nothing_was_measured_nothing_goes():
    """Glass, bare walls and files."""
    before = mapped(AROUND, thing=BOX)
    for measured in (NONE, None):
        assert kept(before, mapped(AROUND * 2, before, measured=measured)).all()


def test_what_is_hidden_stays():
    before = mapped(AROUND, thing=BOX)
    screen = np.array([[2.3, 1.0, 0.0], [2.4, 4.0, 2.5]])
    views = [AROUND[0]] * 4
    after = mapped(views, before, thing=screen)
    assert kept(before, after).all()


def test_a_wall_passed_at_a_slant_forty_times_stays():
    """Half a metre from the wall at y = 0, at 10 to 25 degrees to it, with the errors of a stereo camera."""
    poses = [look(0.6 + 0.1 * k, 0.6, -(10 + 5 * (k % 4))) for k in range(40)]
    mapper = Mapper(Map.empty('map', 0.04), 10**6)
    lost, ever = 0, 0
    for k, pose in enumerate(poses):
        before = mapper.map
        assert mapper.add(*stereo(pose, see=noise(k, 0.15))).fused
        wall = before.gaussians.means[:, 1].numpy() < 0.1
        lost += (~kept(before, mapper.map))[wall].sum()
        ever += (~kept(mapper.map, before)).sum()
    assert ever > 5000 and lost < 0.01 * ever


def test_the_errors_of_stereo_remove_nothing():
    before = mapped(AROUND, thing=BOX)
    map_ = before
    for k, pose in enumerate(AROUND * 4):  # at their given poses: no graph moves them
        scene, _ = stereo(pose, thing=BOX, see=noise(k, 0.15))
        misses = misses_after(map_, free_space(scene, pose, 1.0, map_.voxel))
        map_ = map_.merged(scene.gaussians.transformed(pose, 'map'), pose[:3, 3], 10**6, misses=misses)
    assert kept(before, map_).mean() > 0.99


@pytest.mark.parametrize(
    'shift, turn', [((-0.8, 0, 0), 0), ((0.8, 0, 0), 0), ((0, 0.5, 0), 0), ((0, 0, 0), 15), ((0, 0, 0.5), 0)]
)
def test_a_wrong_pose_erases_nothing(shift, turn):
    """Between right ones, twice."""
    before = mapped(AROUND, thing=BOX)
    mapper = Mapper(before, 10**6)
    for pose in (AROUND[0], AROUND[1]):
        wrong = look(0, 0, turn)
        wrong[:3, 3] = 0
        wrong = pose @ np.linalg.inv(look(0, 0, 0)) @ look(*np.add((0, 0), shift[:2]), turn)
        wrong[2, 3] += shift[2]
        mapper.map = mapper.map.merged(
            stereo(pose, thing=BOX)[0].gaussians.transformed(wrong, 'map'),
            wrong[:3, 3],
            10**6,
            misses=misses_after(
                mapper.map, free_space(stereo(pose, thing=BOX)[0], wrong, 1.0, mapper.map.voxel)
            ),
        )
        for right in AROUND:
            assert mapper.add(*stereo(right, thing=BOX)).fused
    assert kept(before, mapper.map).all()


def test_depths_that_are_wrong_as_a_whole_are_no_evidence():
    before = mapped(AROUND, thing=BOX)
    scene, _ = stereo(AROUND[0], see=lambda z: 1.6 * z)
    assert misses_after(before, free_space(scene, AROUND[0], 1.0, before.voxel)) == {}
    scene, _ = stereo(AROUND[0])
    assert (all_misses(before, scene, AROUND[0]) == 1).sum() > 300


def test_another_colour_needs_no_margin():
    """Gaussians in front of a wall, in its colours and in others, by hand."""
    scene, _ = stereo(AROUND[0], measured=np.arange(GRID[0]) < 60 + 0 * NONE)
    rgb = np.full((*GRID[::-1], 3), 0.6, np.float32)
    scene = with_rendering(scene, np.full(GRID[::-1], 2, np.float32), np.ones(GRID[::-1], np.float32), rgb)
    space, gain = free_space(scene, np.eye(4), 1.0, 0.05), np.ones(3, np.float32)
    alike, other = [0.6, 0.62, 0.58], [0.6, 0.64, 0.6]
    colors = np.array([alike, other] * 4, np.float32)
    # seen again from 1.84 to 2.17; behind 2.05 it is hidden, as the other side of a thin wall
    depths = np.repeat([1.9, 2.1, 2.3, 1.5], 2).astype(np.float32)
    means = np.stack([depths * 0, depths * 0, depths], 1)
    found, _ = compare(means, space, colors, gain)
    np.testing.assert_array_equal(found, [SEEN, MISSED, SEEN, 0, 0, 0, MISSED, MISSED])
    np.testing.assert_array_equal(compare(means, space)[0], [SEEN, SEEN, SEEN, SEEN, 0, 0, MISSED, MISSED])
    means[:, 0] = depths * 30 / CAMERA.fx  # where the depth is a guess
    found, _ = compare(means, space, colors, gain)
    np.testing.assert_array_equal(found, [SEEN, 0, SEEN, 0, 0, 0, 0, GUESSED])
    darker, _ = compare(means, space, colors / 2, 2 * gain)  # the map is of a darker exposure
    np.testing.assert_array_equal(darker, found)


THIN = np.array([[5.9, 1.8, 0.6], [6.0, 3.0, 1.8]])  # hangs on the wall, within the error of its depth
AT_THIN = [look(3.6, 2.4, 0), look(3.7, 1.9, 10), look(3.7, 2.8, -10)]


def of_thin(map_):
    means = map_.gaussians.means.numpy()
    return ((THIN[0] - 0.03 < means) & (means < (5.93, *THIN[1, 1:] + 0.03))).all(1)


def dim(poses, map_=None, **more):
    """As `mapped`, in a room that is half as bright as things in it."""

    def dimmed(rgb):
        return torch.where((rgb - 230 / 255).abs() < 1e-3, rgb, 0.5 * rgb)

    mapper = Mapper(map_ or Map.empty('map', 0.04), 10**6)
    for pose in poses:
        scene, pair = stereo(pose, **more)
        gaussians = replace(scene.gaussians, colors=dimmed(scene.gaussians.colors))
        scene = with_rendering(scene, rgb=dimmed(scene.keyframe.rendering.rgb).numpy())
        assert mapper.add(replace(scene, gaussians=gaussians), pair).fused
    return mapper.map


def test_what_hung_before_a_wall_goes_by_its_colour(monkeypatch):
    before = dim(AT_THIN, thing=THIN)
    thin = of_thin(before)
    stays = kept(before, dim(AT_THIN, before))
    assert thin.sum() > 200 and stays[thin].mean() < 0.1 and stays[~thin].mean() > 0.998
    monkeypatch.setattr(forgetting, 'COLOR_MARGIN', 1.0)
    assert kept(before, dim(AT_THIN, before))[thin].mean() > 0.9  # depths alone do not tell


def test_a_guess_confirms_what_was_missed_and_is_never_the_first():
    before = dim(AROUND, thing=BOX)
    box = of_the_box(before)
    assert kept(before, dim(AROUND * 2, before, measured=NONE)).mean() > 0.999
    once = dim(AROUND[:1], before)
    assert kept(before, once)[box].mean() > 0.99
    assert kept(before, dim(AROUND[:1], once, measured=NONE))[box].mean() < 0.2


LIGHTS = {
    'exposure': lambda rgb: (1.4 * rgb).clip(max=1),
    'white balance': lambda rgb: rgb * np.array([0.85, 1, 0.7], np.float32),
    'night': lambda rgb: 0.15 * rgb,
    'fog': lambda rgb: np.full_like(rgb, 0.5),
    'noise': lambda rgb: rgb + np.random.default_rng(1).normal(0, 0.02, rgb.shape).astype(np.float32),
    'shadow': lambda rgb: rgb * np.where(np.arange(GRID[0]) < 40, np.float32(0.5), 1)[:, None],
    'lamp': lambda rgb: rgb + np.linspace(0, 0.5, GRID[0], dtype=np.float32)[:, None],
}


@pytest.fixture(scope='module')
def with_box():
    return mapped(AROUND, thing=BOX)


@pytest.mark.parametrize('light', LIGHTS)
def test_other_light_removes_nothing(light, with_box):
    """What is missed by its colour stands where the keyframe has its own Gaussians."""
    before, mapper = with_box, Mapper(with_box, 10**6)
    for pose in AROUND:
        scene, pair = stereo(pose, thing=BOX)
        lit = LIGHTS[light](scene.keyframe.rendering.rgb.numpy())
        assert mapper.add(with_rendering(scene, rgb=lit.astype(np.float32)), pair).fused
    assert kept(before, mapper.map).mean() > 0.99


def test_the_exposure_is_that_of_most(with_box):
    before = with_box
    means, colors = before.gaussians.means.numpy(), before.gaussians.colors.numpy()
    for change, gain in (('exposure', 1.4), ('white balance', (0.85, 1, 0.7)), ('fog', np.nan)):
        scene, _ = stereo(AROUND[0])  # without the box
        scene = with_rendering(scene, rgb=LIGHTS[change](scene.keyframe.rendering.rgb.numpy()))
        found = exposure(free_space(scene, AROUND[0], 1.0, 0.04), means, colors)
        np.testing.assert_allclose(found, np.broadcast_to(gain, 3), atol=0.05)
    assert np.isnan(exposure(free_space(scene, AROUND[0], 1.0, 0.04), means[:20], colors[:20])).all()


def all_misses(map_, scene, pose):
    """(N,) uint8: of the whole map after the scene."""
    after = misses_after(map_, free_space(scene, pose, 1.0, map_.voxel))
    return np.concatenate([after.get(key, tile.misses.numpy()) for key, tile in map_.tiles.items()])


def by_tile(map_, misses):
    """`misses` (N,) of the whole map as `merged` takes them."""
    return {int(key): misses[tiles_of(map_.keys.numpy()) == key] for key in map_.tiles}


def test_what_is_seen_again_has_no_misses_and_what_goes_leaves_its_voxel():
    before = mapped(AROUND, thing=BOX)
    once = replace(before.whole, misses=torch.ones(len(before), dtype=torch.uint8))
    scene, _ = stereo(AROUND[0], thing=BOX)
    after = all_misses(replace(before, tiles=cut(once)), scene, AROUND[0])
    assert (after == 0).sum() > 0.2 * len(before) and (after == 2).mean() < 0.01
    before = replace(before, tiles=cut(replace(before.whole, misses=torch.zeros_like(once.misses))))
    misses = np.zeros(len(before), np.uint8)
    misses[::2] = MISSES_TO_GO
    nothing = before.gaussians.select(slice(0, 0))
    merged = before.merged(nothing, np.zeros(3), 10**6, misses=by_tile(before, misses))
    for name in HISTORY:
        assert torch.equal(getattr(merged.whole, name), getattr(before.whole, name)[1::2]), name
    assert torch.equal(merged.gaussians.means, before.gaussians.means[1::2])
    # what the scene has in the voxel of one that goes begins anew
    row = int(np.flatnonzero(voxel_keys(before.gaussians.means.numpy(), 0.04)[0] == before.keys.numpy())[0])
    one = before.gaussians.select(slice(row, row + 1))
    misses[:] = 0
    misses[row] = MISSES_TO_GO
    again = before.merged(one, np.zeros(3), 10**6, misses=by_tile(before, misses))
    assert torch.equal(again.keys, before.keys)
    whole = again.whole
    assert (whole.counts[row], whole.last_seen[row], whole.misses[row], whole.owners[row]) == (1, 4, 0, 4)
    assert torch.equal(again.gaussians.means[row], one.means[0])


def test_only_tiles_in_the_view_are_compared():
    """What a plain comparison of all finds lies in them."""
    before = mapped(AROUND, thing=BOX)
    left_out = 0
    for pose in (look(1.2, 2.2, 0), look(2.5, 2.5, 90), look(4.2, 4.0, 200), look(0.3, 0.3, 45)):
        scene, _ = stereo(pose)
        space = free_space(scene, pose, 1.0, 0.04)
        chosen = in_view([*before.tiles], 0.04, space)
        for key in set(before.tiles) - set(chosen):
            left_out += 1
            assert not compare(before.tiles[key].gaussians.means.numpy(), space)[0].any()
    assert left_out > 5
