"""What is trained from files needs no renderer, and nobody needs TensorBoard before the first step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RENDERER = 'moderngl', 'trimesh'
BOARD = 'tensorboard', 'torch.utils.tensorboard'


@pytest.mark.parametrize(
    ('module', 'unwanted'),
    [
        ('datasets.sources', (*RENDERER, *BOARD)),
        ('supervision.prepare', (*RENDERER, *BOARD)),
        ('training.semantic_heads', (*RENDERER, *BOARD)),
        ('training.small_network', (*RENDERER, *BOARD)),
        ('training.loop', RENDERER),
        ('evaluation.held_out_rooms', (*RENDERER, *BOARD)),
    ],
)
def test_a_module_loads_no_more_than_it_needs(module, unwanted):
    code = (
        f'import sys, gsemsplat_ros.{module}; print(*[name for name in {unwanted!r} if name in sys.modules])'
    )
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
