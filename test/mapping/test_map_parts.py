"""Parts of a map by its tiles, against all of its Gaussians."""

import numpy as np
import torch
from support.word_maps import HERE, scene_cloud

from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_parts import near, sample

MAP = Map.empty('map', 0.05).merged(scene_cloud(0, 4000, side=6), HERE, 10**6)


def test_what_lies_in_boxes_is_near_and_most_else_is_not():
    means = MAP.gaussians.means.numpy()
    boxes = np.array([[[0, 0, 0], [0.5, 1, 1]], [[-5, -5, -np.inf], [-4, -4, np.inf]]], np.float32)
    found = torch.cat([part.means for part in near(MAP, boxes)])
    inside = [((means >= low) & (means <= high)).all(1) for low, high in boxes]
    assert all(rows.any() for rows in inside)
    wanted = means[np.logical_or(*inside)]
    assert {tuple(mean) for mean in wanted.tolist()} <= {tuple(mean) for mean in found.tolist()}
    assert len(found) < len(MAP) / 3
    assert all(part.codes.shape[1] == 32 for part in near(MAP, boxes))
    assert len(near(MAP, boxes[:0])) == 1  # never none


def test_a_sample_is_even_and_without_codes():
    all_of_it, some = sample(MAP, 0), sample(MAP, 100)
    for name in ('means', 'quats', 'scales', 'opacities', 'colors'):
        wanted = getattr(MAP.gaussians, name)
        assert torch.equal(getattr(all_of_it, name), wanted)
        chosen = np.linspace(0, len(MAP) - 1, 100).astype(int)
        assert torch.equal(getattr(some, name), wanted[chosen])
    assert all_of_it.codes.shape == (len(MAP), 0) and some.frame == 'map'
    assert len(sample(Map.empty('map', 0.05), 10)) == 0
