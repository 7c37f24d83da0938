"""Evaluation on labelled pairs: every measure by hand."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from support.evaluated_rooms import moved, turn_y
from support.labelled_pairs import HEIGHT, WIDTH, copy_development_labels, write_labels

from gsemsplat_ros.evaluation.labelled_pairs import MEASURES, PEERS, evaluate_pairs
from gsemsplat_ros.gaussians.render import Rendering
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import fit
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.semantics.answer import Answer

CORNER = (0.0, 0.0)
GUESS = 20 * math.exp(-0.25)  # focal length of images given without it [px]; it is 20


class FakePipeline:
    """Scenes of the given depth (8, 16) m and poses, one after the other; answers {text: (peak pixel, found)}
    with the scores {text: score}, 0.7 where not given.
    """

    def __init__(self, depth=2.0, answers=None, poses=(), scores=None):
        self.depth, self.answers, self.pairs = depth, answers or {}, []
        self.poses, self.scores = list(poses), scores or {}

    def build(self, pair):
        self.pairs.append(pair)
        view, window = fit(pair.first, WIDTH, HEIGHT)
        camera = (view.camera or Camera.centred(WIDTH, HEIGHT, GUESS)).resized(WIDTH // 2, HEIGHT // 2)
        depth = torch.from_numpy(np.broadcast_to(np.float32(self.depth), (8, 16)).copy())
        rendering = Rendering(torch.zeros(8, 16, 3), depth, torch.ones(8, 16), torch.zeros(8, 16, 32))
        keyframe = Keyframe(camera, rendering, None, pair.first.image, window, 'camera', 0)
        pose = self.poses.pop(0) if self.poses else None
        return Scene(None, keyframe, pose, 1.0, 'stereo baseline', 0, 0, {})

    def query(self, scene, text):
        peak, found = self.answers[text]
        return Answer(text, 0.5, found, self.scores.get(text, 0.7), None, peak, (), 1)


def test_words(tmp_path):
    answers = {
        'chair': ((12.0, 2.0), False),
        'door': ((15.9, 8.0), True),
        'lamp': (None, False),
        'bed': (CORNER, True),
        'sink': (CORNER, False),
        'tree': (CORNER, False),
    }
    pipeline = FakePipeline(answers=answers)
    result = evaluate_pairs(pipeline, write_labels(tmp_path))
    assert result['localisation_accuracy'] == pytest.approx(1 / 3)  # the chair: at a corner, not found
    assert result['found_rate'] == pytest.approx(1 / 3)
    assert result['found_and_right'] == 0.0  # found is the door, and not in its box
    assert result['false_alarm_rate'] == pytest.approx(1 / 3)
    assert result['chance'] == pytest.approx((64 + 256 + 32) / 512 / 3)
    rows = {row['text']: row for row in result['phrases']}
    assert rows['chair'] == {
        'pair': 'a_left.png',
        'text': 'chair',
        'note': '',
        'present': True,
        'found': False,
        'score': 0.7,
        'head': 1,
        'peak_pixel': [12.0, 2.0],
        'localised': True,
    }
    assert rows['lamp']['peak_pixel'] is None and not rows['lamp']['localised']
    assert not rows['door']['localised']
    assert rows['tree']['present'] is False and 'localised' not in rows['tree']
    assert result['pairs'] == 2 and result['intervals']['localisation_accuracy'] == pytest.approx((0.0, 0.5))
    pair = pipeline.pairs[0]
    assert pair.baseline_m == 0.2 and (pair.first.camera.fx, pair.first.camera.fy) == (20, 21)
    assert pair.first.camera == pair.second.camera
    assert {*MEASURES, *PEERS} <= set(result) and set(result['intervals']) == {*MEASURES, *PEERS}
    json.dumps(result, allow_nan=False)


def test_any_box_is_right(tmp_path):
    def two(content):
        content['pairs'] = content['pairs'][1:]
        content['pairs'][0]['objects'][0]['boxes'] = [[0, 0, 8, 4], [4, 2, 12, 6]]

    result = evaluate_pairs(
        FakePipeline(answers={'lamp': ((11.0, 5.0), True), 'tree': (CORNER, False)}),
        write_labels(tmp_path, two),
    )
    assert result['localisation_accuracy'] == result['found_and_right'] == 1.0
    assert result['chance'] == pytest.approx((32 + 32 - 8) / 512)


def test_presence(tmp_path):
    texts = ('chair', 'door', 'lamp', 'bed', 'sink', 'tree')
    scores = dict(zip(texts, (0.95, 0.55, 0.25, 0.25, 0.35, 0.05)))
    result = evaluate_pairs(
        FakePipeline(answers=dict.fromkeys(texts, (CORNER, False)), scores=scores), write_labels(tmp_path)
    )
    # above bed, sink, tree: chair 3, door 3, lamp 1.5
    assert result['presence_auc'] == pytest.approx(7.5 / 9)
    # lamp and bed share a bin
    assert result['calibration_error'] == pytest.approx((0.05 + 0.45 + 2 * 0.25 + 0.35 + 0.05) / 6)
    # pairs drawn: a alone 1, b alone 1, both 7.5 / 9
    assert result['intervals']['presence_auc'] == pytest.approx((7.5 / 9, 1.0))


def free(content):
    """Four pairs of free views, three with a motion of 0.2 m along x."""
    bare = {'first': 'b_left.png', 'second': 'b_right.png', 'camera': content['pairs'][1]['camera']}
    motion = moved(-0.2).tolist()
    content['pairs'] = [dict(bare, second_from_first=motion) for _ in range(3)] + [bare]


def test_poses(tmp_path):
    poses = [moved(0.4) @ turn_y(4), None, moved(0.1, 0.1) @ turn_y(-8), moved(1.0)]
    result = evaluate_pairs(FakePipeline(poses=poses), write_labels(tmp_path, free))
    assert result['pose_found_rate'] == pytest.approx(2 / 3)
    assert result['pose_within_10deg'] == pytest.approx(
        1 / 3
    )  # the third looks the right way, but went 45 deg off
    assert result['rotation_deg'] == pytest.approx(6)
    assert result['direction_deg'] == pytest.approx(22.5)
    assert (result['worst_rotation_deg'], result['worst_direction_deg']) == pytest.approx((8, 45))
    assert result['scale_error'] == pytest.approx((math.log(2) + math.log(2) / 2) / 2)
    low, high = result['intervals']['rotation_deg']
    assert (low, high) == pytest.approx((4, 8))
    assert [row['found'] for row in result['poses']] == [True, False, True]
    assert result['poses'][0]['scale_ratio'] == pytest.approx(2)
    assert result['poses'][1]['rotation_deg'] is None
    json.dumps(result, allow_nan=False)


def test_turning_on_the_spot_has_no_direction(tmp_path):
    def spot(content):
        free(content)
        content['pairs'] = [dict(content['pairs'][0], second_from_first=turn_y(5).tolist())]

    result = evaluate_pairs(FakePipeline(poses=[moved(0.1) @ turn_y(-5)]), write_labels(tmp_path, spot))
    assert result['pose_within_10deg'] == 1 and result['rotation_deg'] == pytest.approx(0, abs=1e-6)
    assert result['direction_deg'] is result['scale_error'] is None


def test_a_given_motion_is_not_scored(tmp_path):
    def bare(content):
        for pair in content['pairs']:
            del pair['objects'], pair['absent']

    path = write_labels(tmp_path, bare)
    result = evaluate_pairs(FakePipeline(poses=[moved(0.2), moved(0.2)]), path)
    assert result['pose_found_rate'] is result['focal_error'] is None and result['poses'] == []
    pipeline = FakePipeline(poses=[moved(0.2), moved(0.3)])
    result = evaluate_pairs(pipeline, path, calibrated=False)
    assert result['pose_within_10deg'] == 1 and result['scale_error'] == pytest.approx(math.log(1.5) / 2)
    assert result['calibrated'] is False
    assert result['focal_error'] == pytest.approx(0.25)
    for pair in pipeline.pairs:
        assert pair.first.camera is pair.second.camera is pair.baseline_m is None


def test_depth(tmp_path):
    answers = dict.fromkeys(('chair', 'door', 'lamp', 'bed', 'sink', 'tree'), (CORNER, False))
    depth = np.where(np.arange(16) < 8, 3.0, 6.0) * np.ones((8, 1))  # three times too far
    depth[0:2, :8] = 1.5  # 16 pixels half too far
    depth[2, :8] = np.nan  # 8 not rendered
    result = evaluate_pairs(FakePipeline(depth, answers), write_labels(tmp_path))
    # known and rendered: 16 + 40 on the left, 32 + 8 on the right (2 m)
    assert result['abs_rel_metric'] == pytest.approx((16 * 0.5 + 80 * 2) / 96)
    assert result['abs_rel_aligned'] == pytest.approx(16 * 0.5 / 96)
    assert result['delta1'] == 0.0
    assert result['coverage'] == pytest.approx(96 / 104)
    assert len(result['depths']) == 1 and result['depths'][0]['pair'] == 'a_left.png'
    assert result['depths'][0]['abs_rel_metric'] == pytest.approx(result['abs_rel_metric'])
    assert result['depths'][0]['scale_source'] == 'stereo baseline'


def test_nothing_to_count(tmp_path):
    def bare(content):
        content['pairs'] = [{k: v for k, v in content['pairs'][1].items() if k not in ('objects', 'absent')}]
        content['pairs'][0]['disparity'] = None

    result = evaluate_pairs(FakePipeline(), write_labels(tmp_path, bare))
    assert result['pairs'] == 1 and result['phrases'] == result['depths'] == []
    assert result['seconds_pair'] >= 0 and result['branches'] == 'both'
    for key in ('localisation_accuracy', 'false_alarm_rate', 'chance', 'abs_rel_metric', 'abs_rel_aligned'):
        assert result[key] is None, key


class FakeClassifier:
    """Says where a phrase is, and its score, in the order of the phrases."""

    def __init__(self, peaks):
        self.answers = peaks

    def peaks(self, image, phrases):
        return [self.answers[phrase] for phrase in phrases]


def test_the_classifier_is_asked_the_same(tmp_path):
    texts = ('chair', 'door', 'lamp', 'bed', 'sink', 'tree')
    pixels = ((5.0, 5.0), (5.0, 5.0), (8.0, 4.0), CORNER, CORNER, CORNER)
    peaks = {text: (score, pixel) for text, score, pixel in zip(texts, (9.0, 2, 3, 2, 1, 1), pixels)}
    pipeline = FakePipeline(answers=dict.fromkeys(texts, (CORNER, False)))
    result = evaluate_pairs(pipeline, write_labels(tmp_path), classifier=FakeClassifier(peaks))
    assert result['classifier_localisation'] == pytest.approx(2 / 3)
    assert result['classifier_presence_auc'] == pytest.approx((3 + 2.5 + 3) / 9)
    assert result['presence_auc'] == 0.5
    rows = {row['text']: row for row in result['phrases']}
    assert rows['chair']['classifier_localised'] and not rows['door']['classifier_localised']
    assert rows['tree']['classifier_score'] == 1 and 'classifier_localised' not in rows['tree']
    without = evaluate_pairs(pipeline, write_labels(tmp_path))
    assert without['classifier_localisation'] is without['classifier_presence_auc'] is None


@pytest.mark.heavy
def test_shipped_checkpoint_on_real_pairs(tmp_path):
    development_labels = copy_development_labels(tmp_path)
    content = json.loads(development_labels.read_text())
    content['pairs'] = content['pairs'][:2]
    left = content['pairs'][0]['first']
    np.savez(development_labels.parent / 'plane.npz', np.full((480, 640), 20.0))
    content['pairs'][0]['disparity'] = 'plane.npz'
    development_labels.write_text(json.dumps(content))
    result = evaluate_pairs(Pipeline.load(device='cpu'), development_labels)
    assert result['pairs'] == 2 and len(result['phrases']) == 14 and result['depths'][0]['pair'] == left
    for key in ('localisation_accuracy', 'found_rate', 'false_alarm_rate', 'chance', 'delta1', 'coverage'):
        assert 0 <= result[key] <= 1, key
    assert result['chance'] == pytest.approx(0.158, abs=0.02)
    assert result['abs_rel_aligned'] > 0 and result['abs_rel_metric'] > 0
    json.dumps(result, allow_nan=False)


def test_the_focal_length_of_a_file_counts_where_there_is_no_camera(tmp_path):
    """As in `infer`; with a camera, and without calibration, it stays beside the image."""
    free_pair = {'first': 'a.jpg', 'second': 'b.jpg'}
    exif = Image.Exif()
    tags = {'FocalLengthIn35mmFilm': 36, 'ExifImageWidth': WIDTH, 'ExifImageHeight': HEIGHT}
    exif.get_ifd(ExifTags.IFD.Exif).update({int(ExifTags.Base[tag]): value for tag, value in tags.items()})
    path = write_labels(tmp_path, lambda labels: labels['pairs'].__setitem__(slice(None), [free_pair]))
    for name in ('first', 'second'):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / free_pair[name], exif=exif)
    pipeline = FakePipeline()
    evaluate_pairs(pipeline, path, calibrated=False)
    expected = 36 / math.hypot(36, 24) * math.hypot(WIDTH, HEIGHT)
    views = [view for pair in pipeline.pairs for view in (pair.first, pair.second)]
    assert [view.exif_focal for view in views] == [pytest.approx(expected)] * 2
    assert all(view.camera is None for view in views)
