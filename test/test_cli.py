"""The command line: what it prints where, how it exits, and what `infer` writes."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.cli import COMMANDS, main
from gsemsplat_ros.commands.infer import read_pair
from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import fit
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.saved import open_saved
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.scene.scene_file import read_scene
from gsemsplat_ros.semantics.answer import Answer, AnswerPicture
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.objects import Object
from gsemsplat_ros.terminal.console import Console
from gsemsplat_ros.terminal.json_values import without_nan

needs_ros = pytest.mark.skipif(find_spec('rclpy') is None, reason='rclpy is not installed')

WALL_M = 2.0
BOX = Object(center=(0.5, 0.25, 2.0), size=(0.4, 0.6, 0.2), score=0.875)


class FakePipeline:
    """Every pair is a wall 2 m away in the colours of the first image; a door is found there and nothing
    else.
    """

    decoders = Decoders.small().requires_grad_(False)
    code_space = CodeSpace('fake.safetensors', 'fake', 'of no decoders', 32)
    weights, card = (
        'fake.safetensors',
        {'config': {'name': 'fake'}, 'licence': 'Apache-2.0', 'text_encoder': 'fake'},
    )
    geometry = ''

    def build(self, pair):
        first, window = fit(pair.first, 64, 48)
        camera = (first.camera or Camera(64, 48, 50.0, 50.0, 31.5, 23.5)).resized(32, 24)
        u, v = np.meshgrid(np.arange(32), np.arange(24))
        means = (
            np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1) * WALL_M
        )
        n = 32 * 24
        colors = cv2.resize(first.image, (32, 24), interpolation=cv2.INTER_AREA) / 255
        gaussians = Gaussians(
            torch.tensor(means.reshape(n, 3), dtype=torch.float32),
            torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
            torch.full((n, 3), WALL_M / camera.fx),
            torch.full((n,), 0.9),
            torch.tensor(colors.reshape(n, 3), dtype=torch.float32),
            torch.randn(n, 32, generator=torch.Generator().manual_seed(0)),
            'camera',
        )
        hidden = self.decoders.prepare(torch.zeros(24, 32, 32), np.eye(384, dtype=np.float32)[:4])
        keyframe = Keyframe(camera, None, hidden, pair.first.image, window, 'camera', 0)
        return Scene(
            gaussians,
            keyframe,
            None,
            1.5,
            'stereo baseline' if pair.baseline_m else 'network',
            0,
            0,
            {'predict': 0.25},
        )

    def query(self, scene, text):
        if not text.strip():
            raise ValueError("empty query: ask for a thing, such as 'chair'")
        relevancy = np.full((24, 32), 0.2, np.float32)
        if text == 'door':
            relevancy[6:12, 8:16] = 0.875
            picture = AnswerPicture(relevancy, relevancy > 0.8)
            return Answer(text, 0.5, True, 0.875, BOX.center, (20.0, 17.0), (BOX,), picture=picture)
        picture = AnswerPicture(relevancy, relevancy > 1)
        note = f"not understood: '{text}'" if text == '椅子' else ''
        return Answer(text, 0.5, False, 0.2, None, None, (), 1, picture=picture, note=note)


@pytest.fixture
def pipeline(monkeypatch):
    fake = FakePipeline()
    monkeypatch.setattr(Pipeline, 'load', lambda *args, **kwargs: fake)
    return fake


@pytest.fixture
def images(tmp_path):
    paths = []
    for name, shade in (('left', 60), ('right', 180)):
        picture = np.full((48, 64, 3), shade, np.uint8)
        cv2.imwrite(str(tmp_path / f'{name}.png'), picture)
        paths.append(str(tmp_path / f'{name}.png'))
    return paths


def test_help_imports_nothing_heavy():
    script = (
        'import sys\nfrom gsemsplat_ros.cli import main\nstatus = main(["--help"])\n'
        'print(status, sorted({"torch", "cv2", "rclpy", "numba"} & set(sys.modules)))'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == '0 []'
    assert all(re.search(rf'^ +{name} ', done.stdout, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize(
    'command',
    [[name] for name in COMMANDS]
    + [
        ['weights', 'convert'],
        ['weights', 'info'],
        ['weights', 'parity'],
        ['weights', 'export'],
        ['eval', 'protocol'],
        ['eval', 'rooms'],
        ['eval', 'pairs'],
    ],
    ids=' '.join,
)
def test_every_command_has_help(command, capsys):
    assert main([*command, '--help']) == 0
    assert capsys.readouterr().out.startswith(f'usage: gsemsplat {" ".join(command)} ')


@pytest.mark.parametrize(
    'argv, said',
    [
        (['fly'], "invalid choice: 'fly'"),
        (['--bogus'], 'unrecognized arguments: --bogus'),
        (['infer'], 'the following arguments are required: LEFT, RIGHT, --out'),
        (
            ['infer', 'a', 'b', '--out', 'x', '--json5'],
            'unrecognized arguments: --json5; see `gsemsplat infer --help`',
        ),
        (['infer', 'no.png', 'no.png', '--out', 'x'], 'no image at no.png'),
        (
            ['infer', '{left}', '{right}', '--out', '{tmp}/o', '--calibration', '1', '2', '3'],
            '--calibration has 3 numbers',
        ),
        (
            ['infer', '{left}', '{right}', '--out', '{tmp}/o', '--calibration', '9', '9', '3', 'x'],
            'invalid float value',
        ),
        (
            ['infer', '{left}', '{right}', '--out', '{tmp}/o', '--calibration', '60', '60', '31', '23', '-1'],
            'baseline of -1 m',
        ),
        (['infer', '{left}', '{right}', '--out', '{left}/o'], 'cannot make the folder'),
        (
            ['infer', '{left}', '{right}', '--out', '{tmp}/o', '--weights', 'no.safetensors'],
            'no checkpoint at no.safetensors',
        ),
        (
            ['infer', '{left}', '{right}', '--out', '{tmp}/o', '--geometry', 'no.safetensors'],
            'no file at no.safetensors',
        ),
        (['infer', '{left}', '{right}', '--out', '{tmp}/o', '--video', 'spiral'], "invalid choice: 'spiral'"),
        (['demo', '--scene', 'moon'], "invalid choice: 'moon'"),
        (['weights', 'info', '{left}'], 'is no gsemsplat checkpoint'),
        (['weights', 'convert', 'no.ckpt', '{tmp}/o.safetensors'], 'no.ckpt'),
        (['weights', 'parity', 'no.npz', '--quiet'], 'no parity fixture at no.npz'),
        (['eval', 'protocol', 'no.npz'], 'no such fixture: no.npz'),
        pytest.param(
            ['node', '--mode', 'stereo'],
            'the node takes ROS arguments only, not --mode stereo',
            marks=needs_ros,
        ),
        (['query', 'door', '--timeout', '0'], '0 is not above zero'),
        pytest.param(
            ['query', 'door', '--timeout', '0.2', '--service', '/nobody'],
            'no service /nobody within 0.2 s',
            marks=needs_ros,
        ),
    ],
    ids=lambda value: ' '.join(value[:2]) if isinstance(value, list) else '',
)
def test_users_mistake(argv, said, images, tmp_path, capsys):
    argv = [word.format(left=images[0], right=images[1], tmp=tmp_path) for word in argv]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert re.fullmatch(r'gsemsplat: .+\n', err) and said in err


@pytest.mark.parametrize(
    'argv',
    [
        ['infer', 'left\udcff.png', 'b.png', '--out', 'out'],
        ['infer', 'a.png', 'b.png', '--query', 'chair\udce9', '--out', 'out'],
        ['view', 'a\udcff.ply'],
        ['demo', '--bag', '\udcff.mcap'],
    ],
)
def test_bytes_that_are_no_utf_8_are_refused_before_the_work(argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"gsemsplat: '.*\\udc(ff|e9).*' is not UTF-8: rename the file, .*\n", said), said
    assert not list(tmp_path.iterdir())


def test_infer_writes_what_it_says(pipeline, images, tmp_path, capsys):
    out = tmp_path / 'deep' / 'out'
    assert (
        main(
            [
                'infer',
                *images,
                '--query',
                'door',
                'sofa',
                '--out',
                str(out),
                '--json',
                '--calibration',
                '50',
                '50',
                '31.5',
                '23.5',
                '0.1',
            ]
        )
        == 0
    )
    stdout = capsys.readouterr().out
    summary = json.loads(stdout.splitlines()[-1])
    assert stdout.count('\n') == 1
    assert summary == json.loads((out / 'summary.json').read_text())
    assert {key: summary[key] for key in ('gaussians', 'weights', 'scale_source', 'scale', 'timings')} == {
        'gaussians': 768,
        'weights': 'fake.safetensors',
        'scale_source': 'stereo baseline',
        'scale': 1.5,
        'timings': {'predict': 0.25},
    }
    assert 0 < summary['pair_seconds'] < 60 and summary['geometry'] is None
    door, sofa = summary['queries']
    assert door.pop('seconds') > 0 and sofa.pop('seconds') > 0
    assert door == {
        'text': 'door',
        'found': True,
        'score': 0.875,
        'note': '',
        'measured': None,
        'peak_pixel': [20.0, 17.0],
        'peak_point': [0.5, 0.25, 2.0],
        'objects': [{'id': 0, 'center': [0.5, 0.25, 2.0], 'size': [0.4, 0.6, 0.2], 'score': 0.875}],
    }
    assert sofa == {
        'text': 'sofa',
        'found': False,
        'score': 0.2,
        'note': '',
        'measured': None,
        'peak_pixel': None,
        'peak_point': None,
        'objects': [],
    }
    gaussians, card, first, second = read_scene(out / 'scene.safetensors')  # what `gsemsplat view` opens
    assert (card['weights'], card['scale'], len(gaussians)) == ('fake.safetensors', 1.5, 768)
    assert first.shape == second.shape == (48, 64, 3)
    scene = read_ply(out / 'scene.ply', 'camera')
    assert len(scene) == 768 and torch.allclose(scene.means[:, 2], torch.tensor(WALL_M))
    html = (out / 'report.html').read_text()
    assert 'gsemsplat infer' in html and 'door' in html


def test_infer_names_the_network_that_made_the_points(pipeline, images, tmp_path, capsys):
    out = tmp_path / 'o'
    pipeline.geometry = 'Depth Anything 3 SMALL'
    assert main(['infer', *images, '--out', str(out), '--geometry', 'da3-small.safetensors']) == 0
    said = ''.join(capsys.readouterr())
    assert 'with fake.safetensors, geometry by Depth Anything 3 SMALL; scale' in said
    assert json.loads((out / 'summary.json').read_text())['geometry'] == 'Depth Anything 3 SMALL'
    assert 'Geometry: Depth Anything 3 SMALL' in (out / 'report.html').read_text()


def test_infer_says_what_it_did_not_understand(pipeline, images, tmp_path, capsys):
    out = tmp_path / 'o'
    assert main(['infer', *images, '--query', 'door', '椅子', 'sofa', '--out', str(out)]) == 0
    table = capsys.readouterr().out
    assert "'椅子': not understood: '椅子'" in table.splitlines()
    assert [
        sum(f' {state} ' in line for line in table.splitlines()) for state in ('found', 'not understood')
    ] == [2, 1]
    queries = json.loads((out / 'summary.json').read_text())['queries']
    assert [query['note'] for query in queries] == ['', "not understood: '椅子'", '']
    html = (out / 'report.html').read_text()
    assert 'Not understood</span>' in html and 'Not found</span>' in html


def test_infer_exports(pipeline, images, tmp_path, capsys):
    out = tmp_path / 'o'
    assert main(['infer', *images, '--out', str(out), '--export', 'glb', 'spz', '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary['glb'], summary['spz']) == (str(out / 'scene.glb'), str(out / 'scene.spz'))
    again = open_saved(out / 'scene.glb').splats
    torch.testing.assert_close(again.joined().means, read_ply(out / 'scene.ply', 'f').means)
    assert again.space['weights'] == 'fake.safetensors' and again.camera.width == 32
    assert (out / 'scene.spz').stat().st_size < (out / 'scene.glb').stat().st_size / 3


def test_infer_films(pipeline, images, tmp_path, capsys):
    av = pytest.importorskip('av')
    out = tmp_path / 'o'
    assert main(['infer', *images, '--out', str(out), '--video', 'published', '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['video'] == {
        'path': 'published',
        'frames': 18,
        'seconds': 18 / 16,
        'rgb': str(out / 'rgb.mp4'),
        'semantics': str(out / 'semantics.mp4'),
    }
    means = {}
    for name in ('rgb', 'semantics'):
        with av.open(summary['video'][name]) as container:
            frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
        assert len(frames) == 18 and frames[0].shape == (512, 512, 3)
        means[name] = frames[8][200:312, 200:312]  # straight ahead
    assert np.abs(means['rgb'].astype(int) - 60).mean() < 6, 'the wall in the colour of the first image'
    assert means['semantics'].std() > 10, 'random codes have many colours'
    assert (out / 'report.html').read_text().count('<video ') == 2
    assert {p.name for p in out.iterdir()} == {
        'report.html',
        'rgb.mp4',
        'scene.ply',
        'scene.safetensors',
        'semantics.mp4',
        'summary.json',
    }


def test_video_package_is_asked_for_before_the_work(pipeline, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    assert main(['infer', *images, '--out', str(tmp_path / 'o'), '--video']) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r'gsemsplat: videos need the Python package av \(.*\): run `pip install av`\n', err)
    assert not (tmp_path / 'o').exists()


def test_infer_prints_a_table(pipeline, images, tmp_path, capsys):
    assert main(['infer', *images, '--query', 'door', 'sofa', '--out', str(tmp_path / 'o')]) == 0
    lines = capsys.readouterr().out.splitlines()
    door = next(line for line in lines if 'door' in line)
    assert re.fullmatch(r'left +door +found +0\.875 +20, 17 +2\.08 \(not metric\) +1', door)
    assert re.search(r'sofa +not found +0\.200 +- +- +0', '\n'.join(lines))
    assert lines[-1] == str(tmp_path / 'o' / 'report.html')
    assert '\033' not in ''.join(lines), 'colours where no terminal is'


def test_empty_query_is_the_users_mistake(pipeline, images, tmp_path, capsys):
    assert main(['infer', *images, '--query', ' ', '--out', str(tmp_path / 'o')]) == 2
    assert capsys.readouterr().err == "gsemsplat: empty query: ask for a thing, such as 'chair'\n"


def test_our_fault_is_one_line_and_exit_1(pipeline, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, 'build', lambda pair: 1 / 0, raising=False)
    assert main(['infer', *images, '--out', str(tmp_path / 'o')]) == 1
    out, err = capsys.readouterr()
    assert out == '' and re.fullmatch(
        r'gsemsplat: internal error: ZeroDivisionError: .+ \(.+test_cli\.py:\d+\); .+\n', err
    )


def test_missing_package_is_named(pipeline, images, tmp_path, capsys, monkeypatch):
    def missing(pair):
        raise ModuleNotFoundError("No module named 'open_clip'", name='open_clip')

    monkeypatch.setattr(pipeline, 'build', missing, raising=False)
    assert main(['infer', *images, '--out', str(tmp_path / 'o')]) == 1
    assert 'the Python package open_clip is missing' in capsys.readouterr().err


def test_ctrl_c(tmp_path, images):
    """The process is stopped in the middle of its work: 130, and no traceback."""
    script = (
        'import sys, time\nfrom gsemsplat_ros.pipeline import Pipeline\nfrom gsemsplat_ros.cli import main\n'
        'def load(*args, **kwargs):\n    print("working", flush=True)\n    time.sleep(60)\n'
        'Pipeline.load = load\nsys.exit(main(sys.argv[1:]))'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', script, 'infer', *images, '--out', str(tmp_path / 'o')],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == 'working\n'
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and err == ''


def test_reader_that_goes_away(tmp_path):
    """`gsemsplat ... | head -0`: no traceback."""
    card = tmp_path / 'w.safetensors'
    weights.save(card, {'x': torch.zeros(2, 3)}, {'config': {'name': 'tiny'}})
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, '-u', '-m', 'gsemsplat_ros.cli', 'weights', 'info', str(card)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write)
    assert done.returncode == 1 and done.stderr == ''


def test_weights_info(tmp_path, capsys):
    path = tmp_path / 'w.safetensors'
    card = {
        'config': NetworkConfig.small().to_json() | {'layer_dims': [8, 16, 24, 32]},
        'licence': 'Apache-2.0',
        'training': {'stages': [{'steps': 12, 'rate': 0.5}, {'steps': 3}]},
    }
    weights.save(path, {'x': torch.zeros(2, 3), 'y': torch.zeros(4)}, card)
    assert main(['weights', 'info', str(path), '--json']) == 0
    assert json.loads(capsys.readouterr().out) == {
        'file': str(path),
        'bytes': path.stat().st_size,
        'parameters': 10,
        'card': card,
    }
    assert main(['weights', 'info', str(path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r'^config\.layer_dims +8, 16, 24, 32$', out, re.MULTILINE)
    assert re.search(
        r'^training\.stages\.1 +steps 12, rate 0\.5\ntraining\.stages\.2 +steps 3$', out, re.MULTILINE
    )


def test_failed_check_still_gives_its_numbers(monkeypatch, capsys):
    from gsemsplat_ros.checkpoints import parity

    result = {'fields': {'pts3d_1': 0.5}, 'max_error': 0.5, 'passed': False}
    monkeypatch.setattr(parity, 'check_parity', lambda path: result)
    assert main(['weights', 'parity', 'f.npz', '--json', '--quiet']) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == result
    assert err == 'gsemsplat: f.npz: the network differs from the public one by 5.0e-01, allowed 1e-04\n'


def test_eval_protocol(capsys):
    path = os.path.join(os.path.dirname(__file__), 'data', 'protocol.npz')
    assert main(['eval', 'protocol', path, '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['passed'] is True and result['max_relevancy_error'] < 1e-5


@needs_ros
def test_node_gets_its_ros_arguments_in_order(monkeypatch):
    from gsemsplat_ros.ros import main as ros_main

    got = []
    monkeypatch.setattr(ros_main, 'main', lambda args: got.extend(args) or 7)
    rest = ['--ros-args', '-p', 'mode:=sequential', '-r', 'image:=/camera/image', '--log-level', 'debug']
    assert main(['node', *rest]) == 7
    assert got == ['gsemsplat', *rest]


def test_table_is_aligned(capsys):
    Console().table([('a', 1.0, True), ('bcd', 12.345678, None)], ('name', 'value', 'ok'))
    assert capsys.readouterr().out == 'name  value  ok\na         1  yes\nbcd   12.35  -\n'
    Console(as_json=True).table([('a',)], ('b',))
    assert capsys.readouterr().out == ''


def test_json_has_no_nan():
    assert without_nan({'a': float('nan'), 'b': [1, float('inf')], 'c': (0.5,)}) == {
        'a': None,
        'b': [1, None],
        'c': [0.5],
    }


def test_query_says_what_the_node_did_not_understand(monkeypatch, capsys):
    pytest.importorskip('rclpy')
    from gsemsplat_msgs.srv import Query

    from gsemsplat_ros.ros.client.client import Client

    note = "left out, as not understood: '🪑'"

    class Ready:
        def done(self):
            return True

        def result(self):
            return Query.Response(success=True, message=f"'door 🪑' not found: score 0.2; {note}")

    class Service:
        def service_is_ready(self):
            return True

        def call_async(self, request):
            return Ready()

    monkeypatch.setattr(Client, '_service', lambda self, name: Service())
    assert main(['query', 'door🪑']) == 0
    shown = capsys.readouterr().out
    assert f"'door🪑': {note}" in shown.splitlines() and ' not found ' in shown


@pytest.mark.parametrize('brighter', [0, 1])
def test_infer_scales_both_images_of_12_bits_alike(tmp_path, brighter):
    ramp = np.tile(np.arange(0, 256, 4), (48, 1))
    pictures = [ramp // 8, ramp // 8]
    pictures[brighter] = ramp
    paths = [str(tmp_path / 'left.png'), str(tmp_path / 'right.tiff')]
    for path, picture in zip(paths, pictures):
        cv2.imwrite(path, (picture * 4095 // 255).astype(np.uint16))
    pair = read_pair(*paths, [50.0, 50.0, 31.5, 23.5, 0.1])
    for view, picture in zip((pair.first, pair.second), pictures):
        assert np.abs(view.image.astype(int) - picture[..., None]).max() <= 1
