"""Scene files and GLBs, and words asked on the live page of a real pair: as the pipeline answers them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gsemsplat_ros.datasets.demo_pairs import load_scene
from gsemsplat_ros.formats.writers import write
from gsemsplat_ros.live import file_source
from gsemsplat_ros.live.shared_state import SharedState
from gsemsplat_ros.mapping.fusion import START
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import save_map
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.saved import open_saved
from gsemsplat_ros.scene import scene_file as scenefile
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.semantics.members import members_of

WORDS = 'desk', 'office chair', 'bathtub'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A pipeline, a real pair, its scene, and folders with its scene file and its map."""
    try:
        pair = load_scene('desk').pair
    except ValueError as error:
        pytest.skip(str(error))
    pipeline = Pipeline.load(device='cpu')
    scene = pipeline.build(pair)
    folder = tmp_path_factory.mktemp('desk')
    scenefile.save_scene(folder / 'scene.safetensors', scene, pair.second.image, pipeline.code_space)
    placed = scene.gaussians.transformed(START, 'odom')
    map_ = Map.empty('odom', 0.03).merged(placed, START[:3, 3], 10**6, scene.scale_source)
    save_map(folder / 'map.safetensors', map_, pipeline.code_space)
    return pipeline, pair, scene, map_, folder


def test_a_scene_file_answers_as_the_pair_did(made):
    pipeline, pair, scene, _, folder = made
    again, second = scenefile.load_scene(
        folder / 'scene.safetensors', pipeline.code_space, pipeline.decoders, pipeline.canonical
    )
    assert (again.keyframe.camera, again.keyframe.window) == (scene.keyframe.camera, scene.keyframe.window)
    assert (again.scale_source, again.scale) == (scene.scale_source, scene.scale)
    assert (again.focal_source, again.focal_spread) == (scene.focal_source, scene.focal_spread)
    assert (
        np.abs(second.astype(int) - pair.second.image).mean() < 3 and second.shape == pair.second.image.shape
    )
    assert np.allclose(again.first_from_second, scene.first_from_second)
    for text in WORDS:
        before, after = pipeline.query(scene, text), pipeline.query(again, text)
        assert after.found == before.found and after.score == pytest.approx(before.score, abs=0.01)
        assert len(after.objects) == len(before.objects)
        for a, b in zip(after.objects[:1], before.objects):
            assert np.allclose(a.center, b.center, atol=0.05)


def test_the_page_of_a_scene_answers_as_the_pipeline(made):
    pipeline, _, scene, _, folder = made
    shared = SharedState()
    rest = file_source.open_any(folder / 'scene.safetensors', shared, 50_000, lambda: pipeline)
    shown = shared.state.shown
    assert (
        len(shown.rows) == 50_000
        and shown.unit == 'm'
        and [seen.name for seen in shown.cameras] == ['first camera', 'second camera']
    )
    assert shown.cameras[0].fov == pytest.approx(
        2 * np.arctan(scene.keyframe.camera.height / 2 / scene.keyframe.camera.fy)
    )
    with pytest.raises(ValueError, match='loading'):
        shared.ask('desk')
    rest()
    answer, wanted = shared.ask('desk'), pipeline.query(scene, 'desk')
    assert answer.answer.found and answer.answer.score == pytest.approx(wanted.score, abs=0.01)
    known = np.isfinite(answer.relevancy)
    assert (
        known.mean() > 0.3 and answer.relevancy[answer.lit].min() >= 0.5 and 0.001 < answer.lit.mean() < 0.5
    )
    # what lights up is mostly in the boxes, and never where the phrase is not
    boxes = np.zeros(len(shown.rows), bool)
    for thing in answer.answer.objects:
        boxes |= (np.abs(shown.means - np.array(thing.center)) <= 0.5 * np.array(thing.size) + 0.15).all(1)
    assert boxes[answer.lit].mean() > 0.8
    assert not shared.ask('bathtub').lit.any() and not shared.ask('desk', 0.95).answer.found
    meant = shared.state.semantic_colors(shown)
    assert meant.shape == (50_000, 3) and meant.min() >= 0 and meant.max() <= 1 and meant.std(0).min() > 0.02


def test_the_page_of_a_map_answers_as_the_pipeline(made):
    pipeline, _, _, map_, folder = made
    shared = SharedState()
    file_source.open_any(folder / 'map.safetensors', shared, 10**6, lambda: pipeline)()
    answer, wanted = shared.ask('desk'), pipeline.query(pipeline.index(map_), 'desk')
    assert answer.answer.found and answer.answer.score == pytest.approx(wanted.score, abs=0.02)
    assert answer.shown.frame == 'odom' and answer.relevancy.shape == answer.lit.shape == (len(map_),)
    assert answer.relevancy[answer.lit].min() >= 0.5 and answer.lit.any()


