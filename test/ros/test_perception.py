"""From inputs to results, without topics: what goes out, whatever other threads do meanwhile."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from gsemsplat_msgs.srv import Query
from support.node_program import FakePipeline
from support.ros_messages import LEFT, RIGHT, picture

from gsemsplat_ros.device import NoGpuMemory
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros import answers
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.perception import Perception


class Recorded:
    """In the place of Results: (topic, arguments) of what goes out."""

    def __init__(self):
        self.out = []

    def __getattr__(self, topic):
        return lambda *arguments: self.out.append((topic, arguments))

    def of(self, topic):
        return [arguments for name, arguments in self.out if name == topic]


class Camp:
    """A perception with a stereo camera that stands, its results and its parameters."""

    def __init__(self, folder):
        self.parameters = Parameters(map_directory=str(folder))
        pipeline = FakePipeline('')
        self.keeper, self.results, self.said = MapKeeper(self.parameters, pipeline.code_space), Recorded(), []
        self.perception = Perception(
            pipeline,
            self.keeper,
            self.results,
            lambda: self.parameters,
            self.said.append,
            lambda: None,
            lambda: FakePipeline(''),
        )
        self._seconds = 0

    @property
    def now(self):
        return self.perception.latest.now

    def see(self):
        """One more pair."""
        self._seconds += 1
        stamp, camera = self._seconds * 10**9, Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
        left, right = (np.full((48, 64, 3), color, np.uint8) for color in (LEFT, RIGHT))
        pair = Pair(View(left, camera, 'left', stamp), View(right, camera, 'right', stamp), 0.12)
        source = SimpleNamespace(pair=lambda raw: pair, built=lambda pair: None)
        self.perception.build((source, SimpleNamespace(images=[picture(LEFT, stamp_ns=stamp)])))

    def ask(self, text):
        response = Query.Response()
        self.perception.answer(self.now, Query.Request(text=text), response, None)
        return response


@pytest.fixture
def camp(tmp_path):
    return Camp(tmp_path)


def test_a_map_that_is_cleared_right_after_a_scene_was_fused_harms_nothing(camp, monkeypatch):
    add = camp.keeper.add

    def add_and_clear(*arguments):
        done = add(*arguments)
        camp.keeper.clear(7)
        return done

    monkeypatch.setattr(camp.keeper, 'add', add_and_clear)
    camp.see()
    assert (camp.now.scenes, camp.now.kept.fused, camp.said) == (1, 1, [])
    ((kept,),) = camp.results.of('place')
    assert kept.map_from_camera is not None and len(kept.map) and not len(camp.now.kept.map)


def test_the_map_that_was_shown_last_is_the_newest_whichever_thread_showed_it(camp, monkeypatch):
    shown, others = [], []

    def show(map_, *arguments):
        if not shown and not others:  # another thread clears the map while this one is on its way out
            others.append(threading.Thread(target=clear))
            others[0].start()
            others[0].join(0.2)
        shown.append(map_)

    def clear():
        camp.keeper.clear(7)
        camp.perception.map_replaced()

    monkeypatch.setattr(camp.results, 'map', show, raising=False)
    camp.see()
    others[0].join(10)
    assert len(shown) == 2 and shown[-1] is camp.now.kept.map and not len(shown[-1])


def test_before_the_first_scene_a_changed_parameter_publishes_nothing(camp):
    camp.perception.publish_cloud_again()
    camp.perception.publish_map_again()
    camp.perception.answer_again()
    assert camp.results.out == []


def test_a_changed_parameter_publishes_what_it_changes(camp):
    camp.see()
    camp.results.out.clear()
    camp.perception.publish_cloud_again()
    assert [topic for topic, _ in camp.results.out] == ['cloud']
    camp.perception.publish_map_again()
    assert [topic for topic, _ in camp.results.out] == ['cloud', 'map']


def test_the_markers_of_a_standing_query_that_was_removed_go(camp):
    camp.parameters = Parameters(queries=('chair', 'door'))
    camp.see()
    camp.ask('chair 2')

    def texts():
        answers, _ = camp.results.of('objects')[-1]
        return [answer.text for answer, _ in answers]

    assert texts() == ['chair', 'door', 'chair 2']
    camp.parameters = Parameters(queries=('door',))
    camp.perception.answer_again()
    assert texts() == ['door', 'chair 2']
    camp.parameters = Parameters()
    camp.perception.answer_again()
    camp.see()
    assert texts() == []  # goes out, or the old ones would stay


def test_words_that_are_not_understood_are_answered_as_such(camp):
    camp.see()
    response = camp.ask('椅子')
    assert not response.success and not response.found and not response.objects
    assert response.message == "not understood: '椅子'; ask in English letters, such as 'chair'"
    response = camp.ask('chair🪑')
    assert (
        response.success and response.found and response.message.startswith("'chair 🪑' found, 2 object(s)")
    )
    assert response.message.endswith("; left out, as not understood: '🪑'")
    assert 'understood' not in camp.ask('ｃｈａｉｒ').message


def test_a_standing_query_that_is_not_understood_is_logged_once(camp):
    note = "not understood: the negation 'no'; name the thing itself, such as 'chair'"
    camp.parameters = Parameters(queries=('chair', 'no chair'))
    camp.see()
    camp.perception.answer_again()
    assert camp.said == [f"standing query 'no chair': {note}"]
    camp.parameters = Parameters(queries=('chair',))
    camp.perception.answer_again()
    camp.parameters = Parameters(queries=('no chair',))
    camp.perception.answer_again()
    assert len(camp.said) == 2  # it was asked anew


def test_a_focal_length_without_camera_info_is_said_to_be_found(camp):
    build = camp.perception.pipeline.build
    camp.perception.pipeline.build = lambda pair: replace(
        build(pair), focal_source='images', focal_spread=0.04
    )
    camp.see()
    assert 'px, is by the images, within 4 %; publish it' in camp.said[0]


@pytest.mark.parametrize(
    'error, words',
    [
        (ValueError('the object is 1e+09 m from the origin'), 'the object is 1e+09 m from the origin'),
        (RuntimeError('broken'), 'broken'),
        (MemoryError(), 'MemoryError'),
    ],
)
def test_an_error_of_the_approach_leaves_the_answer_as_it_is(camp, monkeypatch, error, words):
    def fail(*arguments):
        raise error

    camp.see()
    whole = camp.ask('chair')
    camp.results.out.clear(), camp.said.clear()
    monkeypatch.setattr(answers, 'approach_pose', fail)
    response = camp.ask('chair')
    assert response.success and response.found and response.objects == whole.objects and whole.objects
    assert not response.approach_found and response.message.endswith(f'; no approach: {words}')
    assert [topic for topic, _ in camp.results.out] == ['answer', 'objects']
    assert len(camp.said) == 1 and ('Traceback' in camp.said[0] or 'File' in camp.said[0]) == (
        type(error) is not ValueError
    )


def test_an_answer_stands_though_it_cannot_be_published(camp, monkeypatch):
    def fail(*arguments):
        raise RuntimeError('the publisher is gone')

    camp.see()
    monkeypatch.setattr(camp.results, 'answer', fail, raising=False)
    response = camp.ask('chair')
    assert response.success and response.objects and 'the publisher is gone' in camp.said[-1]


def test_a_gpu_without_memory_for_a_pair_is_left_for_the_cpu(camp):
    camp.see()
    before = camp.perception.pipeline

    def build(pair):
        raise NoGpuMemory('the GPU has no memory for a pair')

    before.build = build
    camp.see()
    said = ['the GPU has no memory for a pair: this node goes on on the CPU']
    assert camp.said[:1] == said
    assert camp.perception.pipeline is not before and camp.now.scenes == 2 and camp.now.refused == 0
    assert camp.ask('chair').success
    camp.see()
    assert camp.now.scenes == 3 and camp.said.count(said[0]) == 1
