"""`eval map`: its numbers by hand, a perfect network in a small house, and the real one."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.evaluated_rooms import flat_gaussians, moved, turn_y
from support.walked_room import look, seen

from gsemsplat_ros.cli import main
from gsemsplat_ros.evaluation import map_houses, map_scores
from gsemsplat_ros.evaluation.map_scores import Followed, Gone, Record
from gsemsplat_ros.evaluation.map_walk import STEP_NS, Keyframe
from gsemsplat_ros.gaussians.render import Rendering
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.mapping.correction import Correction
from gsemsplat_ros.mapping.fusion import Fusion, Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.pose_graph import GraphLink, PoseGraph
from gsemsplat_ros.mapping.voxels import voxel_keys
from gsemsplat_ros.scene.scene import Keyframe as KeyframeOfScene
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.objects import Object

CAMERA = Camera.centred(32, 16, 16.0)
VOXEL = 0.05


def keyframe(depth=3.0, pose=np.eye(4), round_=2, instance=1):
    image = np.zeros((16, 32, 3), np.uint8)
    full = np.full((16, 32), depth, np.float32)
    return Keyframe(0, round_, pose, image, image, full, np.full((16, 32), instance, np.int16))


def map_of(points, source='stereo baseline'):
    """A map of one scene with a Gaussian at each of the points."""
    gaussians = flat_gaussians(points, np.ones((len(points), 3)))
    return Map.empty('camera', VOXEL).merged(gaussians, np.zeros(3), 100, source)


def keys_of(points):
    return voxel_keys(np.asarray(points, np.float32), VOXEL)[0]


PLACES = np.array([[0.0, 0, 1.0], [0.3, 0, 1.0], [-0.3, 0, 1.0], [0, 0.2, 2.95], [9.0, 0, 1.0]]) + 0.01


def gone(scenes=1):
    """What was at all the places until the map had so many scenes."""
    return Gone(keys_of(PLACES), PLACES, scenes, np.zeros(len(PLACES), int))


def test_what_a_view_looks_through():
    through = map_scores.looks_through(keyframe(3.0), CAMERA, PLACES)
    assert through.tolist() == [True, True, True, False, False]  # one is at the surface, one outside
    behind = map_scores.looks_through(keyframe(0.9), CAMERA, PLACES)
    assert not behind.any()


def test_stale_is_told_after_three_views():
    everything = map_of(PLACES)
    old = gone()
    for count in range(1, 6):
        old.look(keyframe(), CAMERA, everything)
        assert old.share == (None if count < 3 else 1.0)  # later views do not count again
    forgetful, forgotten = map_of(PLACES[1:]), gone()
    for _ in range(3):
        forgotten.look(keyframe(), CAMERA, forgetful)
    assert forgotten.share == pytest.approx(2 / 3)
    late = gone()
    for map_ in (everything, everything, map_of(PLACES[1:]), map_of(PLACES[3:])):
        late.look(keyframe(), CAMERA, map_)
    assert late.share == pytest.approx(2 / 3)


def test_what_was_seen_there_anew_is_not_stale():
    old = gone(scenes=0)  # the map's only scene came after they went
    for _ in range(3):
        old.look(keyframe(), CAMERA, map_of(PLACES))
    assert old.share == 0.0


def test_which_gaussians_are_of_what_has_gone():
    keys = keys_of(PLACES)
    rows = [  # the first voxel shows mostly what goes, the second mostly what stays
        Followed(keys[[0, 0, 1]], PLACES[[0, 0, 1]] + 0.1, np.array([7, 7, 7]), np.zeros(3), 1),
        Followed(keys[[0, 1, 1, 2]], PLACES[[0, 1, 1, 2]], np.array([3, 3, 3, 7]), np.zeros(4), 1),
    ]
    old = Gone.of(rows, frozenset({7}), map_of(PLACES[:2]))  # the third voxel is not in the map
    assert old.keys.tolist() == [keys[0]] and old.scenes == 1
    np.testing.assert_allclose(old.places, [PLACES[0] + 0.1])


def test_wrongly_removed():
    record = Record(CAMERA, frozenset({7}))
    assert map_scores.wrongly_removed(record) is None
    keys = keys_of(PLACES)
    instances = np.array([3, 3, 7, 3, 3])
    errors = np.array([0.0, 0.05, 0.0, 0.5, 0.0])  # the fourth was never right
    record.followed = [Followed(keys, PLACES, instances, errors, 1)]
    record.map = map_of(PLACES)
    assert map_scores.wrongly_removed(record) == 0.0
    record.map = map_of(PLACES[[1, 4]])  # places of what stands: 0, 1, 4; what has gone may go
    assert map_scores.wrongly_removed(record) == pytest.approx(1 / 3)
    again = Followed(keys_of(PLACES + 0.2), PLACES, instances, errors, 2)  # seen anew beside it, after drift
    record.followed.append(again)
    record.map = map_of(np.concatenate([PLACES[[1, 4]], PLACES[:1] + 0.2]))
    assert map_scores.wrongly_removed(record) == pytest.approx(
        1 / 4
    )  # the moved one at its new place is lost


def walked(steps, source='stereo baseline', lost=()):
    """A record of a square of 4 m, whose map has the poses `steps` (given the true ones)."""
    true = [moved(*p) @ turn_y(30 * k) for k, p in enumerate([(0, 0), (1, 0), (1, 0, 1), (0, 0, 1), (0, 0)])]
    record = Record(CAMERA, frozenset())
    record.truth, record.rounds, record.scenes = true, [1] * 5, [None] * 5
    record.poses = [None if k in lost else steps(k, pose) for k, pose in enumerate(true)]
    record.map = map_of(PLACES, source)
    return record


def test_drift_is_that_of_the_end(monkeypatch):
    start = moved(3, 2, 1) @ turn_y(70)
    exact = map_scores.drift(walked(lambda k, pose: start @ pose))
    assert exact['drift_m'] == pytest.approx(0, abs=1e-9) and exact['path_error_m'] == pytest.approx(
        0, abs=1e-9
    )
    assert exact['still_error_m'] == pytest.approx((1 + 2**0.5 + 1 + 0) / 4)
    off = map_scores.drift(walked(lambda k, pose: start @ moved(0.1 * k) @ pose))
    assert off['drift_m'] == pytest.approx(0.4) and off['path_error_m'] == pytest.approx(0.25)
    assert off['drift_percent'] == pytest.approx(10)  # of 4 m
    lost = map_scores.drift(walked(lambda k, pose: start @ moved(0.1 * k) @ pose, lost=(3, 4)))
    assert lost['drift_m'] is None and lost['drift_percent'] == pytest.approx(10)  # 0.2 of 2 m
    with monkeypatch.context() as patch:
        patch.setattr(map_scores, 'GAP', 1)
        assert map_scores.drift(walked(lambda k, pose: start @ pose, lost=(2,)))['drift_m'] is not None
        broken = map_scores.drift(walked(lambda k, pose: start @ pose, lost=(2, 3)))
        assert broken['drift_m'] is None and broken['drift_percent'] is not None
    assert set(map_scores.drift(Record(CAMERA, frozenset())).values()) == {None}


def test_poses_and_voxels_follow_a_map_that_moves():
    """Drift before loops are closed is that of the chain, drift after that of the map."""
    true = [moved(), moved(0.5), moved()]
    sigmas = 0.01, 0.01, 0.01
    steps = [GraphLink(0, 1, moved(), 1.0, sigmas)]
    steps += [GraphLink(k, k + 1, moved(x), 1.0, sigmas) for k, x in ((1, 0.6), (2, -0.4))]
    graph = PoseGraph.empty()
    for number, x, link in zip((1, 2, 3), (0, 0.6, 0.2), steps):
        graph = graph.with_scene(number, moved(x), 1.0, number, [link])
    drifted = replace(map_of(PLACES), scenes=3, graph=graph)
    record = Record(CAMERA, frozenset({7}), [*graph.poses], [1, 2, 3], true, [1, 1, 1])
    record.map, record.old = drifted, Gone(keys_of(PLACES), PLACES, 1, np.zeros(5, int))
    nowhere = np.append(keys_of(PLACES), 5)
    record.followed = [Followed(nowhere, PLACES, np.ones(6), np.zeros(6), 1)]
    right = replace(graph, poses=np.array(true) + moved(0, 1) - moved(), links=(*graph.links, steps[2]))
    record._move(Correction.of(drifted, right).moved(drifted))
    np.testing.assert_array_equal(record.poses, right.poses)
    np.testing.assert_array_equal(record.followed[0].keys, [*keys_of(PLACES + (0, 1, 0)), 5])
    np.testing.assert_array_equal(record.old.keys, keys_of(PLACES + (0, 1, 0)))
    record.map = replace(drifted, graph=right)
    scores = map_scores.drift(record)
    assert scores['drift_m'] == pytest.approx(0.2) and scores['drift_closed_m'] == pytest.approx(0)
    assert scores['drift_percent'] == pytest.approx(20) and scores['path_error_m'] == pytest.approx(0)


def test_a_map_without_scale_is_aligned_by_a_similarity():
    def half(k, pose):
        out = moved(3, 2, 1) @ turn_y(70) @ pose
        out[:3, 3] *= 0.5
        return out

    free = walked(half, 'network')
    assert map_scores.drift(free)['drift_m'] == pytest.approx(0, abs=1e-9)
    assert map_scores.world_from_map(free)[0] == pytest.approx(2)
    assert map_scores.drift(walked(half))['path_error_m'] > 0.3


def test_right_and_wrong_places():
    record = walked(lambda k, pose: moved(5) @ pose)
    true = moved(1, 0, 0.9) @ turn_y(40)
    for offset, right in ((moved(), True), (moved(0.2), True), (moved(0.4), False), (turn_y(12), False)):
        assert map_scores.right_pose(record, true, Fusion(True, '', moved(5) @ true @ offset)) is right


@pytest.mark.parametrize(('off', 'wrong'), [(0.0, 0), (1.0, 1)])
def test_a_wrong_place_after_a_lost_link_counts(off, wrong):
    pose = look(2.0, 2.5, 20)
    right = pose.copy()
    right[:3, 3] += 0.12 * pose[:3, 0]
    scene, pair = seen(pose, right, source='stereo baseline', baseline=0.12, given=pose)
    mapper = Mapper(Map.empty('map', VOXEL), 10**6)
    first = mapper.add(scene, pair)
    truth = np.ones((288, 384), np.float32)
    frame = Keyframe(0, 1, pose, pair.first.image, pair.second.image, truth, truth.astype(np.int16))
    record = Record(CAMERA, frozenset())
    lost = [Fusion(False, f'only {count} of {2 * count} depths agree, by -0.{count}') for count in (3, 14)]
    for fusion in (first, *lost, Fusion(True, 'again', moved(off) @ pose)):
        record.add(frame, scene, fusion, mapper.map, 0.1)
    assert record.misplaced == wrong and record.reasons == {'only n of n depths agree, by n': 2}


def test_a_probe_is_told_by_the_first_of_its_scenes_that_is_placed(monkeypatch):
    """The scenes stand for what the mapper says of each: None (left out) or whether its pose is right."""

    class Told:
        def __init__(self, map_, budget):
            pass

        def add(self, scene, pair):
            return Fusion(scene is not None, '', scene)

    monkeypatch.setattr(map_houses, 'Mapper', Told)
    monkeypatch.setattr(map_houses, 'right_pose', lambda record, true, fusion: fusion.map_from_camera)
    told = [(None, True), (True, False), (None, None), (None, False)]  # here, and one elsewhere
    probes = [
        map_houses.Probe(tuple((scene, None, np.eye(4)) for scene in scenes), True, here)
        for scenes, here in [*((scenes, True) for scenes in told), ((None, True), False)]
    ]
    one, other, empty = (
        SimpleNamespace(
            name=name, stereo=stereo, mapper=SimpleNamespace(map=map_), record=SimpleNamespace(misplaced=0)
        )
        for name, stereo, map_ in (('one', True, [0]), ('other', False, [0]), ('empty', True, []))
    )
    nothing = {'relocalised_share': None, 'false_relocalisations': None}
    assert map_houses.relocalised([one, other, empty], iter(probes)) == {
        'one': {'relocalised_share': 0.5, 'false_relocalisations': 2.0},
        'other': nothing,
        'empty': nothing,
    }


def test_a_perfect_scene_is_followed():
    pose = look(2.0, 2.5, 20)
    right = pose.copy()
    right[:3, 3] += 0.12 * pose[:3, 0]
    scene, pair = seen(pose, right, source='stereo baseline', baseline=0.12, given=pose)
    mapper = Mapper(Map.empty('map', VOXEL), 10**6)
    fusion = mapper.add(scene, pair)
    truth = scene.keyframe.rendering.depth.numpy().repeat(4, 0).repeat(4, 1)
    instance = np.ones(truth.shape, np.int16)
    instance[:, :8] = 0
    frame = Keyframe(0, 1, pose, pair.first.image, pair.second.image, truth, instance)
    rows = map_scores.follow(frame, scene, fusion, mapper.map)
    assert len(rows.keys) == 36 * 47 and rows.errors.max() < 1e-5  # every other pixel, without the void
    assert np.isin(rows.keys, mapper.map.keys.numpy()).all()
    at_map = mapper.map.gaussians.means.numpy()[np.searchsorted(mapper.map.keys.numpy(), rows.keys)]
    assert np.abs(at_map - rows.places).max() < VOXEL  # the map is the world here


class KeepsAll:
    """A mapper that takes each given pose and never forgets."""

    def __init__(self, map_, budget):
        self.map, self.budget = map_, budget

    def add(self, scene, pair):
        assert scene.metric == (pair.baseline_m is not None), 'the scene is of another kind of camera'
        pose = pair.first.map_from_camera
        if pose is None:
            return Fusion(False, 'no pose')
        placed = scene.gaussians.transformed(pose, self.map.frame)
        self.map = self.map.merged(placed, pose[:3, 3], self.budget, scene.scale_source)
        return Fusion(True, 'pose given', pose)

    def note(self, asked, answer):
        return answer


class PerfectPipeline:
    """Makes the scene of the truth, which `watched` tells by the stamp, and finds nothing."""

    def __init__(self):
        self.truth = {}

    def watched(self, draw):
        def drawn(walker, number, round_, pose):
            self.truth[number * STEP_NS] = frame = draw(walker, number, round_, pose)
            return frame

        return drawn

    def build(self, pair):
        frame, camera = self.truth[pair.first.stamp_ns], pair.first.camera
        points = camera.unproject(frame.depth).reshape(-1, 3)
        gaussians = flat_gaussians(np.concatenate([points, points]), np.ones((2 * len(points), 3)))
        size = frame.depth.shape
        rendering = Rendering(
            torch.zeros(*size, 3), torch.from_numpy(frame.depth), torch.ones(size), torch.zeros(*size, 32)
        )
        window = Window(size[1], size[0], size[1], size[0], 1.0, 1.0, 0.0, 0.0)
        view = KeyframeOfScene(camera, rendering, None, pair.first.image, window, 'left', pair.first.stamp_ns)
        source = 'stereo baseline' if pair.baseline_m else 'network'
        return Scene(gaussians, view, np.eye(4), 1.0, source, 900, 1000, {})

    def index(self, map_, before=None):
        return map_

    def query(self, index, text):
        return Answer(text, 0.5, False, 0.0, None, None, ())


def test_a_perfect_network_and_given_poses(monkeypatch):
    """Without forgetting all that went is stale and nothing is lost; places are the truth's."""
    pytest.importorskip('moderngl')
    from gsemsplat_ros.evaluation import map_houses, map_walk
    from gsemsplat_ros.rooms.furniture import load_furniture
    from gsemsplat_ros.rooms.renderer import RoomRenderer

    try:
        renderer = RoomRenderer(load_furniture(), 48, 64)
    except ValueError as error:
        pytest.skip(str(error))
    pipeline = PerfectPipeline()
    monkeypatch.setattr(map_houses, 'Mapper', KeepsAll)
    monkeypatch.setattr(map_houses, 'noisy', lambda poses, rng: list(poses))
    monkeypatch.setattr(map_walk.Walker, '_keyframe', pipeline.watched(map_walk.Walker._keyframe))
    walker, elsewhere = map_houses.walkers(renderer, 0)
    ticks = []
    scores = map_houses.evaluate_house(
        pipeline, walker, elsewhere, 24, ('stereo_tf', 'stereo', 'sequential'), tick=lambda: ticks.append(1)
    )
    assert len(ticks) == 24 and list(scores) == ['stereo_tf', 'stereo', 'sequential']
    perfect, nothing = scores['stereo_tf'], scores['stereo']
    assert perfect['drift_m'] < 1e-6 and perfect['path_error_m'] < 1e-6 and perfect['given_error_m'] < 1e-6
    assert perfect['still_error_m'] > 1 and perfect['fused_share'] == 1
    assert perfect['stale_share'] > 0.95 and perfect['wrongly_removed_share'] == 0
    assert perfect['relocalised_share'] == 0 and perfect['false_relocalisations'] == 0
    assert perfect['objects_precision'] is None and perfect['objects_recall'] == 0
    assert nothing['drift_m'] is None and nothing['fused_share'] == 0
    assert nothing['reasons'] == {'no pose': 24}
    result = map_houses.summarise([scores, scores])
    assert result['setting'] == 'stereo_tf' and result['stale_share'] == perfect['stale_share']
    assert result['settings']['stereo_tf']['intervals']['fused_share'] == (1, 1)
    assert result['settings']['stereo']['left_out'] == {'no pose': 48}
    assert {'drift_closed_m', 'id_switches'} <= {why.split(': ')[1] for why in result['not_measured']}


