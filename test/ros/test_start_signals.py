"""SIGINT and SIGTERM at any moment of the start end the node, with 0 and without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures('own_environment')
# function calls: through `rclpy.init`, which holds a lock that its shutdown needs; then ever further apart
CALLS = [*range(70, 112), *(round(120 * 1.25**n) for n in range(26))]


def test_a_signal_at_any_moment_of_the_start_ends_it():
    program = Path(__file__).parents[1] / 'support' / 'interrupted_starts.py'
    done = subprocess.run(
        [sys.executable, str(program), *map(str, CALLS)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join((str(program.parents[1]), *sys.path))},
    )
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [int(call) for call, *_ in lines] == CALLS, done.stderr
    assert [line for line in lines if line[1] != '0'] == []
    assert not [line for line in lines if line[2] == 'not reached']
    assert 'Traceback' not in done.stderr and 'rror' not in done.stderr


# rclpy has ended at a signal, and Python's handler has not run yet, when what the node makes is refused
EARLY = """
import sys
import rclpy
from gsemsplat_ros.ros import main

def node(load_pipeline):
    rclpy.shutdown()
    raise RuntimeError('the context is invalid')

main.GsemsplatNode = node
sys.exit(main.main(['node']))
"""


def test_what_fails_because_rclpy_ended_is_no_fault():
    done = subprocess.run([sys.executable, '-c', EARLY], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, '')
