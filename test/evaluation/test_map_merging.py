"""Maps that two robots made of one synthetic house are merged; those of different houses are not."""

import numpy as np
import pytest

from gsemsplat_ros.evaluation.map_houses import BUDGET, VOXEL, walkers
from gsemsplat_ros.evaluation.map_walk import stereo_pair
from gsemsplat_ros.evaluation.metrics import rotation_error_deg
from gsemsplat_ros.mapping.alignment import alignment_of
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.merging import together
from gsemsplat_ros.pipeline import Pipeline

KEYFRAMES, SHARED = 60, 0.65  # of the walk, and part of the ring that each robot sees
B_FROM_WORLD = np.array([[0.6, -0.8, 0, 3], [0.8, 0.6, 0, -2], [0, 0, 1, 0.2], [0, 0, 0, 1]])


def mapped(pipeline, walker, keyframes, map_from_world=np.eye(4)):
    """The map of a robot that knows where it stands, in a frame of its own."""
    mapper = Mapper(Map.empty('map', VOXEL), BUDGET)
    for keyframe in keyframes:
        pair = stereo_pair(keyframe, walker.camera, map_from_world @ keyframe.world_from_camera)
        mapper.add(pipeline.build(pair), pair)
    return mapper.map


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_two_rounds_of_a_house_that_changed_between_them_are_merged():
    pytest.importorskip('moderngl')
    from gsemsplat_ros.rooms.furniture import load_furniture
    from gsemsplat_ros.rooms.renderer import RoomRenderer

    walker, elsewhere = walkers(RoomRenderer(load_furniture(), 384, 512), 0)
    pipeline, half = Pipeline.load(), KEYFRAMES // 2
    rounds = [*walker.rounds(KEYFRAMES)]
    a = mapped(pipeline, walker, rounds[: int(SHARED * half)])
    b = mapped(pipeline, walker, rounds[half + int((1 - SHARED) * half) :], B_FROM_WORLD)
    where = alignment_of(a, b)
    assert not isinstance(where, str), where
    off = where.a_from_b @ B_FROM_WORLD  # of the origin of the house
    print(
        f'{len(where.agreeing)} of {where.asked} agree, off by {100 * np.linalg.norm(off[:3, 3]):.1f} cm, '
        f'{rotation_error_deg(off, np.eye(4)):.2f} degrees'
    )
    assert np.linalg.norm(off[:3, 3]) < 0.05 and rotation_error_deg(off, np.eye(4)) < 0.5
    merged = together(a, b, where)
    assert merged.scenes == a.scenes + b.scenes and max(len(a), len(b)) < len(merged) < len(a) + len(b)
    poses = np.stack([keyframe.world_from_camera for keyframe in rounds[half + int((1 - SHARED) * half) :]])
    errors = np.linalg.norm(merged.graph.poses[len(a.graph) :, :3, 3] - poses[:, :3, 3], axis=1)
    print(
        f'positions of the second robot off by {100 * errors.mean():.1f} cm, {100 * errors.max():.1f} at most'
    )
    assert errors.max() < 0.1

    there = [keyframe for keyframe, _ in zip(elsewhere.rounds(KEYFRAMES), range(half // 2))]
    refused = alignment_of(a, mapped(pipeline, elsewhere, there))
    assert isinstance(refused, str), refused
