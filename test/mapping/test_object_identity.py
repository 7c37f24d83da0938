"""Objects keep their id over keyframes and files, and what was carried away is gone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.walked_room import AROUND, BOX, look, off_the_walls, stereo
from support.word_maps import HERE, cloud

from gsemsplat_ros.mapping import fusion
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.known_objects import SAMPLE
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import load_map, save_map
from gsemsplat_ros.mapping.object_identity import moved, observed, recognised
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.semantics.answer import Answer, GaussianArrays
from gsemsplat_ros.semantics.object_history import State
from gsemsplat_ros.semantics.objects import Object, find_objects

SECOND = 10**9
SPACE = CodeSpace('small.safetensors', 'minilm-l6', 'abc', 32)
CHAIR = np.array([[1.0, 1.0, 0.0], [1.5, 1.5, 0.9]])
BESIDE = CHAIR + (0.55, 0, 0)
CUSHION = np.array([[1.05, 1.05, 0.4], [1.45, 1.45, 0.5]])


class Drive:
    """A mapper in the walked room; each keyframe is one second after the last."""

    def __init__(self, map_=None, second=0):
        self.mapper, self.second = Mapper(map_ or Map.empty('map', 0.04), 10**6), second

    def see(self, poses=AROUND, **more):
        for pose in poses:
            self.second += 1
            result = self.mapper.add(*stereo(pose, stamps=(self.second * SECOND, 0), **more))
            assert result.fused, result.reason

    def ask(self, text='chair'):
        """As a query that finds what stands off the walls."""
        map_ = self.mapper.map
        means, opacities = map_.gaussians.means.numpy(), map_.gaussians.opacities.numpy()
        lit = off_the_walls(map_) > 0.25
        relevancy = np.where(lit, np.float32(0.75), np.float32(0.25))
        things = find_objects(means, relevancy, lit, opacities, voxel=3 * map_.voxel, min_points=10)
        return self.mapper.note(
            map_,
            Answer(text, 0.5, bool(things), 0.75, None, None, things, gaussians=GaussianArrays(lit, lit)),
        )

    def known(self):
        return {one.history.id: one.history for one in self.mapper.map.objects.objects}


def test_an_object_that_was_carried_away_goes_within_three_views():
    drive = Drive()
    drive.see(thing=BOX)
    (thing,) = drive.ask().objects
    np.testing.assert_allclose(thing.center, BOX.mean(0), atol=0.05)
    was = thing.history
    assert (was.id, was.state, was.texts, was.times_seen) == (1, State.THERE, (('chair', 0.75),), 3)
    assert (was.first_seen_ns, was.last_seen_ns, was.gone_ns) == (SECOND, 3 * SECOND, 0)
    drive.see(thing=BOX)
    was = drive.known()[1]
    assert (was.first_seen_ns, was.last_seen_ns, was.times_seen) == (SECOND, 6 * SECOND, 6)

    drive.see(AROUND[:1])  # one keyframe that looks through it is no proof
    assert drive.known()[1].state == State.NOT_SEEN_LATELY
    drive.see(AROUND[1:])
    was = drive.known()[1]
    assert was.state == State.GONE and was.gone_ns in (8 * SECOND, 9 * SECOND)
    assert (was.last_seen_ns, was.times_seen) == (6 * SECOND, 6)
    answer = drive.ask()
    assert not answer.objects and [gone.id for gone in answer.gone] == [1]
    assert drive.ask('lamp').gone == ()  # which never found it
    appeared, gone = drive.mapper.map.objects.since(4 * SECOND)
    assert not appeared and [thing.id for thing in gone] == [1]

    drive.see(thing=BOX)  # what stands there later is another one
    answer = drive.ask()
    assert [thing.id for thing in answer.objects] == [2] and [thing.id for thing in answer.gone] == [1]
    assert drive.known()[1].state == State.GONE and drive.known()[2].first_seen_ns == 10 * SECOND


def test_a_moved_object_has_a_new_id_at_its_new_place():
    drive, there = Drive(), BOX + (0.9, -0.9, 0)
    drive.see(thing=BOX)
    drive.ask()
    drive.see(thing=there)
    answer = drive.ask()
    assert [thing.id for thing in answer.objects] == [2] and [thing.id for thing in answer.gone] == [1]
    np.testing.assert_allclose(answer.objects[0].center, there.mean(0), atol=0.05)
    appeared, gone = drive.mapper.map.objects.since(4 * SECOND)
    assert ([thing.id for thing in appeared], [thing.id for thing in gone]) == ([2], [1])


def test_an_object_that_is_hidden_or_not_looked_at_stays():
    drive, screen = Drive(), np.array([[2.3, 1.0, 0.0], [2.4, 4.0, 2.5]])
    drive.see(thing=BOX)
    drive.ask()
    before = drive.known()[1]
    drive.see([look(1.2, 2.2, 180)] * 3, thing=BOX)
    assert drive.known()[1] == before
    drive.see(AROUND[:1] * 3, thing=screen)
    assert drive.known()[1] == before


def test_an_object_seen_again_is_there_after_one_doubtful_look():
    drive = Drive()
    drive.see(thing=BOX)
    drive.ask()
    drive.see(AROUND[:1])
    drive.see(AROUND[:1], thing=BOX)
    was = drive.known()[1]
    assert (was.state, was.last_seen_ns, was.times_seen) == (State.THERE, 5 * SECOND, 4)


def test_depths_that_are_wrong_as_a_whole_are_no_evidence():
    drive = Drive()
    drive.see(thing=BOX)
    drive.ask()
    before = drive.known()[1]
    drive.see(AROUND[:1], see=lambda z: 1.6 * z)
    assert drive.known()[1] == before


def test_what_the_budget_removes_has_not_gone():
    drive = Drive()
    drive.see(thing=BOX)
    drive.ask()
    drive.mapper.budget = 1000
    drive.see([look(1.2, 2.2, 180)] * 8)
    one = drive.mapper.map.objects.objects[0]
    assert drive.mapper.map.lookup(one.keys).there.mean() < 0.2
    assert (one.history.state, one.history.last_seen_ns) == (State.THERE, 3 * SECOND)


def test_ids_stay_in_files(tmp_path):
    drive = Drive()
    drive.see(thing=BOX)
    drive.ask()
    save_map(tmp_path / 'home.safetensors', drive.mapper.map, SPACE)
    later = Drive(load_map(tmp_path / 'home.safetensors', SPACE), 100)
    assert later.known() == drive.known()
    later.see(thing=BOX)
    (thing,) = later.ask('office chair').objects
    assert (thing.id, thing.history.times_seen, thing.history.last_seen_ns) == (1, 6, 103 * SECOND)
    later.see()
    assert later.known()[1].state == State.GONE
    save_map(tmp_path / 'home.safetensors', later.mapper.map, SPACE)
    last = Drive(load_map(tmp_path / 'home.safetensors', SPACE), 200)
    last.see(thing=BOX)
    assert [thing.id for thing in last.ask().objects] == [2]


# Boxes in a map of two chairs, one with a cushion


def surface(box, count=4000, seed=0):
    """Points (N, 3) on a box (2, 3)."""
    rng = np.random.default_rng(seed)
    points, axis = rng.random((count, 3)), rng.integers(0, 3, count)
    points[np.arange(count), axis] = rng.integers(0, 2, count)
    return box[0] + points * (box[1] - box[0])


@pytest.fixture(scope='module')
def chairs():
    points = np.concatenate([surface(box) for box in (CHAIR, BESIDE, CUSHION)])
    gaussians = cloud(points)
    gaussians.opacities[:] = 0.8
    return Map.empty('map', 0.03).merged(gaussians, HERE, 10**6)


def found(map_, text, *boxes, score=0.5):
    """The answer of a query that found these boxes."""
    boxes = [np.asarray(box) for box in boxes]
    things = [Object(tuple(box.mean(0)), tuple(box[1] - box[0]), score) for box in boxes]
    means = map_.gaussians.means.double().numpy()
    lit = np.any([((means >= box[0] - 1e-3) & (means <= box[1] + 1e-3)).all(1) for box in boxes], 0)
    return Answer(text, 0.4, True, score, None, None, tuple(things), gaussians=GaussianArrays(lit, lit))


def ids(answer):
    return [thing.id for thing in answer.objects]


def test_two_chairs_are_two_objects_whatever_their_order(chairs):
    known, answer = observed(chairs.objects, chairs, found(chairs, 'chair', CHAIR, BESIDE))
    assert ids(answer) == [1, 2]
    known, answer = observed(known, chairs, found(chairs, 'chair', BESIDE, CHAIR))
    assert ids(answer) == [2, 1]
    for box, number in ((CHAIR, 1), (BESIDE, 2)):
        known, answer = observed(known, chairs, found(chairs, 'chair', box))
        assert ids(answer) == [number]
    assert known.next_id == 3 and len(known.objects) == 2
    assert all(len(one.keys) == SAMPLE < one.voxels for one in known.objects)


def test_two_chairs_that_one_box_joins_keep_their_ids(chairs):
    known, _ = observed(chairs.objects, chairs, found(chairs, 'chair', CHAIR, BESIDE))
    both = np.stack((CHAIR[0], BESIDE[1]))
    known, answer = observed(known, chairs, found(chairs, 'chair', both))
    assert ids(answer) in ([1], [2])
    known, answer = observed(known, chairs, found(chairs, 'chair', CHAIR, BESIDE))
    assert sorted(ids(answer)) == [1, 2]


def test_one_chair_from_two_sides_is_one(chairs):
    front = np.array([CHAIR[0], (1.06, 1.5, 0.9)])
    known, answer = observed(chairs.objects, chairs, found(chairs, 'chair', front))
    assert ids(answer) == [1]
    known, answer = observed(known, chairs, found(chairs, 'chair', CHAIR))
    assert ids(answer) == [1] and len(known.objects) == 1
    np.testing.assert_allclose(answer.objects[0].size, CHAIR[1] - CHAIR[0])  # its newest box


def test_one_chair_by_two_texts_is_one_and_its_cushion_is_another(chairs):
    known, _ = observed(chairs.objects, chairs, found(chairs, 'chair', CHAIR, score=0.5))
    known, answer = observed(known, chairs, found(chairs, 'office chair', CHAIR + 0.02, score=0.75))
    assert ids(answer) == [1]
    assert answer.objects[0].history.texts == (('office chair', 0.75), ('chair', 0.5))
    known, answer = observed(known, chairs, found(chairs, 'cushion', CUSHION))
    assert ids(answer) == [2]
    known, answer = observed(known, chairs, found(chairs, 'seat', CHAIR))
    assert ids(answer) == [1] and len(known.objects) == 2


def test_an_answer_without_the_map_s_gaussians_is_left_as_it_is(chairs):
    boxes_only = replace(found(chairs, 'chair', CHAIR), gaussians=None)
    for known, answer in (observed(chairs.objects, chairs, boxes_only),):
        assert ids(answer) == [0] and not known.objects
    nothing = replace(boxes_only, objects=(), gaussians=GaussianArrays(*np.zeros((2, len(chairs)), bool)))
    assert observed(chairs.objects, chairs, nothing)[1].objects == ()
    elsewhere = found(chairs, 'chair', CHAIR + 5)
    assert ids(observed(chairs.objects, chairs, elsewhere)[1]) == [0]


def test_recognised_notes_nothing(chairs):
    known, _ = observed(chairs.objects, chairs, found(chairs, 'chair', CHAIR))
    map_ = chairs.with_objects(known)
    assert ids(recognised(map_, found(chairs, 'chair', BESIDE, CHAIR))) == [0, 1]
    assert map_.objects is known and chairs.objects.objects == ()


def test_objects_move_with_the_scenes_that_own_them(chairs):
    known, _ = observed(chairs.objects, chairs, found(chairs, 'chair', CHAIR, BESIDE))
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0, 0, 0.05]))[0]
    pose[:3, 3] = 0.4, -0.3, 0.02
    poses, ratios = np.stack((np.eye(4), pose)), np.array([1, 1.02])
    map_ = chairs.moved(poses, ratios)
    there = moved(known, map_, poses, ratios)
    for before, after in zip(known.objects, there.objects):
        assert after.history == before.history
        center = 1.02 * pose[:3, :3] @ before.thing.center + pose[:3, 3]
        np.testing.assert_allclose(after.thing.center, center)
        np.testing.assert_allclose(after.thing.size, 1.02 * np.array(before.thing.size))
        assert map_.lookup(after.keys).there.mean() > 0.95
    boxes = [np.array([one.thing.corners.min(0), one.thing.corners.max(0)]) for one in there.objects]
    assert ids(observed(there, map_, found(map_, 'chair', *boxes[::-1]))[1]) == [2, 1]
    same = moved(known, chairs, np.stack((np.eye(4),) * 2), np.ones(2))
    assert all(a is b for a, b in zip(same.objects, known.objects))


def test_an_answer_of_a_map_that_was_moved_or_replaced_meanwhile_is_not_noted():
    drive = Drive()
    drive.see(thing=BOX)
    asked, answer = drive.mapper.map, drive.ask()
    graph = asked.graph
    drive.mapper.map = replace(drive.mapper.map, graph=replace(graph, poses=graph.poses + 0.01))
    (thing,) = answer.objects
    raw = replace(answer, objects=(replace(thing, history=None),))
    assert [one.id for one in drive.mapper.note(asked, raw).objects] == [0]
    assert len(drive.known()) == 1


def test_an_answer_that_is_noted_while_a_scene_is_fused_is_not_lost(monkeypatch):
    drive, during = Drive(), []
    drive.see(thing=BOX)
    asked, compared = drive.mapper.map, fusion.free_space

    def meanwhile(*arguments):
        during.append(drive.ask())
        return compared(*arguments)

    monkeypatch.setattr(fusion, 'free_space', meanwhile)
    drive.see(AROUND[:1], thing=BOX)
    assert len(during) == 1 and [thing.id for thing in during[0].objects] == [1]
    assert drive.mapper.map.scenes == asked.scenes + 1
    assert drive.known()[1].times_seen == 4 and drive.known()[1].last_seen_ns == 4 * SECOND