@pytest.mark.parametrize('kind', ['scene', 'map'])
def test_a_glb_answers_as_what_was_exported(made, tmp_path, kind):
    pipeline, _, scene, map_, folder = made
    saved = open_saved(folder / f'{kind}.safetensors')
    write(tmp_path / 'a.glb', saved.splats)
    shared = SharedState()
    rest = file_source.open_any(tmp_path / 'a.glb', shared, 10**6, lambda: pipeline)
    assert shared.state.shown.frame == saved.splats.parts[0].frame and shared.state.shown.unit == 'm'
    assert len(shared.state.shown.cameras) == (kind == 'scene')
    rest()
    target = scene if kind == 'scene' else pipeline.index(map_)
    for text in WORDS:
        got, wanted = shared.ask(text).answer, pipeline.query(target, text)
        assert got.found == wanted.found and got.score == pytest.approx(wanted.score, abs=0.01)
        either = np.count_nonzero(got.lit | wanted.lit)
        assert np.count_nonzero(got.lit & wanted.lit) >= 0.9 * either


@pytest.mark.heavy
@pytest.mark.parametrize('kind', ['scene', 'map'])
def test_an_object_and_the_rest(made, tmp_path, kind):
    pipeline, _, scene, map_, folder = made
    saved = open_saved(folder / f'{kind}.safetensors')
    target = scene if kind == 'scene' else pipeline.index(map_)
    means = np.concatenate([part.means.numpy() for part in saved.splats.parts])
    members = members_of(pipeline.query(target, 'office chair'), means)
    write(tmp_path / 'chair.glb', saved.splats.select(members))
    write(tmp_path / 'rest.glb', saved.splats.select(~members))
    chair, others = (open_saved(tmp_path / name) for name in ('chair.glb', 'rest.glb'))
    assert 500 < len(chair.splats) < 0.4 * len(means) and len(others.splats) == len(means) - len(chair.splats)
    assert pipeline.query(chair.target(pipeline), 'office chair').found
    left = pipeline.query(others.target(pipeline), 'office chair').lit
    assert np.count_nonzero(left) < 0.2 * len(chair.splats)


def test_files_of_other_decoders_are_shown_but_not_asked(made, tmp_path):
    pipeline, pair, scene, map_, _ = made
    other = CodeSpace('other.safetensors', 'other text', 'other decoders', 32)
    scenefile.save_scene(tmp_path / 'scene.safetensors', scene, pair.second.image, other)
    save_map(tmp_path / 'map.safetensors', map_, other)
    for name in ('scene', 'map'):
        shared = SharedState()
        rest = file_source.open_any(tmp_path / f'{name}.safetensors', shared, 1000, lambda: pipeline)
        assert shared.state.shown is not None
        with pytest.raises(ValueError, match='other.safetensors .*--weights'):
            rest()


def test_damaged_scenes_are_refused_in_one_line(made, tmp_path):
    whole = made[4] / 'scene.safetensors'
    data = whole.read_bytes()
    from safetensors import safe_open

    with safe_open(whole, 'pt') as file:
        card = json.loads(file.metadata()[scenefile.KIND.key])
    tensors = load_file(whole)

    def written(card=card, **changes):
        save_file({**tensors, **changes}, tmp_path / 'x.safetensors', {scenefile.KIND.key: json.dumps(card)})
        return tmp_path / 'x.safetensors'

    (tmp_path / 'half.safetensors').write_bytes(data[: len(data) // 2])
    for make, words in (
        (lambda: tmp_path / 'half.safetensors', 'part of one'),
        (lambda: tmp_path / 'no.safetensors', 'no scene at'),
        (lambda: written(image=torch.zeros(10, dtype=torch.uint8)), 'not those that were saved'),
        (lambda: written(codes=tensors['codes'][:, 0].contiguous()), 'codes is'),
        (lambda: written(codes=tensors['codes'][:, :8].contiguous()), 'not those that were saved'),
        (lambda: written(counts=tensors['counts'][:-80].contiguous()), 'counts, wanted'),
        (lambda: written(counts=tensors['counts'].float()), 'counts is torch.float32'),
        (lambda: written(card={**card, 'counts': [1080, 3]}), 'the sides of its counts'),
        (lambda: written(card={**card, 'counts': 'many'}), 'lacks counts'),
        (lambda: written(card={**card, 'version': 9}), 'version 9'),
        (lambda: written(card={**card, 'frame': 3}), 'lacks frame'),
    ):
        with pytest.raises(ValueError, match=words) as error:
            scenefile.read_scene(make())
        assert '\n' not in str(error.value)


def test_long_thin_pictures_are_made_small_too():
    assert file_source.small(np.zeros((6000, 1, 3), np.uint8)).shape == (512, 1, 3)
    assert file_source.small(np.zeros((1, 6000, 3), np.uint8)).shape == (1, 512, 3)
