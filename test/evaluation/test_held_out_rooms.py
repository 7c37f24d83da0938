"""Evaluation in rooms: the numbers by hand, with a pipeline that answers what the test wants."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.evaluated_rooms import (
    FOCAL,
    HEIGHT,
    WIDTH,
    FakePipeline,
    K,
    flat_gaussians,
    make_sample,
    moved,
    turn_y,
)
from support.plain_mixture import plain_mixture

from gsemsplat_ros.evaluation import metrics
from gsemsplat_ros.evaluation.held_out_rooms import absent_names, evaluate_rooms
from gsemsplat_ros.evaluation.phrasings import read_phrasings
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import Mixture
from gsemsplat_ros.training.textspace import read_synonyms


def first_pair():
    view = View(np.zeros((HEIGHT, WIDTH, 3), np.uint8), Camera.from_K(K, WIDTH, HEIGHT))
    return Pair(view, view)


def test_depth_metrics():
    truth = np.array([[2.0, 2, 2, 4], [0, np.nan, 2, 4]])
    depth = np.array([[3.0, 3, 3, 4], [5, 5, np.nan, 6]])  # ratios 1.5, 1.5, 1.5, 1, 1.5 where both known
    assert metrics.abs_rel(depth, truth) == pytest.approx(4 * 0.5 / 5)
    assert metrics.delta1(depth, truth) == pytest.approx(1 / 5)
    assert metrics.median_scale(depth, truth) == pytest.approx(1 / 1.5)
    assert metrics.abs_rel(depth * metrics.median_scale(depth, truth), truth) == pytest.approx((1 / 3) / 5)
    assert math.isnan(metrics.abs_rel(depth, np.zeros((2, 4))))


def test_best_constant_is_the_minimum():
    truth = np.random.default_rng(0).uniform(0.5, 6, (9, 7))
    truth[0] = 0  # nothing there
    least = min(np.mean(np.abs(c - truth[1:]) / truth[1:]) for c in np.linspace(0.5, 6, 2000))
    best = metrics.best_constant(truth)
    assert metrics.abs_rel(np.full_like(truth, best), truth) <= least + 1e-12
    assert metrics.best_constant(np.array([1.0, 1, 4])) == 1.0


@pytest.mark.parametrize('degrees', [0.0, 1e-3, 37.0, 90.0, 180.0])
def test_rotation_and_direction(degrees):
    other = turn_y(-20) @ moved(1, 2, 3)
    assert metrics.rotation_error_deg(other @ turn_y(degrees), other) == pytest.approx(degrees, abs=1e-6)
    direction = moved(*(turn_y(degrees)[:3, :3] @ [0, 0, 5.0]))
    assert metrics.direction_error_deg(direction, moved(0, 0, 0.1)) == pytest.approx(degrees, abs=1e-6)
    assert math.isnan(metrics.direction_error_deg(moved(), moved(1)))


def test_psnr_and_iou():
    mask = np.array([[True, True], [True, False]])
    picture, truth = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    truth[0, 0] = 0.3, 0, 0  # mean square error 0.09 / 9
    truth[1, 1] = 1  # not seen
    assert metrics.psnr(picture, truth, mask) == pytest.approx(20.0)
    assert metrics.psnr(truth, truth, mask) == pytest.approx(100.0)
    assert metrics.iou(mask, np.array([[False, True], [False, True]])) == pytest.approx(1 / 4)
    assert metrics.random_iou(0.5, 2) == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    drawn, true = rng.integers(4, size=200_000), rng.random(200_000) < 0.3
    assert metrics.random_iou(0.3, 4) == pytest.approx(metrics.iou(drawn == 0, true), abs=0.005)


def test_mean_and_bootstrap():
    assert metrics.mean([[1.0, 3.0], [], [np.nan, 8.0]]) == pytest.approx(4.0)
    assert metrics.mean([[], [np.nan]]) is None
    assert metrics.bootstrap_interval([[1.0], [np.nan]]) is None
    assert metrics.bootstrap_interval([[2.0], [2.0, 2.0]]) == (2.0, 2.0)
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = metrics.bootstrap_interval([[v] for v in values], seed=3)
    assert (low, high) == metrics.bootstrap_interval([[v] for v in values], seed=3)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.05)
    # ten copies in a group say no more than one
    assert metrics.bootstrap_interval([[v] * 10 for v in values], seed=3) == pytest.approx((low, high))


def test_nearest_at_the_keyframe():
    keyframe = FakePipeline().build(first_pair()).keyframe
    columns = np.broadcast_to(np.arange(WIDTH), (HEIGHT, WIDTH))
    picked = metrics.at_keyframe(keyframe, columns)
    assert picked.shape == (8, 16)
    assert np.abs(picked[3] - (2 * np.arange(16) + 0.5)).max() == 0.5


def test_depth_of_both_kinds():
    truth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    truth[:, 24:] = 4
    sample = make_sample()
    sample.depth[0] = truth
    depth = np.where(np.arange(16) < 12, 2.0, 4.0) * np.where(np.arange(8)[:, None] < 6, 1.5, 1.0)
    stereo = replace(sample, stereo=True)
    pipeline = FakePipeline(depth)
    result = evaluate_rooms(pipeline, [sample, stereo, replace(sample, depth=sample.depth * 1.5)])
    # first and second: three quarters of the pixels 50 % too far; third: a quarter a third too near
    assert result['stereo_abs_rel'] == pytest.approx(0.375)
    assert result['free_abs_rel'] == pytest.approx((0.375 + 0.25 / 3) / 2)
    assert result['abs_rel'] == pytest.approx((2 * 0.375 + 0.25 / 3) / 3)
    assert result['abs_rel_aligned'] == pytest.approx(0.25 / 3)
    assert result['delta1'] == pytest.approx((0.25 + 0.25 + 0.75) / 3)
    assert result['coverage'] == 1.0
    assert result['constant_depth_abs_rel'] == pytest.approx(0.25 * 0.5)
    # one constant for all: 2 m (weights 1 / truth: 96 px of 2 m count most); the third image has 3 m and 6 m
    assert result['constant_depth_abs_rel_global'] == pytest.approx((2 * 0.125 + 0.75 / 3 + 0.25 * 2 / 3) / 3)
    assert (result['pairs'], result['stereo_pairs']) == (3, 1)
    assert [pair.baseline_m for pair in pipeline.pairs] == [None, pytest.approx(0.2), None]
    camera = Camera.from_K(K, WIDTH, HEIGHT)
    assert all(pair.first.camera == pair.second.camera == camera for pair in pipeline.pairs)
    low, high = result['intervals']['abs_rel']
    assert 0.25 / 3 - 1e-9 <= low < result['abs_rel'] < high <= 0.375 + 1e-9


def test_what_was_not_rendered_does_not_count():
    depth = np.full((8, 16), 3.0)
    depth[:, 8:] = np.nan
    result = evaluate_rooms(FakePipeline(depth), [make_sample()])
    assert result['abs_rel'] == pytest.approx(0.5) and result['coverage'] == pytest.approx(0.5)
    nothing = evaluate_rooms(FakePipeline(np.nan), [make_sample()])
    assert nothing['abs_rel'] is None and nothing['coverage'] == 0.0


def test_pose_of_free_pairs():
    second = moved(0, 0, 1.0) @ turn_y(30)
    wrong = moved(0, 0.5, 0) @ turn_y(40)
    samples = [make_sample(second=second), make_sample(stereo=True)]
    result = evaluate_rooms(FakePipeline(pose=wrong), samples)
    assert result['rotation_deg'] == pytest.approx(10) and result['direction_deg'] == pytest.approx(90)
    assert result['pose_found_rate'] == 1.0
    lost = evaluate_rooms(FakePipeline(), samples)
    assert lost['rotation_deg'] is None and lost['pose_found_rate'] == 0.0


def test_what_the_context_views_see():
    sample = make_sample(second=moved(0.2), target=moved(1.0))  # a wall at 2 m: 1 m is 8 px, 0.8 m 6.4 px
    seen = sample.target_seen()
    assert (seen == (np.arange(WIDTH) <= 25)).all()
    sample.depth[1] = 0  # the second view sees nothing
    assert (sample.target_seen() == (np.arange(WIDTH) <= 23)).all()
    sample.depth[0][:, 10:12] = 1.0  # something near in view 1
    hidden = np.isin(np.arange(WIDTH), [2, 3])
    assert (sample.target_seen() == ((np.arange(WIDTH) <= 23) & ~hidden)).all()
    sample.depth[2][:4] = 0  # and nothing is there to be seen
    assert not sample.target_seen()[:4].any()


def test_psnr_of_an_empty_picture():
    result = evaluate_rooms(FakePipeline(), [make_sample()])
    assert result['psnr'] == pytest.approx(-10 * math.log10(0.04))  # black against 51 / 255 = 0.2
    assert result['constant_colour_psnr'] == pytest.approx(100)


def test_psnr_is_of_the_scene_in_true_scale():
    """A red and green wall, predicted at half its distance: its edge is in place from the third pose."""
    ys, xs = np.meshgrid(np.arange(-0.8, 0.8, 0.02), np.arange(-1.6, 1.6, 0.02), indexing='ij')
    means = np.stack([xs, ys, np.ones_like(xs)], -1).reshape(-1, 3)
    colors = np.where(means[:, :1] < 0, [[1.0, 0, 0]], [[0, 1.0, 0]])
    sample = make_sample(target=moved(0.5))
    sample.images[:] = 0
    edge = 15.5 - FOCAL * 0.5 / 2  # of x = 0 at 2 m, seen from 0.5 m to its right
    columns = np.arange(WIDTH)
    sample.images[2, :, columns < edge] = 255, 0, 0
    sample.images[2, :, columns > edge] = 0, 255, 0
    wall = flat_gaussians(means, colors, scale=0.01, opacity=0.95)
    aligned, off = (evaluate_rooms(FakePipeline(depth, wall), [sample])['psnr'] for depth in (1.0, 2.0))
    assert aligned > 20
    assert off == pytest.approx(-10 * math.log10(4 / 28 * 2 / 3), abs=1)  # 4 of 28 columns, red for green


def words_sample():
    """Left half: two chairs; right half: wall, with one pixel of a cup."""
    sample = make_sample(names=('void', 'wall', 'chair', 'cup', 'chair'))
    sample.instance[:, :8, :16] = 2
    sample.instance[:, 8:, :16] = 4
    sample.instance[:, 0, 30] = 3
    return sample


def test_words():
    columns = np.broadcast_to(np.arange(16), (8, 16))
    chair = np.where(columns < 4, 1.0, 0.1).astype(np.float32)  # half of the chairs
    wall = np.where(columns == 14, 0.45, 0.4).astype(np.float32)  # the peak is right, but not found
    other = make_sample(names=('void', 'bed', 'office chair', 'lamp'))
    other.instance[:, :, 10:] = 2
    other.instance[:, :, 20:] = 3
    nothing = np.full((8, 16), np.nan, np.float32)
    pipeline = FakePipeline(
        answers={
            'chair': (chair, True),
            'wall': (wall, False),
            'lamp': (nothing, False),
            'office chair': (np.where(columns == 2, 0.9, 0.2), True),
            'bed': (np.where(columns < 5, 0.9, 0.2), True),
        }
    )
    result = evaluate_rooms(pipeline, [words_sample(), other])
    first = pipeline.texts[:4]
    assert first[:2] == ['chair', 'wall'] and set(first[2:]) == {'bed', 'lamp'}  # no cup, no office chair
    assert pipeline.texts[4:7] == ['bed', 'lamp', 'office chair']
    assert set(pipeline.texts[7:]) == {'wall', 'cup'}
    # localised: chair, wall, bed; the office chair's peak lies on the bed, the lamp's nowhere
    assert result['localisation_accuracy'] == pytest.approx(3 / 5)
    assert result['found_rate'] == pytest.approx(3 / 5)  # chair, bed, office chair
    assert result['miou'] == pytest.approx((0.5 + 0 + 1 + 0 + 0) / 5)
    assert result['false_alarm_rate'] == pytest.approx(1 / 4)  # the bed in the first room
    assert result['random_localisation'] == pytest.approx((64 + 63 + 40 + 40 + 48) / 128 / 5)
    chance = [metrics.random_iou(p / 127, 2) for p in (64, 63)]
    chance += [metrics.random_iou(p / 128, 3) for p in (40, 40, 48)]
    assert result['random_label_miou'] == pytest.approx(np.mean(chance))
    # argmax: chair 32 of 64, wall 63 of 63 + 32; the other room: bed wins or ties, and comes first: 40 of 128
    assert result['miou_argmax'] == pytest.approx((32 / 64 + 63 / 95 + 40 / 128 + 0 + 0) / 5)
    rows = {row['text']: row for row in result['by_name']}
    assert rows['chair'] == {'text': 'chair', 'count': 1, 'localised': 1.0, 'iou': 0.5, 'found': 1.0}
    assert rows['lamp'] == {'text': 'lamp', 'count': 1, 'localised': 0.0, 'iou': 0.0, 'found': 0.0}


def test_an_office_chair_is_a_chair_and_taught_words_are_counted_apart():
    columns = np.broadcast_to(np.arange(16), (8, 16))
    sample = make_sample(names=('void', 'chair', 'office chair'))
    sample.instance[:, :, :16] = 1
    sample.instance[:, :, 16:] = 2
    pipeline = FakePipeline(
        answers={
            'chair': (np.where(columns < 15, 0.9, 0.2), True),  # nearly everywhere
            'office chair': (np.where(columns < 8, 0.9, 0.2), True),
        }
    )  # on the other one
    result = evaluate_rooms(pipeline, [sample], taught=frozenset({'chair'}))
    assert (result['taught_localisation'], result['new_localisation']) == (1, 0)
    assert result['new_miou'] == 0 and result['taught_miou'] > 0
    assert result['random_localisation'] == pytest.approx((1 + 0.5) / 2)


def test_phrasings_mean_one_of_several_things():
    columns = np.broadcast_to(np.arange(16), (8, 16))
    sample = make_sample(names=('void', 'office chair', 'burlap sofa', 'wall'))
    sample.instance[:, :, :8] = 1
    sample.instance[:, :, 8:16] = 2
    sample.instance[:, :, 16:] = 3
    nouns = {'office chair': 'chair', 'burlap sofa': 'sofa', 'wall': 'wall'}
    right = {
        text: (np.where(columns == (12 if 'wall' in meant else 5), 0.9, 0.2), True)  # column 5: the sofa
        for text, meant in read_phrasings().items()
    }
    result = evaluate_rooms(FakePipeline(answers=right), [sample], nouns=nouns)
    assert result['phrasing_found_rate'] == 1
    asked = [meant for meant in read_phrasings().values() if meant & set(nouns.values())]
    hits = [bool(meant & {'wall'}) or 'sofa' in meant for meant in asked]
    assert 0 < sum(hits) < len(hits)
    assert result['phrasing_localisation'] == pytest.approx(np.mean(hits))
    shares = {'chair': 1 / 4, 'sofa': 1 / 4, 'wall': 1 / 2}
    assert result['random_phrasing'] == pytest.approx(
        np.mean([sum(shares.get(n, 0) for n in meant) for meant in asked])
    )
    assert evaluate_rooms(FakePipeline(), [sample])['phrasing_localisation'] is None


def test_phrasings_are_new_to_the_training():
    taught = {phrase for noun, phrases in read_synonyms().items() for phrase in (noun, *phrases)}
    assert len(read_phrasings()) >= 50 and not taught & set(read_phrasings())


def test_absent_names_are_seeded_and_share_no_word():
    free = {'bed', 'sofa', 'desk', 'lamp', 'sink', 'car', 'toaster'}
    vocabulary = sorted({'cup', 'wall', 'wall clock', "child's chair"} | free)

    def draw(seed):
        return absent_names(words_sample(), vocabulary, np.random.default_rng(seed))

    assert draw(0) == draw(0) and len(draw(0)) == 5
    assert {name for seed in range(40) for name in draw(seed)} == free


def test_one_branch_alone():
    torch.manual_seed(0)
    decoders = Decoders.small().eval()
    canonical = torch.nn.functional.normalize(torch.randn(4, 384), dim=1)
    hidden = decoders.prepare(torch.randn(8, 16, 32), canonical)
    phrase = torch.nn.functional.normalize(torch.randn(1, 384), dim=1)
    scene = FakePipeline().build(first_pair())
    scene = replace(scene, keyframe=replace(scene.keyframe, hidden_codes=hidden))
    whole = hidden.relevancy(phrase)
    assert metrics.only_branch(scene, 'both') is scene
    for head, name in enumerate(('region', 'context')):
        alone = metrics.only_branch(scene, name).keyframe.hidden_codes.relevancy(phrase)
        assert torch.equal(alone[head], whole[head]) and (alone[1 - head] == 0).all()
    mixture = Mixture(context=0.2, slope=4.0, offset=-0.5, threshold=0.6)
    keyframe = replace(scene.keyframe, hidden_codes=replace(hidden, mixture=mixture))
    for head, name in enumerate(('region', 'context')):
        alone = metrics.only_branch(replace(scene, keyframe=keyframe), name).keyframe.hidden_codes
        contrasts = torch.zeros(2, 1, 8, 16)
        contrasts[head] = torch.logit(whole[head]) / 10
        expected = plain_mixture(contrasts, mixture)
        np.testing.assert_allclose(alone.relevancy(phrase)[0], expected, atol=1e-4)
    with pytest.raises(ValueError, match="branches 'sam': wanted one of both, region, context"):
        metrics.only_branch(scene, 'sam')


def test_no_samples():
    with pytest.raises(ValueError, match='no room'):
        evaluate_rooms(FakePipeline(), iter([]))


class Speaker(FakePipeline):
    """Answers 'cup' with a contrast of 0.3 and everything else with that of the word's length: 0.01 a
    letter.
    """

    decoders = Decoders.small((16, 8, 12))

    def build(self, pair):
        scene = super().build(pair)
        hidden = self.decoders.prepare(torch.zeros(8, 16, 32), np.eye(12, dtype=np.float32)[:4])
        return replace(scene, keyframe=replace(scene.keyframe, hidden_codes=hidden))

    def query(self, scene, text):
        assert scene.keyframe.hidden_codes.mixture.margin == 0  # the border is what is looked for
        contrast = 0.3 if text == 'cup' else 0.01 * len(text)
        answer = super().query(scene, text)
        return replace(answer, score=1 / (1 + math.exp(-10 * contrast)))
