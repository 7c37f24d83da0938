"""The keeper of the map: what is known of the map is one value, replaced and never changed."""

from dataclasses import replace

import numpy as np
import pytest
from support.word_maps import HERE, scene_cloud

from gsemsplat_ros.mapping.fusion import Fusion
from gsemsplat_ros.mapping.known_objects import KnownObject
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.ros import map_keeper
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.object_history import History, State
from gsemsplat_ros.semantics.objects import Object


def some_map():
    return Map.empty('map', 0.05).merged(scene_cloud(1), HERE, 10**6, 'tf')


class Fuser:
    """In the place of the Mapper: says what it is told, with `map_`."""

    def __init__(self, map_, fusions):
        self.map, self._fusions, self.budget = map_, iter(fusions), 0

    def add(self, scene, pair):
        self.meanwhile()
        return next(self._fusions)

    def meanwhile(self):
        """What other threads do while a scene is fused."""

    def note(self, asked, answer):
        history = History(self.map.objects.next_id, State.THERE, ((answer.text, 0.5),), 1, 1, 1)
        thing = Object((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.5, history)
        self.map = self.map.with_objects(self.map.objects.changed([KnownObject(thing, np.array([1]), 1, 1)]))
        return replace(answer, objects=(thing,))


class Stamped:
    """As much of a scene and of a pair as the keeper reads."""

    def __init__(self, stamp_ns):
        self.keyframe = self.first = self.gaussians = self
        self.frame = 'camera'
        self.stamp_ns, self.map_from_camera = stamp_ns, None


@pytest.fixture
def keeper(tmp_path):
    return MapKeeper(Parameters(map_directory=str(tmp_path / 'maps')), CodeSpace('', '', '', 32))


def test_what_became_of_scenes_is_counted_beside_the_map(keeper, monkeypatch):
    map_, pose = some_map(), np.eye(4)
    fuser = Fuser(map_, [Fusion(True, 'start', pose), Fusion(False, 'too far')])
    monkeypatch.setattr(map_keeper, 'Mapper', lambda *_: fuser)
    keeper.clear(3)
    before = keeper.kept
    assert (before.fused, before.last_fused, before.reason, before.stamp_ns) == (0, True, '', 3)
    keeper.add(Stamped(5), Stamped(5), 100)
    fused = keeper.kept
    assert (fused.fused, fused.left_out, fused.last_fused, fused.reason) == (1, 0, True, 'start')
    assert fused.map is map_ and fused.stamp_ns == 5 and fused.map_from_camera is pose
    keeper.add(Stamped(9), Stamped(9), 100)
    left_out = keeper.kept
    assert (left_out.fused, left_out.left_out, left_out.last_fused, left_out.reason) == (
        1,
        1,
        False,
        'too far',
    )
    assert left_out.map is map_ and left_out.stamp_ns == 5 and left_out.map_from_camera is pose
    keeper.clear(11)  # counts go on
    assert (keeper.kept.fused, keeper.kept.left_out, keeper.kept.last_fused) == (1, 1, True)
    assert len(keeper.kept.map) == 0 and len(before.map) == 0 and len(fused.map) == len(map_)


def test_what_is_noted_while_a_scene_is_fused_or_left_out_is_kept(keeper, monkeypatch):
    map_, pose = some_map(), np.eye(4)
    fuser = Fuser(map_, [Fusion(True, 'start', pose), Fusion(False, 'too far')])
    monkeypatch.setattr(map_keeper, 'Mapper', lambda *_: fuser)
    keeper.clear(3)
    asked, answer = keeper.kept.map, Answer('chair', 0.5, True, 0.5, None, None, ())
    fuser.meanwhile = lambda: keeper.note(asked, answer)
    for count in (1, 2):
        keeper.add(Stamped(5), Stamped(5), 100)
        assert len(keeper.kept.map.objects.objects) == count
    assert keeper.kept.left_out == 1 and keeper.kept.map.tiles is map_.tiles
    assert keeper.note(keeper.kept.map, answer).objects[0].id == 3
    assert keeper.kept.map.objects.next_id == 4


def test_why_a_map_was_not_saved_stands_in_the_value_until_one_is(keeper, monkeypatch):
    with pytest.raises(ValueError, match='the map is empty'):
        keeper.save('kitchen')
    assert keeper.kept.save_error == ''
    fuser = Fuser(some_map(), [Fusion(True, 'start', np.eye(4))])
    monkeypatch.setattr(map_keeper, 'Mapper', lambda *_: fuser)
    keeper.clear(0)
    keeper.add(Stamped(5), Stamped(5), 100)
    keeper.folder.write_text('a file where the folder should be')
    with pytest.raises(ValueError, match='cannot make the folder'):
        keeper.save('kitchen')
    assert 'cannot make the folder' in keeper.kept.save_error
    keeper.folder.unlink()
    keeper.save('kitchen')
    assert keeper.kept.save_error == ''
