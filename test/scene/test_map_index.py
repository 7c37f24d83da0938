"""Words over the whole map, and beside its growth."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.plain_mixture import plain_mixture, plain_place
from support.walked_room import WALK, look, seen
from support.word_maps import HERE, cloud, scene_cloud, worded_map

from gsemsplat_ros.scene.fusion import Mapper
from gsemsplat_ros.scene.map import Map, unchanged_rows
from gsemsplat_ros.scene.map_index import IndexCache, MapIndex
from gsemsplat_ros.semantics.answer import Question
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import Mixture, relevancy_of_features


def test_the_whole_map_answers_in_its_frame(pipeline):
    map_, centers, score = worded_map(pipeline)
    index = pipeline.index(map_)
    answer = pipeline.query(index, Question(' chair ', 0.5 * score))
    assert answer.text == 'chair' and answer.found and len(answer.objects) == 2
    assert answer.score == pytest.approx(score, abs=2e-3) and answer.relevancy.shape == (len(map_),)
    found = sorted(item.center for item in answer.objects)
    np.testing.assert_allclose(found, centers, atol=0.05)
    np.testing.assert_allclose(answer.objects[0].size, [0.36] * 3, atol=0.06)
    assert np.linalg.norm(centers - answer.peak_point, axis=1).min() < 0.4
    assert len(pipeline.query(index, Question('chair', 0.5 * score, max_objects=1)).objects) == 1
    refused = pipeline.query(index, Question('chair', 0.9999))
    assert answer.peak_pixel is None and answer.picture is None
    assert (answer.relevancy[answer.lit] >= 0.5 * score).all() and answer.lit.any() and not refused.lit.any()
    assert not refused.found and refused.objects == () and refused.score == pytest.approx(answer.score)
    unread = pipeline.query(index, '椅子')
    assert (
        unread.state == 'not understood' and unread.relevancy.shape == (len(map_),) and not unread.lit.any()
    )


def test_relevancy_of_a_gaussian_is_that_of_its_code():
    """Against features built in full, Gaussian by Gaussian, in float32."""
    torch.manual_seed(0)
    decoders = Decoders.small((16, 24, 40)).eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    phrases, canonical = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (rng.normal(size=(k, 40)).astype(np.float32) for k in (3, 4))
    )
    map_ = Map.empty('map', 0.05).merged(scene_cloud(0), HERE, 10**6)
    words = MapIndex.prepare(map_, decoders, canonical)
    features = torch.stack(decoders.decode(map_.gaussians.codes[:, None]))
    expected = relevancy_of_features(features, torch.from_numpy(phrases), torch.from_numpy(canonical))[..., 0]
    got = words.relevancy(phrases)
    assert got.shape == (2, 3, len(map_))
    np.testing.assert_allclose(got, words.smooth(expected), atol=1e-3)  # half precision of what is kept
    cells = [tuple(cell) for cell in np.floor(map_.gaussians.means.double().numpy() / 0.25).astype(int)]
    values, opacities = got[0, 0].numpy(), map_.gaussians.opacities.numpy()
    smoothed = words.smooth(torch.from_numpy(values)[None])[0]
    for i in range(0, len(map_), 97):
        mine = [j for j, cell in enumerate(cells) if cell == cells[i]]
        assert words.support[i] == len(mine)
        mean = np.average(values[mine], weights=opacities[mine])
        assert smoothed[i].item() == pytest.approx((values[i] + mean) / 2, abs=1e-5)


def test_a_mixture_in_a_map_takes_its_peak_where_several_gaussians_agree():
    """In a direct sum of a sentence's space and class scores: relevancy as in a picture, from smoothed
    contrasts, Gaussian by Gaussian. A stray, alone in its cell, has no say in whether the phrase is there."""
    torch.manual_seed(0)
    region, context = (torch.nn.Conv2d(16, 12, 1), torch.nn.Conv2d(20, 6, 1))
    mixture = Mixture(context=0.3, slope=4.0, offset=-0.5, threshold=0.6)
    decoders = Decoders(torch.nn.Sequential(region), torch.nn.Sequential(context), mixture)
    decoders = decoders.eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    phrases, canonical = rng.normal(size=(2, 18)).astype(np.float32), np.zeros((1, 18), np.float32)
    phrases[:, :12] /= np.linalg.norm(phrases[:, :12], axis=1, keepdims=True)
    canonical[0, 0] = 1
    together = rng.uniform((0, 0, 0), (1, 0.5, 0.25), (400, 3))
    alone = np.array([[9.0, 9.0, 9.0], [9.0, 5.0, 9.0]])
    gaussians = cloud(np.concatenate((together, alone)), channels=36)
    codes = gaussians.codes.clone()
    loud = context.weight[:, :, 0, 0].T @ torch.from_numpy(phrases[:, 12:]).sum(0)
    codes[-2:, 16:] = 20 * loud  # both phrases stand out in the strays
    gaussians = replace(gaussians, codes=codes, opacities=torch.ones(402))
    map_ = Map.empty('map', 0.05).merged(gaussians, HERE, 10**6)
    index = MapIndex.prepare(map_, decoders, canonical)
    few = index.support < 3
    assert 0 < few.sum() < 20
    got = index.relevancy(phrases)
    assert got.shape == (1, 2, len(map_))
    sentences, scores = decoders.decode(map_.gaussians.codes[:, None])
    sentences = torch.nn.functional.normalize(sentences[:, 0], dim=1).numpy()
    contrasts = np.stack(
        (
            phrases[:, :12] @ sentences.T - canonical[:, :12] @ sentences.T,
            phrases[:, 12:] @ scores[:, 0].numpy().T,
        )
    )
    smoothed = index.smooth(torch.from_numpy(contrasts)).numpy()
    place = plain_place(*smoothed.astype(np.float64), mixture)
    assert (place[:, few].max(1) > place[:, ~few].max(1)).all()
    expected = plain_mixture(smoothed, mixture, ~few)
    np.testing.assert_allclose(got[0], expected, atol=3e-3)  # half precision of what is kept
    for k in range(2):
        score = 1 / (1 + np.exp(-(4 * place[k, ~few].max() - 0.5)))
        assert got[0, k].max().item() == pytest.approx(score, abs=2e-3)


def test_only_what_changed_is_decoded_again(pipeline):
    map_, _, _ = worded_map(pipeline)
    words = MapIndex.prepare(map_, pipeline.decoders, pipeline.canonical)
    corner = scene_cloud(3, 500, side=0.3)
    grown = map_.merged(replace(corner, codes=corner.codes * 3), HERE, 10**6)
    rows = unchanged_rows(grown, map_)
    kept = rows >= 0
    assert 0 < (~kept).sum() <= 500 and torch.equal(
        grown.gaussians.codes[kept], map_.gaussians.codes[rows[kept]]
    )
    phrase = pipeline.text_encoder.encode(['chair', 'door'])
    fresh = MapIndex.prepare(grown, pipeline.decoders, pipeline.canonical)
    reused = MapIndex.prepare(grown, pipeline.decoders, pipeline.canonical, words)
    torch.testing.assert_close(reused.relevancy(phrase), fresh.relevancy(phrase), atol=1e-5, rtol=0)
    again = MapIndex.prepare(map_, pipeline.decoders, pipeline.canonical, words)  # nothing changed
    assert torch.equal(again.relevancy(phrase), words.relevancy(phrase))


def test_the_index_of_the_map_asked_last_is_kept_and_grows():
    made = []

    def index(map_, before):
        made.append((map_, before))
        return SimpleNamespace(map=map_)

    first, second = Map.empty('map', 0.05), Map.empty('map', 0.05)
    indexes = IndexCache(index)
    kept = indexes.of(first)
    assert indexes.of(first) is kept and indexes.of(second).map is second
    assert made == [(first, None), (second, kept)]


def test_an_empty_map_finds_nothing_and_bad_questions_say_why(pipeline):
    empty = pipeline.index(Map.empty('map', 0.05))
    answer = pipeline.query(empty, 'chair')
    assert not answer.found and answer.score == 0 and answer.objects == () and answer.peak_point is None
    for text in ('', 'a' * 300):
        with pytest.raises(ValueError):
            pipeline.query(empty, text)
    lonely = Map.empty('map', 0.05).merged(scene_cloud(0, 5, side=50), HERE, 10)
    assert (
        len(lonely) and not pipeline.query(pipeline.index(lonely), Question('chair', 0.01)).found
    )  # strays are no thing


def test_decoders_that_look_at_neighbours_cannot_read_gaussians():
    state = {f'language_decoder_{head}.0.weight': torch.rand(8, 16, 3, 3) for head in ('sam', 'patch')}
    with pytest.raises(ValueError, match='neighbouring pixels'):
        MapIndex.prepare(
            Map.empty('map', 0.05), Decoders.from_state_dict(state), np.eye(8, dtype=np.float32)[:4]
        )


def test_questions_run_beside_fusion(pipeline):
    map_, _, score = worded_map(pipeline)
    mapper = Mapper(map_, 50_000)
    indexes, question, errors = IndexCache(pipeline.index), Question('chair', 0.5 * score), []
    expected = pipeline.query(indexes.of(map_), question)

    def ask():
        try:
            for _ in range(5):
                answer = pipeline.query(indexes.of(mapper.map), question)
                assert answer.found and len(answer.objects) == len(expected.objects)
        except BaseException as error:  # a thread's error must fail the test
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for k in range(1, 4):
        scene, pair = seen(WALK[k], WALK[k - 1], stamps=(k, k - 1), given=look(100, 0, 0))
        codes = map_.gaussians.codes[:1].repeat(len(scene.gaussians), 1)
        assert mapper.add(replace(scene, gaussians=replace(scene.gaussians, codes=codes)), pair).fused
    for thread in threads:
        thread.join(60)
    assert not errors and mapper.map.scenes == map_.scenes + 3
