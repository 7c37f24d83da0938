"""Grouping relevant Gaussians into objects, and its components against a plain flood fill."""

import numpy as np
import pytest

from gsemsplat_ros.semantics import objects
from gsemsplat_ros.semantics.objects import Object, connected_voxels, find_objects, inside_any


def box(rng, center, size, count):
    return rng.uniform(-0.5, 0.5, (count, 3)) * size + center


def room(rng, *boxes):
    """A 4 x 3 x 4 m room of Gaussians without relevancy, and boxes (center, size, score, count)."""
    means = [rng.uniform(0, 1, (4000, 3)) * [4, 3, 4]]
    scores = [np.full(4000, 0.1)]
    for center, size, score, count in boxes:
        means.append(box(rng, center, size, count))
        scores.append(np.full(count, score))
    means, scores = np.concatenate(means).astype(np.float32), np.concatenate(scores).astype(np.float32)
    order = rng.permutation(len(means))
    return means[order], scores[order], rng.uniform(0.5, 1, len(means)).astype(np.float32)


def objects_of(means, scores, opacities, gate=0.5, **options):
    return find_objects(means, scores, scores >= gate, opacities, **options)


def test_two_boxes_are_two_objects_best_first():
    rng = np.random.default_rng(0)
    small, large = ([0.5, 0.5, 1], [0.5, 0.4, 0.4]), ([3, 1, 3], [0.8, 0.4, 0.6])
    means, scores, opacities = room(rng, (*small, 0.7, 2000), (*large, 0.9, 3000))
    found = objects_of(means, scores, opacities)
    assert len(found) == 2
    for item, (center, size), score in zip(found, (large, small), (0.9, 0.7)):
        np.testing.assert_allclose(item.center, center, atol=0.02)
        np.testing.assert_allclose(item.size, 0.96 * np.array(size), atol=0.03)
        assert item.score == pytest.approx(score)
    assert [type(value) for value in (*found[0].center, *found[0].size, found[0].score)] == [float] * 7


def test_lit_gaussians_the_limit_and_tiny_groups():
    rng = np.random.default_rng(1)
    boxes = [([0.5 + 0.9 * i, 1, 1], [0.1, 0.1, 0.1], 0.6 + 0.1 * i, 200) for i in range(3)]
    means, scores, opacities = room(rng, *boxes, ([2, 2.5, 3], [0.1, 0.1, 0.1], 0.95, 19))

    def found(gate, **options):
        return [round(item.score, 2) for item in objects_of(means, scores, opacities, gate, **options)]

    assert found(0.5) == [0.8, 0.7, 0.6]
    assert found(0.65) == [0.8, 0.7]  # no Gaussian of the third is lit
    assert found(0.5, max_objects=1) == [0.8]
    assert found(0.5, min_points=10) == [0.95, 0.8, 0.7, 0.6]
    assert found(0.99) == []


def test_an_object_takes_in_what_is_nearly_as_relevant_around_what_is_lit():
    rng = np.random.default_rng(2)
    middle, around = box(rng, [1, 1, 1], [0.2] * 3, 500), box(rng, [1, 1, 1], [0.6] * 3, 4000)
    for level, size in ((0.72, 0.6), (0.68, 0.2)):  # of a range from 0.1 to 0.9: 0.7
        means, scores, _ = room(rng)
        means = np.concatenate([means, middle, around])
        scores = np.concatenate([scores, np.full(500, 0.9), np.full(4000, level)])
        scores[np.abs(means - 1).max(1) < 0.1] = 0.9
        (found,) = objects_of(means, scores, np.ones(len(means)), 0.85)
        np.testing.assert_allclose(found.size, [size] * 3, atol=0.05)


def test_the_default_voxel_follows_the_scale_of_the_scene():
    rng = np.random.default_rng(2)
    means, scores, opacities = room(rng, ([1, 1, 1], [0.3] * 3, 0.8, 1500), ([3, 1, 3], [0.3] * 3, 0.7, 1500))
    expected = objects_of(means, scores, opacities)
    scaled = objects_of(1000 * means, scores, opacities)
    assert len(expected) == len(scaled) == 2
    np.testing.assert_allclose(
        [item.center for item in scaled], [np.multiply(1000, item.center) for item in expected], rtol=1e-5
    )
    assert len(objects_of(means, scores, opacities, voxel=2.0)) == 1


