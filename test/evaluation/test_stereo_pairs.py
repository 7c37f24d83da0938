"""Evaluation on labelled stereo pairs: the numbers by hand, wrong labels, and the labels for development."""

import importlib.util
import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.labelled_pairs import HEIGHT, WIDTH, write_labels

from gsemsplat_ros.evaluation.stereo_pairs import evaluate_stereo, read_labels
from gsemsplat_ros.gaussians.render import Rendering
from gsemsplat_ros.images.view import fit
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.semantics.answer import Answer

LABELS = Path(__file__).parents[1] / 'data' / 'stereo_labels.json'


class FakePipeline:
    """Scenes of the given depth (8, 16) m; answers {text: (peak pixel, found)}."""

    def __init__(self, depth=2.0, answers=None):
        self.depth, self.answers, self.pairs = depth, answers or {}, []

    def build(self, pair):
        self.pairs.append(pair)
        view, window = fit(pair.first, WIDTH, HEIGHT)
        camera = view.camera.resized(WIDTH // 2, HEIGHT // 2)
        depth = torch.from_numpy(np.broadcast_to(np.float32(self.depth), (8, 16)).copy())
        rendering = Rendering(torch.zeros(8, 16, 3), depth, torch.ones(8, 16), torch.zeros(8, 16, 32))
        keyframe = Keyframe(camera, rendering, None, pair.first.image, window, 'camera', 0)
        return Scene(None, keyframe, None, 1.0, 'stereo baseline', 0, 0, {})

    def query(self, scene, text):
        peak, found = self.answers[text]
        return Answer(text, 0.5, found, 0.7, None, peak, (), 1)


def test_words(tmp_path):
    answers = {
        'chair': ((12.0, 2.0), False),
        'door': ((15.9, 8.0), True),
        'lamp': (None, False),
        'bed': ((0.0, 0.0), True),
        'sink': ((0.0, 0.0), False),
        'tree': ((0.0, 0.0), False),
    }
    pipeline = FakePipeline(answers=answers)
    result = evaluate_stereo(pipeline, write_labels(tmp_path))
    assert result['localisation_accuracy'] == pytest.approx(1 / 3)  # the chair: at a corner, not found
    assert result['found_rate'] == pytest.approx(1 / 3)
    assert result['false_alarm_rate'] == pytest.approx(1 / 3)
    assert result['chance'] == pytest.approx((64 + 256 + 32) / 512 / 3)
    rows = {row['text']: row for row in result['phrases']}
    assert rows['chair'] == {
        'pair': 'a_left.png',
        'text': 'chair',
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
    json.dumps(result, allow_nan=False)


def test_depth(tmp_path):
    answers = dict.fromkeys(('chair', 'door', 'lamp', 'bed', 'sink', 'tree'), ((0.0, 0.0), False))
    depth = np.where(np.arange(16) < 8, 3.0, 6.0) * np.ones((8, 1))  # three times too far
    depth[0:2, :8] = 1.5  # 16 pixels half too far
    depth[2, :8] = np.nan  # 8 not rendered
    result = evaluate_stereo(FakePipeline(depth, answers), write_labels(tmp_path))
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

    result = evaluate_stereo(FakePipeline(), write_labels(tmp_path, bare))
    assert result['pairs'] == 1 and result['phrases'] == result['depths'] == []
    assert result['seconds_pair'] >= 0 and result['branches'] == 'both'
    for key in ('localisation_accuracy', 'false_alarm_rate', 'chance', 'abs_rel_metric', 'abs_rel_aligned'):
        assert result[key] is None, key


def wrong(*keys, value=None):
    """A change of the labels: the value at `keys`, removed when None."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        if value is None:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    'change, words',
    [
        (wrong('pairs'), 'pairs is missing'),
        (wrong('pairs', value=[]), r'pairs is \[\]: wanted at least one pair'),
        (wrong('pairs', value='a'), r'pairs is "a": wanted a list'),
        (wrong('pairs', 1, value=3), r'pairs\[1\] is 3: wanted an object'),
        (wrong('pairs', 1, 'left'), r'pairs\[1\].left is missing'),
        (wrong('pairs', 1, 'left', value='no.png'), r'pairs\[1\].left: no image at .*no.png'),
        (wrong('pairs', 1, 'right', value='labels.json'), r'pairs\[1\].right: .*cannot be read as an image'),
        (wrong('pairs', 0, 'calibration', 'cy'), r'pairs\[0\].calibration.cy is missing'),
        (
            wrong('pairs', 0, 'calibration', 'fx', value='2'),
            r'calibration.fx is "2": wanted a positive number',
        ),
        (wrong('pairs', 0, 'calibration', 'baseline', value=-1), r'calibration.baseline is -1: wanted a'),
        (wrong('pairs', 0, 'calibration', 'cx', value=math.nan), r'calibration.cx is NaN: wanted a number'),
        (wrong('pairs', 0, 'calibration', 'cx', value=True), r'calibration.cx is true: wanted a number'),
        (wrong('pairs', 0, 'disparity', value='no.npz'), r'pairs\[0\].disparity: no disparity at .*no.npz'),
        (wrong('pairs', 0, 'disparity', value='a_left.png'), r'\[0\].disparity: .*cannot be read as an .npz'),
        (wrong('pairs', 0, 'disparity', value='small.npz'), r'is "small.npz": wanted an array of \(16, 32\)'),
        (wrong('pairs', 0, 'disparity', value='text.npz'), r'disparity: .*its first array is <U1 \(1,\)'),
        (
            wrong('pairs', 0, 'disparity', value='array.npy'),
            r'pairs\[0\].disparity: .*cannot be read as an .npz',
        ),
        (
            wrong('pairs', 0, 'objects', 1, 'text', value=' '),
            r's\[0\].objects\[1\].text is " ": wanted words',
        ),
        (wrong('pairs', 0, 'objects', 0, 'text', value='x' * 201), r'\[0\].text is "x+\.\.\.: wanted words'),
        (wrong('pairs', 0, 'objects', 0, 'box'), r'pairs\[0\].objects\[0\].box is missing'),
        (
            wrong('pairs', 0, 'objects', 0, 'box', value=[4, 2, 12]),
            r'\[0\].box is \[4, 2, 12\]: wanted \[x0, y0',
        ),
        (
            wrong('pairs', 0, 'objects', 0, 'box', value=[12, 2, 4, 10]),
            r'box is \[12, 2, 4, 10\]: wanted \[x0',
        ),
        (wrong('pairs', 0, 'objects', 0, 'box', value=[4, 2, 33, 10]), r'inside the 32 x 16 image'),
        (
            wrong('pairs', 0, 'objects', 0, 'box', value=[4, 2, 'a', 9]),
            r'\[0\].box\[2\] is "a": wanted a number',
        ),
        (wrong('pairs', 1, 'absent', 0, value=7), r'pairs\[1\].absent\[0\] is 7: wanted words'),
    ],
)
def test_wrong_labels(tmp_path, change, words):
    np.savez(tmp_path / 'small.npz', np.ones((HEIGHT, WIDTH - 1)))
    np.savez(tmp_path / 'text.npz', np.array(['a']))
    np.save(tmp_path / 'array.npy', np.ones((HEIGHT, WIDTH)))
    path = write_labels(tmp_path, change)
    with pytest.raises(ValueError, match=words) as caught:
        read_labels(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_sizes_that_differ(tmp_path):
    path = write_labels(tmp_path)
    cv2.imwrite(str(tmp_path / 'b_right.png'), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    with pytest.raises(ValueError, match=r'pairs\[1\].right is "b_right.png": .* 32 x 16, got 33 x 16'):
        read_labels(path)


@pytest.mark.parametrize(
    'content, words',
    [
        (None, 'no labels at'),
        (b'[]', 'the content is'),
        (b'{"pairs": [', 'cannot be read as JSON'),
        (b'\xff\xfe\x00', 'cannot be read as JSON'),
    ],
)
def test_no_labels(tmp_path, content, words):
    path = tmp_path / 'labels.json'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_labels(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_unreadable_labels(tmp_path):
    with pytest.raises(ValueError, match='cannot be read as JSON'):
        read_labels(tmp_path)


@pytest.fixture
def development_labels(tmp_path):
    """The labels made by eye, beside the images of the package `stereodemo`, which is not imported."""
    [package] = importlib.util.find_spec('stereodemo').submodule_search_locations
    for pair in json.loads(LABELS.read_text())['pairs']:
        for side in ('left', 'right'):
            shutil.copy(Path(package) / 'datasets' / 'oak-d' / pair[side], tmp_path)
    return Path(shutil.copy(LABELS, tmp_path))


def test_development_labels(development_labels):
    [package] = importlib.util.find_spec('stereodemo').submodule_search_locations
    oak = json.loads((Path(package) / 'datasets' / 'oak-d' / 'stereodemo_calibration.json').read_text())
    pairs = read_labels(development_labels)
    assert [pair.name for pair in pairs] == [
        f'{name}_left.png' for name in ('bedroom_chair', 'desk', 'kid_bedroom', 'living_room')
    ]
    for pair in pairs:
        camera = pair.pair.first.camera
        assert [camera.fx, camera.fy, camera.cx, camera.cy] == [oak['fx'], oak['fy'], oak['cx0'], oak['cy']]
        assert pair.pair.baseline_m == oak['baseline_meters']
        assert 3 <= len(pair.objects) <= 5 and len(pair.absent) == 3
        assert not {text for text, _ in pair.objects} & set(pair.absent)
        # the cameras see nothing beyond column 611: what stands there repeats it
        for text, (x0, y0, x1, y1) in pair.objects:
            assert x1 <= 611 and (x1 - x0) * (y1 - y0) < 640 * 480 / 2, text


@pytest.mark.heavy
def test_shipped_checkpoint_on_real_pairs(development_labels):
    content = json.loads(development_labels.read_text())
    content['pairs'] = content['pairs'][:2]
    left = content['pairs'][0]['left']
    np.savez(development_labels.parent / 'plane.npz', np.full((480, 640), 20.0))
    content['pairs'][0]['disparity'] = 'plane.npz'
    development_labels.write_text(json.dumps(content))
    result = evaluate_stereo(Pipeline.load(device='cpu'), development_labels)
    assert result['pairs'] == 2 and len(result['phrases']) == 14 and result['depths'][0]['pair'] == left
    for key in ('localisation_accuracy', 'found_rate', 'false_alarm_rate', 'chance', 'delta1', 'coverage'):
        assert 0 <= result[key] <= 1, key
    assert result['chance'] == pytest.approx(0.158, abs=0.02)
    assert result['abs_rel_aligned'] > 0 and result['abs_rel_metric'] > 0
    json.dumps(result, allow_nan=False)


def test_principal_points_may_differ(tmp_path):
    """Middlebury's doffs: depth = fx * baseline / (disparity + doffs), and the pipeline is told."""

    def shift(content):
        content['pairs'][0]['calibration']['doffs'] = 4.0

    labelled = read_labels(write_labels(tmp_path, shift))[0]
    assert labelled.pair.second.camera.cx == 19.5 and labelled.pair.first.camera.cx == 15.5
    assert labelled.depth[0, 0] == pytest.approx(0.5) and labelled.depth[0, 20] == pytest.approx(20 * 0.2 / 6)
    assert np.isnan(labelled.depth[10, 30])
