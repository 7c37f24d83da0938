"""A map finds its place in another one by the keyframes of both, or is refused: a wrong place is worse."""

from dataclasses import replace

import numpy as np
import pytest
from support import walked_room
from support.walked_room import WALK, look, seen

from gsemsplat_ros.mapping.alignment import Alignment, Votes, agreeing, alignment_of, elected
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_keyframe import keyframe_of

RIGHT = np.eye(4)
RIGHT[0, 3] = 0.1
B_FROM_ROOM = look(0.7, -0.4, 130)
B_FROM_ROOM[:3, :3] = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
ANOTHER = [look(1.3 + 0.25 * k, 1.35 + 0.12 * k, 12 * k + 6) for k in range(4)] + [look(3.3, 2.2, 75)]


def map_of(poses, map_from_room=np.eye(4), unit=1.0):
    """A map with the keyframes at these places of the room and nothing else; in metres if its unit is one."""
    kept = []
    for number, pose in enumerate(poses, 1):
        scene, _ = seen(pose, pose @ RIGHT, unit=unit)
        placed = map_from_room @ pose
        placed[:3, 3] /= unit
        kept.append(keyframe_of(scene, number, placed, 1.0))
    source = 'stereo baseline' if unit == 1 else 'network'
    empty = Map.empty('map', 0.04)
    return replace(empty, keyframes=tuple(kept), scenes=len(kept), scale_source=source)


@pytest.fixture(scope='module')
def a():
    return map_of([*WALK, look(3, 2.5, 60), look(3, 2.5, 100)])


@pytest.fixture(scope='module')
def b():
    return map_of(ANOTHER, B_FROM_ROOM)


def off(found, truth):
    """How far an alignment is off: [m], [degrees]."""
    away = np.linalg.inv(truth) @ found.a_from_b
    return np.linalg.norm(away[:3, 3]), np.degrees(
        np.arccos(np.clip((np.trace(away[:3, :3]) - 1) / 2, -1, 1))
    )


def test_two_walks_of_one_room_fit_within_a_centimetre(a, b):
    ticks = []
    found = alignment_of(a, b, lambda: ticks.append(1))
    assert (
        len(ticks) == found.asked == 5 and 4 <= len(found.agreeing) <= found.known <= 5 and found.scale == 1.0
    )
    metres, degrees = off(found, np.linalg.inv(B_FROM_ROOM))
    assert metres < 0.01 and degrees < 0.1
    np.testing.assert_allclose(
        found.placed(np.stack([kept.map_from_camera for kept in b.keyframes])), ANOTHER, atol=0.02
    )


def test_a_map_of_unknown_scale_takes_that_of_the_other(a, b):
    small = map_of(ANOTHER, B_FROM_ROOM, unit=2.0)
    found = alignment_of(a, small)
    assert found.scale == pytest.approx(2.0, rel=0.01) and max(off(found, np.linalg.inv(B_FROM_ROOM))) < 0.05
    assert (
        alignment_of(small, b) == 'lengths are metres in the second map and not in the first: exchange them'
    )
    both = alignment_of(small, map_of(ANOTHER, unit=0.5))
    assert both.scale == pytest.approx(0.25, rel=0.01)


def test_maps_of_other_rooms_are_refused(a, monkeypatch):
    here = walked_room.PATCHES
    other = np.random.default_rng(7).integers(0, 255, here.shape, dtype=np.uint8)
    poster = other.copy()
    poster[1, 20:32, 8:20] = here[1, 20:32, 8:20]  # about 1 m x 1 m of the wall ahead
    for patches in (other, poster):
        monkeypatch.setattr(walked_room, 'PATCHES', patches)
        refused = alignment_of(a, map_of(ANOTHER))
        assert refused.startswith('0 of 5 keyframes of the second map are known again in the first: wanted 3')
        assert '\n' not in refused


def test_a_map_without_keyframes_is_refused(a):
    none = replace(a, keyframes=())
    assert alignment_of(none, a).startswith('the first map has no keyframes')
    assert alignment_of(a, none).startswith('the second map has no keyframes')


def test_places_that_contradict_one_another_are_refused(a, b):
    """A map of which a part was tied to the rest wrongly."""
    away = look(9, 9, 40)
    torn = [
        replace(kept, map_from_camera=away @ kept.map_from_camera) if kept.number > 3 else kept
        for kept in map_of([*ANOTHER, look(3.2, 2.4, 95)], B_FROM_ROOM).keyframes
    ]
    refused = alignment_of(a, replace(b, keyframes=tuple(torn)))
    assert refused.endswith('but 3 of them say that it stands in one place, and 3 in another'), refused


def test_one_thing_alone_is_no_place(a):
    """Only what is seen of one wall, from one place."""
    near = [look(1.3 + 0.1 * k, 1.5, 4 * k) for k in range(3)]
    refused = alignment_of(a, map_of(near, B_FROM_ROOM))
    assert refused.endswith('but all of them look at the same thing: it may be in both'), refused


def test_where_it_ought_to_be_known_again_and_is_not(a, b):
    """Half the second map is of another house, and would lie in the first one."""
    rng = np.random.default_rng(3)
    foreign = [
        replace(kept, descriptors=rng.permutation(kept.descriptors)) for kept in b.keyframes for _ in range(3)
    ]
    refused = alignment_of(a, replace(b, keyframes=(*b.keyframes, *foreign)))
    assert refused.endswith('but where 5 of them say that it stands, 20 ought to be'), refused


def test_what_most_say_is_found_among_many_who_err():
    rng = np.random.default_rng(0)
    truth = Alignment(look(3, -2, 70), 1.5)
    b_from_camera = np.stack([look(*rng.uniform(0, 8, 2), rng.uniform(0, 360)) for _ in range(30)])
    a_from_camera = truth.placed(b_from_camera)
    wrong = np.arange(30) >= 20
    a_from_camera[wrong] = [look(*rng.uniform(0, 12, 2), rng.uniform(0, 360)) for _ in range(10)]
    a_from_camera[:, :3, 3] += rng.normal(0, 0.02, (30, 3))
    votes = Votes(a_from_camera, b_from_camera, np.full(30, 3.0), 1.5 * rng.uniform(0.95, 1.05, 30))
    found, agree = elected(votes, metric=False)
    assert (agree == ~wrong).all() and (agreeing(votes, found) == agree).all()
    assert found.scale == pytest.approx(1.5, rel=0.003) and off(found, truth.a_from_b)[0] < 0.03
    assert off(found, truth.a_from_b)[1] < 0.2
