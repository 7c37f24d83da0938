"""Words over the whole map, and beside its growth."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.plain_map import PlainMap
from support.plain_mixture import plain_mixture, plain_place
from support.walked_room import WALK, look, seen
from support.word_maps import HERE, cloud, scene_cloud, worded_map

from gsemsplat_ros.evaluation.boxes import boxes_of
from gsemsplat_ros.mapping import ask_map
from gsemsplat_ros.mapping.decoded_codes import DecodedCells, DecodedStore, Decoding
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_index import IndexCache, MapIndex
from gsemsplat_ros.mapping.voxels import voxel_cells
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


def test_boxes_are_of_what_three_scenes_have_shown(pipeline):
    once, centers, score = worded_map(pipeline)
    seen, eye, asked = once.gaussians, np.array([2, 1.5, 1.5]), Question('chair', 0.5 * score)
    thing = (seen.means[:, 2] > 0.1) & (seen.means[:, 0] < 2)
    smeared = seen.select(thing)
    # an error of depth: the first thing again, four times, ever farther along x
    smeared = [replace(smeared, means=smeared.means + torch.tensor([0.2 * k, 0, 0])) for k in range(1, 5)]

    def longest(map_):
        objects = pipeline.query(pipeline.index(map_), asked).objects
        (near,) = [thing for thing in objects if abs(thing.center[1] - centers[0][1]) < 0.3]
        return near.size[0]

    wrong = once
    for part in smeared:
        wrong = wrong.merged(part, eye, 10**6)
    assert longest(wrong) > 0.7  # of nothing else is there more
    often = once.merged(seen, eye, 10**6).merged(seen, eye, 10**6)
    for part in smeared:
        often = often.merged(part, eye, 10**6)
    assert longest(often) == pytest.approx(0.36, abs=0.12)


def made_of(map_, decoders, canonical):
    """The index of a map and its plain twin."""
    return MapIndex.prepare(map_, decoders, canonical), PlainMap(map_, decoders, canonical)


def test_with_each_gaussian_compared_the_answer_is_that_of_the_plain_twin():
    """And relevancy is that of features built in full, Gaussian by Gaussian."""
    torch.manual_seed(0)
    decoders = Decoders.small((16, 24, 40)).eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    phrases, canonical = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (rng.normal(size=(k, 40)).astype(np.float32) for k in (3, 4))
    )
    map_ = Map.empty('map', 0.05).merged(scene_cloud(0), HERE, 10**6)
    index, plain = made_of(map_, decoders, canonical)
    features = torch.stack(decoders.decode(map_.gaussians.codes[:, None]))
    expected = relevancy_of_features(features, torch.from_numpy(phrases), torch.from_numpy(canonical))[..., 0]
    np.testing.assert_allclose(plain.relevancy(phrases), plain.smooth(expected), atol=1e-5)
    cells = [tuple(key) for key in in_cells(map_)]
    values, opacities = expected[0, 0].numpy(), map_.gaussians.opacities.numpy()
    smoothed = plain.smooth(torch.from_numpy(values)[None])[0]
    for i in range(0, len(map_), 97):
        mine = [j for j, cell in enumerate(cells) if cell == cells[i]]
        assert plain.support[i] == len(mine)
        mean = np.average(values[mine], weights=opacities[mine])
        assert smoothed[i].item() == pytest.approx((values[i] + mean) / 2, abs=1e-5)
    for phrase in phrases[:, None]:
        agree(ask_map.ask_map(index, ASKED, phrase), plain.answer(ASKED, phrase))


def in_cells(map_):
    """(N, 6): tile, and the cell of five voxels in it, along each axis."""
    voxels = voxel_cells(map_.keys.numpy())
    return np.concatenate((voxels // 64, voxels % 64 // 5), 1)


ASKED = Question('chair', 0.01)


def agree(got, wanted, atol=1e-5):
    assert np.array_equal(got.gaussians.lit_rows, np.flatnonzero(got.lit))
    assert got.found == wanted.found and got.branch == wanted.branch
    assert got.score == pytest.approx(wanted.score, abs=atol)
    np.testing.assert_allclose(got.relevancy, wanted.relevancy, atol=atol)
    near = np.abs(wanted.relevancy - np.nanmin(wanted.relevancy[wanted.lit], initial=2)) < 2 * atol
    assert (got.lit == wanted.lit)[~near].all()
    np.testing.assert_allclose(boxes_of(got.objects), boxes_of(wanted.objects), atol=1e-4)


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
    index, plain = made_of(map_, decoders, canonical)
    few = plain.support < 3
    assert 0 < few.sum() < 20
    sentences, scores = decoders.decode(map_.gaussians.codes[:, None])
    sentences = torch.nn.functional.normalize(sentences[:, 0], dim=1).numpy()
    contrasts = np.stack(
        (
            phrases[:, :12] @ sentences.T - canonical[:, :12] @ sentences.T,
            phrases[:, 12:] @ scores[:, 0].numpy().T,
        )
    )
    smoothed = plain.smooth(torch.from_numpy(contrasts)).numpy()
    place = plain_place(*smoothed.astype(np.float64), mixture)
    assert (place[:, few].max(1) > place[:, ~few].max(1)).all()
    expected = plain_mixture(smoothed, mixture, ~few)
    np.testing.assert_allclose(plain.relevancy(phrases)[0], expected, atol=1e-4)
    for k in range(2):
        answer = ask_map.ask_map(index, ASKED, phrases[k : k + 1])
        agree(answer, plain.answer(ASKED, phrases[k : k + 1]))
        score = 1 / (1 + np.exp(-(4 * place[k, ~few].max() - 0.5)))
        assert answer.score == pytest.approx(score, abs=1e-4) and np.isnan(answer.relevancy[few]).all()


@pytest.mark.parametrize('first, most, many', [(300, 1000, 10**6), (300, 600, 1000)])
def test_where_few_gaussians_are_compared_the_answer_is_nearly_that_of_all(
    monkeypatch, pipeline, first, most, many
):
    """The numbers of a large map, in a small one: what is not compared has the relevancy of its cell."""
    monkeypatch.setattr(ask_map, 'FIRST', first)
    monkeypatch.setattr(ask_map, 'MOST', most)
    monkeypatch.setattr(ask_map, 'MANY', many)
    map_, _, score = worded_map(pipeline)
    index, plain = made_of(map_, pipeline.decoders, pipeline.canonical)
    phrase, asked = pipeline.text_encoder.encode(['chair']), Question('chair', 0.5 * score)
    got, wanted = ask_map.ask_map(index, asked, phrase), plain.answer(asked, phrase)
    assert got.found and got.score == pytest.approx(wanted.score, abs=1e-3)
    assert np.array_equal(got.gaussians.lit_rows, np.flatnonzero(got.lit))
    assert (got.lit & wanted.lit).sum() > 0.9 * (got.lit | wanted.lit).sum()
    assert np.isnan(got.relevancy).tolist() == np.isnan(wanted.relevancy).tolist()
    found, true = (np.sort(boxes_of(answer.objects), 0) for answer in (got, wanted))
    np.testing.assert_allclose(found, true, atol=0.15)  # a cell
    refused = ask_map.ask_map(index, replace(asked, threshold=0.9999), phrase)
    assert not refused.found and not refused.lit.any() and np.isfinite(refused.relevancy).any()


def test_only_tiles_that_changed_are_decoded_again(monkeypatch, pipeline):
    map_, _, score = worded_map(pipeline)
    index = MapIndex.prepare(map_, pipeline.decoders, pipeline.canonical)
    phrase, asked = pipeline.text_encoder.encode(['chair']), Question('chair', 0.5 * score)
    before = ask_map.ask_map(index, asked, phrase)
    corner = scene_cloud(3, 500, side=0.3)
    grown = map_.merged(replace(corner, codes=corner.codes * 3), HERE, 10**6)
    counted = []
    prepare = pipeline.decoders.prepare
    monkeypatch.setattr(
        pipeline.decoders,
        'prepare',
        lambda codes, canonical: (counted.append(len(codes)), prepare(codes, canonical))[1],
    )
    again = MapIndex.prepare(map_, pipeline.decoders, pipeline.canonical, index)  # nothing changed
    assert sum(counted) == 0
    same = ask_map.ask_map(again, asked, phrase)
    assert sum(counted) == 0 and np.array_equal(same.relevancy, before.relevancy, equal_nan=True)
    reused = MapIndex.prepare(grown, pipeline.decoders, pipeline.canonical, index)
    changed = [key for key, tile in grown.tiles.items() if tile is not map_.tiles.get(key)]
    cells = sum(len(place.cells) for place in reused.places if place.tile in map(grown.tiles.get, changed))
    assert 0 < len(changed) < len(grown.tiles) and sum(counted) == cells
    fresh = MapIndex.prepare(grown, pipeline.decoders, pipeline.canonical)
    agree(ask_map.ask_map(reused, asked, phrase), ask_map.ask_map(fresh, asked, phrase))
    agree(ask_map.ask_map(index, asked, phrase), before)  # the old map's still answers


def test_decoded_codes_are_kept_while_there_is_room(pipeline):
    """A store of 400 codes, from which two indexes of one map take turns."""
    map_, _, _ = worded_map(pipeline)
    decoding = Decoding(pipeline.decoders, pipeline.canonical)
    counts = np.array([100, 200, 150, 300])
    codes = map_.gaussians.codes[: counts.sum()].split(counts.tolist())
    store, asked = DecodedStore(400, decoding), []

    def of(cells):
        asked.append(cells.tolist())
        return torch.cat([codes[cell] for cell in cells])

    phrase = pipeline.text_encoder.encode(['chair'])
    one, other = DecodedCells(store, counts), DecodedCells(store, counts)
    for cells, user, decoded in (
        ([0, 1], one, [[0, 1]]),
        ([1], one, []),
        ([1], other, [[1]]),  # fills the rest, as 100 + 200 + 200 > 400: begins anew
        ([0, 1], one, [[0, 1]]),
        ([0, 2, 3], one, [[0, 2, 3]]),  # more than it was made for
        ([1], other, [[1]]),
    ):
        asked.clear()
        found = user.contrasts(np.array(cells), of, phrase)[:, 0]
        assert asked == decoded, cells
        wanted = pipeline.decoders.prepare(
            torch.cat([codes[cell] for cell in cells])[:, None], pipeline.canonical
        ).contrasts(phrase)[:, 0, :, 0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


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
