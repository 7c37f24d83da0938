"""`gsemsplat demo` as a process of its own, with a node of known answers."""

import subprocess
import sys
from pathlib import Path

import torch

from gsemsplat_ros.checkpoints import checkpoint as weights

FAKE_NODE = (sys.executable, str(Path(__file__).with_name('node_program.py')))


SCRIPT = """
import sys
from pathlib import Path
from gsemsplat_ros.cli import main
from gsemsplat_ros.checkpoints import checkpoint
from gsemsplat_ros.ros.client import node_process
node_process.COMMAND, checkpoint.SHIPPED = sys.argv[1:3], Path(sys.argv[3])
sys.exit(main(sys.argv[4:]))
"""


def demo_process(out, *arguments):
    """Start `gsemsplat demo` with the fake node and a fake card."""
    card = out / 'card.safetensors'
    weights.save(card, {'x': torch.zeros(1)}, {'config': {'name': 'fake'}})
    return subprocess.Popen(
        [sys.executable, '-c', SCRIPT, *FAKE_NODE, str(card), 'demo', '--out', str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