def test_boxes_of_what_stands_are_right():
    """The right box of one of two chairs and a ghost: half are right, and half is found."""
    from gsemsplat_ros.evaluation.map_houses import Setting, objects_found

    record = walked(lambda k, pose: moved(5) @ pose)  # the map lies 5 m aside
    rng = np.random.default_rng(0)
    boxes = np.array([[[0.0, 0, 0], [1, 1, 1]], [[3.0, 0, 0], [4, 1, 2]]])
    points = np.concatenate([rng.uniform(*box, (500, 3)) for box in boxes])
    instances = np.repeat([3, 4], 500)

    house = SimpleNamespace(pieces={3: 'chair', 4: 'office chair', 5: 'sofa'}, taken=frozenset({5}))

    class Pipeline:
        def index(self, map_):
            return map_

        def query(self, index, text):
            chair, ghost = Object((5.5, 0.5, 0.5), (1, 1, 1), 0.9), Object((20, 0, 0), (1, 1, 1), 0.8)
            found = {'chair': (chair, ghost), 'sofa': (ghost,)}.get(text, ())
            return Answer(text, 0.5, bool(found), 0.9, None, None, found)

    setting = Setting('stereo', KeepsAll(record.map, 100), record, None)
    scores = objects_found(Pipeline(), setting, house, points, instances)
    assert scores == {'objects_precision': pytest.approx(1 / 3), 'objects_recall': pytest.approx(1 / 2)}


def test_the_command_needs_two_keyframes_a_round(capsys):
    assert main(['eval', 'map', '--keyframes', '3']) == 2
    assert 'two rounds need at least 4' in capsys.readouterr().err


@pytest.mark.heavy
def test_the_real_pipeline(capsys):
    """The shipped network in one house: each number is in its range or null."""
    pytest.importorskip('moderngl')
    command = ['eval', 'map', '--houses', '1', '--keyframes', '24', '--settings', 'stereo_tf', '--json']
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result['drift_m'] < 0.1 and result['fused_share'] > 0.8
    for name in ('stale_share', 'wrongly_removed_share', 'relocalised_share', 'objects_recall'):
        assert 0 <= result[name] <= 1
    assert result['drift_closed_m'] < 0.1 and result['seconds_keyframe'] > 0