def test_flying_and_broken_gaussians_do_no_harm():
    rng = np.random.default_rng(3)
    means, scores, opacities = room(rng, ([1, 1, 1], [0.3] * 3, 0.8, 1500))
    expected = objects_of(means, scores, opacities)
    broken = np.array([[np.nan, 0, 0], [np.inf, 1, 1], [1e30, -1e30, 5], [1, 1, 1]], np.float32)
    means = np.concatenate([means, broken])
    scores = np.append(scores, [0.9, 0.9, 0.9, np.nan])
    found = objects_of(means, scores, np.append(opacities, [1, 1, 1, 1]))
    assert len(found) == 1
    np.testing.assert_allclose(found[0].center, expected[0].center, atol=1e-3)
    np.testing.assert_allclose(found[0].size, expected[0].size, atol=1e-3)


def test_faint_gaussians_weigh_little():
    rng = np.random.default_rng(4)
    solid, halo = box(rng, [0, 0, 0], [0.2, 0.2, 0.2], 800), box(rng, [0, 0, 0], [0.6, 0.6, 0.6], 800)
    opacities = np.repeat([0.9, 0.01], 800)
    (found,) = objects_of(np.concatenate([solid, halo]), np.full(1600, 0.8), opacities, voxel=0.1)
    assert np.less(found.size, 0.21).all()


def slab(rng, width, height, turn, gap=0.0, count=4000, depth=0.04):
    """A door (N, 3), turned about its vertical axis at (1.5, 1.2, 2.5), without a strip in the middle."""
    flat = rng.uniform(-0.5, 0.5, (count, 3)) * [width, height, depth]
    flat = flat[np.abs(flat[:, 0]) > gap / 2]
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return flat @ [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]] + [1.5, 1.2, 2.5]


@pytest.mark.parametrize('unit', [1.0, 0.03])
@pytest.mark.parametrize('turn', [0, 45, 80])
def test_a_door_without_a_strip_is_one_box(turn, unit):
    rng = np.random.default_rng(5)
    means, scores, _ = room(rng)
    whole, cut = slab(rng, 0.9, 2.0, turn), slab(rng, 0.9, 2.0, turn, gap=0.16)
    boxes = []
    for door in (whole, cut):
        points = unit * np.concatenate([means, door])
        found = objects_of(points, np.append(scores, np.full(len(door), 0.8)), np.ones(len(points)))
        assert len(found) == 1
        boxes.append(found[0])
    np.testing.assert_allclose(boxes[0].size, boxes[1].size, atol=0.02 * unit)


def test_a_gap_is_measured_in_blocks_of_points_too(monkeypatch):
    rng = np.random.default_rng(8)
    a, b = rng.uniform(0, 1, (60, 3)), rng.uniform(0, 1, (70, 3)) + [1.2, 0, 0]
    nearest = min(np.linalg.norm(point - b, axis=1).min() for point in a)
    for together in (1 << 18, 500, 1):
        monkeypatch.setattr(objects, '_TOGETHER', together)
        assert objects._within(a, b, 1.001 * nearest) and not objects._within(a, b, 0.999 * nearest)


@pytest.mark.parametrize('turn', [0, 30, 45])
def test_two_chairs_beside_each_other_stay_two(turn):
    rng = np.random.default_rng(6)
    means, scores, _ = room(rng)
    pair = slab(rng, 1.3, 0.9, turn, gap=0.3, count=9000, depth=0.5)  # 50 cm wide, 30 cm apart
    points = np.concatenate([means, pair])
    found = objects_of(points, np.append(scores, np.full(len(pair), 0.8)), np.ones(len(points)))
    assert len(found) == 2
    middle = np.mean([item.center for item in found], 0)
    np.testing.assert_allclose(middle, [1.5, 1.2, 2.5], atol=0.05)


def test_a_shard_is_dropped_and_a_smaller_chair_is_not():
    rng = np.random.default_rng(7)
    chair, stool = ([1, 1, 1], [0.5, 0.9, 0.5], 0.8, 4000), ([3, 1.3, 3], [0.3, 0.4, 0.3], 0.7, 1000)
    shard = ([3, 0.5, 1], [0.2, 0.2, 0.2], 0.95, 300)
    found = objects_of(*room(rng, chair, stool, shard))
    assert [round(item.score, 2) for item in found] == [0.8, 0.7]


