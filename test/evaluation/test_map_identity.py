"""`id_switches` of `eval map`, by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gsemsplat_ros.evaluation import map_identity
from gsemsplat_ros.evaluation.map_identity import Identity, Sighting, standing
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.object_history import History, State
from gsemsplat_ros.semantics.objects import Object

BOXES = {3: (0.0, 0, 0), 4: (3.0, 0, 0), 5: (6.0, 0, 0)}  # lowest corners of cubes of 1 m
HOUSE = SimpleNamespace(
    pieces={3: 'chair', 4: 'office chair', 5: 'sofa'}, taken=frozenset({5}), moved=frozenset({4})
)


def seen(round_, instances, shift=0.0):
    rng = np.random.default_rng(0)
    points = np.concatenate([BOXES[i] + rng.random((500, 3)) + (0, shift, 0) for i in instances])
    return Sighting(round_, points, np.repeat(instances, 500))


def thing(corner, number, shift=0.0):
    history = History(number, State.THERE, (('it', 0.5),), 0, 0, 1)
    return Object(tuple(np.add(corner, (0.5, 0.5 + shift, 0.5))), (1.0, 1.0, 1.0), 0.5, history)


class Asked:
    """Pipeline, mapper and map in one: answers each text by what it is told."""

    def __init__(self):
        self.found, self.map = {}, self

    def index(self, map_, before=None):
        return self

    def query(self, index, text):
        return Answer(text, 0.5, True, 0.5, None, None, self.found.get(text, ()))

    def note(self, asked, answer):
        return answer


@pytest.fixture
def identity(monkeypatch):
    monkeypatch.setattr(map_identity, 'world_from_map', lambda record: (1.0, np.eye(3), np.zeros(3)))
    return Identity()


def test_what_stands_in_the_second_round():
    first, second = seen(1, [3, 4, 5]), seen(2, [4], shift=2.0)
    gone = HOUSE.taken | HOUSE.moved
    assert {*standing([first], gone)[1]} == {3, 4, 5}
    points, instances = standing([first, second], gone)
    assert {*instances} == {3, 4} and points[instances == 4, 1].min() >= 2


def test_a_thing_that_changes_its_id_is_counted_once_for_each_change(identity):
    asked, everything = Asked(), [seen(1, [3, 4, 5])]
    assert identity.score is None
    chair, office, sofa = (thing(BOXES[i], k) for k, i in ((1, 3), (2, 4), (7, 5)))
    asked.found = {'chair': (office, chair), 'office chair': (office,), 'sofa': (sofa,)}
    for _ in range(2):
        identity.look(asked, asked, None, HOUSE, everything)
        assert identity.score == 0 and identity.ids == {(3, 1): 1, (4, 1): 2, (5, 1): 7}
    asked.found['chair'] = (replace(chair, history=thing(BOXES[3], 9).history), thing((20, 0, 0), 3))
    identity.look(asked, asked, None, HOUSE, everything)
    assert identity.score == 1 and identity.ids[3, 1] == 9
    # while one of its boxes has the id nothing changes; then the best box counts
    asked.found = {'chair': (thing(BOXES[4], 5),), 'office chair': (thing(BOXES[4], 2, shift=0.3),)}
    identity.look(asked, asked, None, HOUSE, everything)
    assert identity.score == 1 and identity.ids[4, 1] == 2
    asked.found = {'chair': (thing(BOXES[4], 5),), 'office chair': (thing(BOXES[4], 6, shift=0.3),)}
    identity.look(asked, asked, None, HOUSE, everything)
    assert identity.score == 2 and identity.ids[4, 1] == 5


def test_a_thing_that_was_moved_is_another_at_its_new_place(identity):
    asked, first = Asked(), seen(1, [3, 4])
    asked.found = {'office chair': (thing(BOXES[4], 2),)}
    identity.look(asked, asked, None, HOUSE, [first])
    asked.found = {'office chair': (thing(BOXES[4], 8, shift=2.0),)}
    identity.look(asked, asked, None, HOUSE, [first, seen(2, [4], shift=2.0)])
    assert identity.score == 0 and identity.ids == {(4, 1): 2, (4, 2): 8}
