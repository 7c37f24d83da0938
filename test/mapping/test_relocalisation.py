"""Scenes and images find their place in a map by its keyframes, or are refused: a wrong place is worse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import walked_room
from support.walked_room import WALK, look, off_the_walls, seen

from gsemsplat_ros.mapping import fusion, keyframe_file, map_keyframe, relocalisation
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import load_map, save_map
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe, apart_from, keyframe_of, with_keyframe
from gsemsplat_ros.mapping.relocalisation import Place
from gsemsplat_ros.scene.coded_file import CodeSpace

SPACE = CodeSpace('small.safetensors', 'minilm-l6', 'abc', 32)
RIGHT = np.eye(4)
RIGHT[0, 3] = 0.1
AGAIN = look(1.45, 1.55, 22)  # 0.3 m and 10 degrees from the nearest place that was seen


def stereo(pose, stamp=1, given=None):
    """Scene and pair of a stereo camera in the room."""
    return seen(
        pose, pose @ RIGHT, source='stereo baseline', stamps=(stamp, stamp), baseline=0.1, given=given
    )


def mapper_of(*poses):
    """A mapper whose map, in the frame of the room, holds a scene at each pose, the last one elsewhere."""
    mapper = Mapper(Map.empty('map', 0.04), 300_000)
    for stamp, pose in enumerate(poses):
        assert mapper.add(*stereo(pose, stamp, pose)).fused
    return mapper


@pytest.fixture(scope='module')
def known():
    """The map of three places, of which the last shares nothing with the first two."""
    return mapper_of(WALK[0], WALK[2], look(3, 2.5, 180)).map


def off(pose, truth):
    """How far a pose is off: [m], [degrees]."""
    away = np.linalg.inv(truth) @ pose
    return np.linalg.norm(away[:3, 3]), np.degrees(
        np.arccos(np.clip((np.trace(away[:3, :3]) - 1) / 2, -1, 1))
    )


def test_after_a_lost_link_the_map_goes_on_from_a_known_place(known):
    mapper = mapper_of(WALK[0], WALK[2], look(3, 2.5, 180))
    lost = mapper.add(*stereo(look(3, 2.5, 270), 8))
    assert not lost.fused and 'no keyframe of the map shows enough of the same' in lost.reason
    fusion = mapper.add(*stereo(AGAIN, 9))
    assert fusion.fused and fusion.reason in ('place of scene 1', 'place of scene 2') and fusion.scale == 1.0
    metres, degrees = off(fusion.map_from_camera, AGAIN)
    assert metres < 0.02 and degrees < 1
    following = mapper.add(*stereo(WALK[3], 10))  # chained to the scene that was placed
    assert following.fused and following.reason == 'features of both images'
    assert mapper.map.scenes == 5 and np.quantile(off_the_walls(mapper.map), 0.95) < 0.06


def test_a_scene_of_unknown_scale_takes_that_of_the_map(known):
    loaded = Mapper(known, 300_000)
    fusion = loaded.add(*seen(AGAIN, WALK[1], unit=0.8, stamps=(9, 8)))
    assert fusion.fused and fusion.scale == pytest.approx(0.8, rel=0.03)
    assert off(fusion.map_from_camera, AGAIN)[0] < 0.02
    refused = Mapper(known, 300_000).add(*seen(AGAIN, WALK[1], unit=0.3, stamps=(9, 8)))
    assert (
        not refused.fused and "the map's scale over its own is 0.30 (a place known again)" in refused.reason
    )


def test_a_loaded_map_takes_scenes_in_without_poses(known, tmp_path):
    save_map(tmp_path / 'map.safetensors', known, SPACE)
    loaded = load_map(tmp_path / 'map.safetensors', SPACE)
    for kept, again in zip(known.keyframes, loaded.keyframes, strict=True):
        for name, value in vars(again).items():
            np.testing.assert_array_equal(value, getattr(kept, name), err_msg=name)
    mapper = Mapper(loaded, 300_000)
    fusion = mapper.add(*stereo(AGAIN, 9))
    assert fusion.fused and max(off(fusion.map_from_camera, AGAIN)) < 1 and mapper.map.scenes == 4
    assert mapper.map.frame == 'map'
    old = Mapper(replace(loaded, keyframes=()), 300_000).add(*stereo(AGAIN, 9))
    assert not old.fused and 'was loaded, and the map has no keyframes, as it is of an earlier' in old.reason


def test_one_image_alone_is_placed(known):
    mapper = Mapper(known, 300_000)
    _, pair = stereo(AGAIN)
    place = mapper.relocalize(pair.first)
    assert isinstance(place, Place) and place.inliers > 50 and place.keyframe.number in (1, 2)
    metres, degrees = off(place.map_from_camera, AGAIN)
    assert metres < 0.02 and degrees < 1 and mapper.map is known
    exact = mapper.relocalize(stereo(WALK[2])[1].first)  # the very picture, features all over it
    assert isinstance(exact, Place) and off(exact.map_from_camera, WALK[2])[0] < 0.005
    assert mapper.relocalize(replace(pair.first, camera=None)) == (
        'the image has no camera: give its calibration'
    )
    newest, _ = stereo(AGAIN)
    again = mapper.relocalize(newest)
    assert isinstance(again, Place) and off(again.map_from_camera, AGAIN)[0] < 0.02
    small, _ = seen(AGAIN, WALK[1], unit=0.3, stamps=(9, 8))
    assert "the map's scale over its own is 0.30" in str(mapper.relocalize(small))
    assert 'no keyframes' in str(Mapper(Map.empty('map', 0.04), 1).relocalize(pair.first))


def mirrored(scene, pair):
    """Left and right exchanged, in the keyframe alone."""
    keyframe = scene.keyframe
    drawn = replace(keyframe.rendering, depth=keyframe.rendering.depth.flip(1))
    image = np.ascontiguousarray(keyframe.image[:, ::-1])
    return replace(scene, keyframe=replace(keyframe, image=image, rendering=drawn)), pair


def test_what_is_another_place_is_refused(known, monkeypatch):
    rng = np.random.default_rng(7)
    here = walked_room.PATCHES
    others = {
        'another room of the same shape': rng.integers(0, 255, here.shape, dtype=np.uint8),
        'blank walls': np.full_like(here, 128),
        'a pattern that repeats': np.tile(rng.integers(0, 255, (1, 8, 8), dtype=np.uint8), (6, 10, 10)),
    }
    poster = others['another room of the same shape'].copy()
    poster[1, 20:32, 8:20] = here[1, 20:32, 8:20]  # about 1 m x 1 m of the wall ahead
    others['a poster that hangs in both'] = poster
    for name, patches in others.items():
        monkeypatch.setattr(walked_room, 'PATCHES', patches)
        for pose in (WALK[0], AGAIN, look(2.5, 2.5, 0)):
            mapper = Mapper(known, 300_000)
            scene, pair = stereo(pose)
            fusion = mapper.add(scene, pair)
            assert not fusion.fused and mapper.map is known, (name, fusion)
            assert isinstance(mapper.relocalize(pair.first), str), name
            assert 'nothing ties this scene to the map that was loaded, and ' in fusion.reason
            assert '\n' not in fusion.reason
    monkeypatch.setattr(walked_room, 'PATCHES', here)
    for pose in (WALK[0], AGAIN):
        assert not Mapper(known, 300_000).add(*mirrored(*stereo(pose))).fused
    assert Mapper(known, 300_000).add(*stereo(AGAIN)).fused


def test_a_doubtful_place_waits_for_a_second_scene_from_elsewhere(known, monkeypatch):
    monkeypatch.setattr(fusion, 'SURE', 10_000)  # features: none is sure
    mapper = Mapper(known, 300_000)
    assert str(mapper.relocalize(stereo(AGAIN)[1].first)).endswith('features say so: wanted 10000')
    for stamp in (9, 10):  # a robot that stands still waits
        waiting = mapper.add(*stereo(AGAIN, stamp))
        assert not waiting.fused and mapper.map is known
        assert 'in the map, but only ' in waiting.reason and waiting.reason.endswith(
            'features say so: drive on, a second scene from elsewhere must say the same'
        )
    placed = mapper.add(*stereo(WALK[0], 11))
    assert (
        placed.fused
        and placed.reason.startswith('place of scene')
        and off(placed.map_from_camera, WALK[0])[0] < 0.02
    )
    assert mapper.add(*stereo(WALK[1], 12)).reason == 'features of both images'


def test_a_doubtful_place_that_the_next_scene_contradicts_is_forgotten(known, monkeypatch):
    monkeypatch.setattr(fusion, 'SURE', 10_000)
    mapper, wrong = Mapper(known, 300_000), look(3, 2.5, 180)

    def place_of_scene(keyframes, scene):
        place = relocalisation.place_of_scene(keyframes, scene)
        return replace(place, map_from_camera=wrong) if scene.keyframe.stamp_ns == 9 else place

    monkeypatch.setattr(fusion, 'place_of_scene', place_of_scene)
    told = [mapper.add(*stereo(pose, stamp)) for pose, stamp in ((AGAIN, 9), (WALK[0], 10), (AGAIN, 11))]
    assert [one.fused for one in told] == [False, False, True]
    assert off(told[2].map_from_camera, AGAIN)[0] < 0.02


def test_walls_that_look_alike_leave_the_place_open(monkeypatch):
    """One wall is a copy of another: what shows only that is in two places."""
    patches = walked_room.PATCHES.copy()
    patches[3] = patches[1]
    monkeypatch.setattr(walked_room, 'PATCHES', patches)
    scene, _ = stereo(look(4, 2.5, 0))
    kept = keyframe_of(scene, 1, look(4, 2.5, 0), 1.0)
    assert kept is not None
    twice = (kept, replace(kept, number=2, map_from_camera=look(2, 2.5, 90)))
    map_ = replace(mapper_of(look(4, 2.5, 0)).map, keyframes=twice)
    fusion = Mapper(map_, 300_000).add(*stereo(look(3.9, 2.4, 5)))
    assert not fusion.fused and 'the places of scenes 1 and 2 in the map alike' in fusion.reason


def test_a_contradicting_depth_is_refused(known):
    scene, pair = stereo(AGAIN)
    drawn = scene.keyframe.rendering
    noise = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 2, drawn.depth.shape).astype(np.float32))
    bent = replace(scene.keyframe, rendering=replace(drawn, depth=drawn.depth * noise))
    fusion = Mapper(known, 300_000).add(replace(scene, keyframe=bent), pair)
    assert not fusion.fused and 'depths agree' in fusion.reason


def test_a_standing_robot_keeps_one_keyframe_and_a_map_at_most_so_many(monkeypatch):
    mapper = mapper_of(*[look(1.2 + 0.01 * k, 1.5, k) for k in range(4)])
    assert mapper.map.scenes == 4 and len(mapper.map.keyframes) == 1
    monkeypatch.setattr(map_keyframe, 'MOST', 3)
    one = mapper.map.keyframes[0]
    kept: tuple[MapKeyframe, ...] = ()
    for k in range(8):
        kept = with_keyframe(kept, replace(one, number=k, map_from_camera=look(0.5 * k, 1.5, 0)))
    assert [keyframe.number for keyframe in kept] == [0, 1, 7]
    assert apart_from(kept, look(0.5, 1.5, 0)).argmin() == 1


def test_a_keyframe_takes_less_than_100_kB(known):
    for kept in known.keyframes:
        assert sum(value.nbytes for value in vars(kept).values() if isinstance(value, np.ndarray)) < 100_000


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda t: t.update(keyframe_whole=t['keyframe_whole'][:-1]), 'cut off'),
        (
            lambda t: t['keyframe_whole'].__setitem__(0, 4),
            'numbers of keyframes are out of their range, 1 to 3',
        ),
        (lambda t: t['keyframe_whole'].__setitem__(2, 10**6), 'counts of features'),
        (lambda t: t['keyframe_whole'].__setitem__(3, -1), 'heights'),
        (lambda t: t.update(keyframe_gray=t['keyframe_gray'][1:]), 'gray of keyframes are'),
        (lambda t: t['keyframe_real'].__setitem__(0, 2.0), 'not rigid'),
        (lambda t: t['keyframe_real'].__setitem__(3, 1e9), 'out of their range'),
        (lambda t: t['keyframe_real'].__setitem__(17, 0.0), 'out of their range'),
        (lambda t: t['keyframe_points'].__setitem__(2, -1.0), 'features of keyframes'),
        (lambda t: t['keyframe_vectors'].__setitem__(0, 5.0), 'longer than 1'),
        (lambda t: t['keyframe_frames'].__setitem__(0, 10), 'frames of keyframes'),
        (lambda t: t['keyframe_frames'].__setitem__(0, 255), 'frames of keyframes'),
    ],
)
def test_keyframes_of_a_file_that_cannot_be_are_named(known, change, said):
    tensors = {name: tensor.clone() for name, tensor in keyframe_file.tensors_of(known.keyframes).items()}
    assert keyframe_file.defect(tensors, 3) == ''
    change(tensors)
    assert said in keyframe_file.defect(tensors, 3)