def test_a_door_in_the_voxels_of_a_map():
    """One Gaussian a voxel of 5 cm, and two columns of them missing between the halves of the door."""
    along, up = np.meshgrid(np.arange(18) * 0.05, np.arange(40) * 0.05)
    door = np.stack([along.ravel(), up.ravel(), np.full(along.size, 3.0)], 1) + 0.025
    cut = door[np.abs(door[:, 0] - 0.45) > 0.06]
    other = door + [2.0, 0, 0]
    for points, count in ((door, 1), (cut, 1), (np.concatenate([cut, other]), 2)):
        scores = np.full(len(points), 0.8)
        found = objects_of(points, scores, np.ones(len(points)), voxel=0.15, min_points=10)
        assert len(found) == count
        assert all(abs(item.size[0] - 0.85) < 0.051 and item.size[1] > 1.8 for item in found)


def test_nothing_in_nothing_out():
    assert find_objects(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool), np.zeros(0)) == ()


def flood_fill(points, voxel):
    """Plain twin: components by walking from voxel to voxel."""
    cells = [tuple(cell) for cell in np.floor(points / voxel).astype(int).tolist()]
    left, groups = set(cells), {}
    count = 0
    while left:
        walk = [left.pop()]
        while walk:
            x, y, z = walk.pop()
            groups[x, y, z] = count
            for dx, dy, dz in np.ndindex(3, 3, 3):
                neighbour = (x + dx - 1, y + dy - 1, z + dz - 1)
                if neighbour in left:
                    left.remove(neighbour)
                    walk.append(neighbour)
        count += 1
    return np.array([groups[cell] for cell in cells]), count


@pytest.mark.parametrize('seed, spread', [(0, 4), (1, 8), (2, 14), (3, 30)])
def test_components_are_those_of_a_flood_fill(seed, spread):
    points = np.random.default_rng(seed).uniform(-spread, spread, (1500, 3)) * [1, 1, 0.3]
    labels = connected_voxels(points, 1.0)
    expected, count = flood_fill(points, 1.0)
    assert len(np.unique(labels)) == count and labels.min() == 0 and labels.max() == count - 1
    assert len(np.unique(np.stack([labels, expected]), axis=1).T) == count  # one to one


def test_a_long_snake_is_one_component():
    turns = np.arange(4000)
    snake = np.stack([np.cos(turns / 40) * 90, np.sin(turns / 40) * 90, turns * 0.6], 1)
    steps = np.diff(snake, axis=0, append=snake[-1:])
    dense = np.concatenate([snake + share * steps for share in (0, 0.25, 0.5, 0.75)])
    dense = dense[np.random.default_rng(0).permutation(len(dense))]
    assert connected_voxels(dense, 1.0).max() == 0
    apart = np.concatenate([dense, dense + [0, 0, 1e7]])
    assert np.bincount(connected_voxels(apart, 1.0)).tolist() == [len(dense)] * 2


def test_corners_and_edges_of_a_box():
    thing = Object((1.0, 2.0, 3.0), (0.5, 1.0, 2.0), 1.0)
    corners = thing.corners
    assert corners[0].tolist() == [0.75, 1.5, 2.0] and corners[7].tolist() == [1.25, 2.5, 4.0]
    assert corners[1].tolist() == [0.75, 1.5, 4.0] and corners[4].tolist() == [1.25, 1.5, 2.0]
    lengths = np.linalg.norm(np.diff(thing.edges, axis=1)[:, 0], axis=1)
    assert sorted(lengths.tolist()) == [0.5] * 4 + [1.0] * 4 + [2.0] * 4


def test_points_in_boxes():
    near, far = (
        Object((0.0, 0.25, 2.0), (0.5, 1.0, 0.25), 0.9),
        Object((0.0, 0.25, 4.0), (1.0, 1.0, 1.0), 0.5),
    )
    points = np.array([[0, 0.25, 2], [0.3, 0.25, 2], [0, 0.74, 2.12], [0, 0.25, 4.4]])
    assert near.contains(points).tolist() == [True, False, True, False]
    assert inside_any([near, far], points).tolist() == [True, False, True, True]
    assert not inside_any([], points).any()
