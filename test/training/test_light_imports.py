"""What is trained from files needs no renderer, and nobody needs TensorBoard before the first step."""

import os
import subprocess
import sys
from pathlib import Path

from support.python_path import python_path

RENDERER = {'moderngl', 'trimesh'}
BOARD = {'tensorboard', 'torch.utils.tensorboard'}
# In this order in one process: each adds to what the ones before have loaded. The loop writes the board.
UNWANTED = {
    'datasets.sources': RENDERER | BOARD,
    'supervision.prepare': RENDERER | BOARD,
    'training.semantic_heads': RENDERER | BOARD,
    'training.small_network': RENDERER | BOARD,
    'evaluation.held_out_rooms': RENDERER | BOARD,
    'training.loop': RENDERER,
}
CODE = """
import importlib, sys
for module, unwanted in {!r}.items():
    importlib.import_module('gsemsplat_ros.' + module)
    for name in sorted(unwanted & sys.modules.keys()):
        print(module, 'loads', name)
"""


def test_modules_load_no_more_than_they_need():
    environment = {**os.environ, 'PYTHONPATH': python_path(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, '-c', CODE.format(UNWANTED)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
