"""The objects of a map as tensors, and what is wrong with them."""

import numpy as np
import pytest

from gsemsplat_ros.mapping import objects_file
from gsemsplat_ros.mapping.known_objects import MOST, KnownObject, KnownObjects
from gsemsplat_ros.semantics.object_history import MOST_TEXTS, History, State
from gsemsplat_ros.semantics.objects import Object

SCENES = 20


def one(number, texts=(('chair', 0.75),), state=State.THERE, gone_ns=0, last_seen_ns=9, keys=(3, 5, 2**62)):
    history = History(number, state, tuple(texts), 4, last_seen_ns, 7, gone_ns)
    thing = Object((1.0, -2.0, 0.5), (0.5, 0.25, 1.0), texts[0][1], history)
    return KnownObject(thing, np.array(keys), 30, 2)


@pytest.fixture
def known():
    texts = ('office chair', 0.875), ('Stuhl für Gäste', 0.5)
    gone = one(5, (('lamp', 0.25),), State.GONE, 8, keys=(11,))
    return KnownObjects((one(2, texts), gone, one(9, state=State.NOT_SEEN_LATELY)), 12)


def test_what_is_written_is_what_is_read(known):
    for value in (known, KnownObjects(), KnownObjects((), 7)):
        tensors = objects_file.tensors_of(value)
        assert {name: tensor.dtype for name, tensor in tensors.items()} == objects_file.DTYPES
        assert objects_file.defect(tensors, SCENES) == ''
        again = objects_file.objects_of(tensors)
        assert again.next_id == value.next_id and len(again.objects) == len(value.objects)
        for mine, theirs in zip(again.objects, value.objects):
            assert (mine.thing, mine.voxels, mine.owner) == (theirs.thing, theirs.voxels, theirs.owner)
            np.testing.assert_array_equal(mine.keys, theirs.keys)
    assert objects_file.objects_of({}).next_id == 1  # a file of an earlier version


@pytest.mark.parametrize(
    'name, place, value, words',
    [
        ('whole', 0, 9, 'ids of objects are not in order'),
        ('whole', 1, 6, 'ids of objects are not in order'),
        ('whole', 2, 0, 'state of objects is out of its range, 1 to 3'),
        ('whole', 3, -1, 'first_seen_ns of objects is out of its range'),
        ('whole', 6, SCENES + 1, 'times_seen of objects is out of its range, 0 to 20'),
        ('whole', 8, SCENES + 1, 'owner of objects is out of its range, 0 to 20'),
        ('whole', 9, 2, 'voxels or texts of objects are cut off'),
        ('whole', 10, 1, 'voxels or texts of objects are cut off'),
        ('whole', 10, MOST_TEXTS + 1, 'texts of objects is out of its range'),
        ('real', 0, 1e7, 'boxes of objects are out of their range'),
        ('real', 3, -1, 'boxes of objects are out of their range'),
        ('real', 6, 2, 'scores of objects are out of their range, 0 to 1'),
        ('scores', 1, -0.5, 'scores of objects are out of their range, 0 to 1'),
        ('keys', 0, -1, 'voxels of objects are outside the grid'),
        ('texts', 2, 255, 'texts of objects are no short texts'),
        ('texts', 2, ord('\n'), 'texts of objects are no short texts'),
        ('texts', 2, 7, 'texts of objects are no short texts'),
    ],
)
def test_what_cannot_be_is_found(known, name, place, value, words):
    tensors = objects_file.tensors_of(known)
    tensors[f'object_{name}'][place] = value
    assert words in objects_file.defect(tensors, SCENES)


@pytest.mark.parametrize('name', ['whole', 'real', 'keys', 'scores'])
@pytest.mark.parametrize('count', [0, -1])
def test_what_was_cut_off_is_found(known, name, count):
    tensors = objects_file.tensors_of(known)
    tensors[f'object_{name}'] = tensors[f'object_{name}'][:count]
    assert 'cut off' in objects_file.defect(tensors, SCENES)


def test_ids_never_return_and_the_number_of_objects_is_bounded():
    known = KnownObjects().changed([one(1), one(2)])
    assert known.next_id == 3
    gone = [one(k, state=State.GONE, gone_ns=k) for k in range(3, 13)]
    known = known.changed([*gone, *(one(k, last_seen_ns=k) for k in range(13, MOST + 3))])
    ids = [each.history.id for each in known.objects]
    assert len(ids) == MOST and known.next_id == MOST + 3
    assert ids == [1, 2, *range(5, MOST + 3)]  # 3 and 4 went first
    newer = known.changed([one(known.next_id + k, last_seen_ns=10**6) for k in range(9)])
    ids = [each.history.id for each in newer.objects]
    assert len(ids) == MOST and not {*range(5, 13)} & {*ids} and MOST + 11 in ids  # then what went, and one
    again = objects_file.objects_of(objects_file.tensors_of(newer))
    assert again.next_id == newer.next_id == MOST + 12


def test_what_appeared_and_what_went_since_a_time():
    def seen(number, first, gone=0):
        history = History(
            number, State.GONE if gone else State.THERE, (('lamp', 0.5),), first, first, 1, gone
        )
        return KnownObject(Object((0, 0, 0), (1, 1, 1), 0.5, history), np.array([1]), 1, 1)

    known = KnownObjects().changed([seen(1, 50), seen(2, 40, 70), seen(3, 30), seen(4, 60, 65), seen(5, 0)])

    def ids(stamp):
        return [[thing.id for thing in part] for part in known.since(stamp)]

    assert ids(0) == [[5, 3, 1], [4, 2]]
    assert ids(40) == [[1], [4, 2]]
    assert ids(66) == [[], [2]]
    assert ids(71) == [[], []]


def test_the_texts_of_an_object_are_bounded_and_best_first():
    history = one(1, (('chair', 0.25),)).history
    for k in range(MOST_TEXTS + 3):
        history = history.found_by(f'word {k}', 0.5 + k / 100)
    assert history.label == f'word {MOST_TEXTS + 2}' and len(history.texts) == MOST_TEXTS
    again = history.found_by(history.label, 0.125)
    assert again.texts[-1] == (history.label, 0.125) and len(again.texts) == MOST_TEXTS
    assert again.label == f'word {MOST_TEXTS + 1}'


def test_boxes_overlap_by_their_volumes():
    a, b = Object((0, 0, 0), (2, 2, 2), 0.5), Object((1, 0, 0), (2, 2, 2), 0.5)
    assert a.overlap(b) == pytest.approx(4 / 12) and a.overlap(a) == 1
    assert a.overlap(Object((3, 0, 0), (2, 2, 2), 0.5)) == 0
    assert a.overlap(Object((0, 0, 0), (2, 2, 0), 0.5)) == 0
