"""Whoever is killed in the middle of saving a map leaves the old one or the new one, whole."""

import re
import subprocess
import sys
from pathlib import Path

KILLS = 200


def test_of_killed_saves_no_half_map_stays(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'support.killed_saves', str(tmp_path), str(KILLS)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    unfinished = int(re.search(r'(\d+) of them within a file', done.stdout)[1])
    assert unfinished > KILLS / 10, done.stdout
    assert done.stdout.strip().endswith("left: ['kitchen.ply', 'kitchen.safetensors']"), done.stdout
