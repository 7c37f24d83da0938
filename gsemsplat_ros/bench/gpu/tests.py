"""The part of a run on a GPU that runs the tests marked `cuda`."""

from __future__ import annotations

import re
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gsemsplat_ros.bench.gpu.parts import Result, Task

CHECKOUT = Path(__file__).parents[3]
EACH_S = 120  # for one test
OF_A_GPU = re.compile(r'mark\.cuda\b|\bgpu\b')  # in a file with such tests: the mark, or the fixture


def tests_part(task: Task, words: tuple[str, ...] = ('-m', 'cuda')) -> Result:
    """What pytest says of the tests of this checkout that `words` choose."""
    files = [str(path) for path in CHECKOUT.glob('test/**/test_*.py') if OF_A_GPU.search(path.read_text())]
    if not files or find_spec('pytest') is None:
        yield {'left out': f'no pytest, or no tests in {CHECKOUT}'}
        return
    import pytest

    options = ['-v', '-p', 'no:cacheprovider', '--color=no', '--continue-on-collection-errors']
    options += [f'--timeout={EACH_S}'] if find_spec('pytest_timeout') else []
    # in a process of their own, which is started again if a test ends it
    options += ['-n', '1'] if find_spec('xdist') else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'junit.xml'
        pytest.main([*words, *options, f'--junitxml={path}', f'--rootdir={CHECKOUT}', *files])
        yield outcomes(path.read_text())


def outcomes(junit: str) -> dict[str, Any]:
    """How many tests passed and failed, and each that failed or was skipped, with the reason."""
    passed, rows = 0, {}
    for case in ElementTree.fromstring(junit).iter('testcase'):
        name = f'{case.get("classname", "").rpartition(".")[2]}.{case.get("name", "").rpartition(".")[2]}'
        said = next((part for part in case if part.tag in ('failure', 'error', 'skipped')), None)
        if said is None:
            passed += 1
        else:  # of a file that was skipped the reason is in the text
            texts = [said.get('message', ''), said.text or '']
            reason = next((t.partition('Skipped: ')[2] for t in texts if 'Skipped: ' in t), texts[0])
            rows[name] = {'outcome': said.tag, 'reason': reason.partition('\n')[0]}
    failed = sum(row['outcome'] != 'skipped' for row in rows.values())
    return {'passed': passed, 'failed': failed, 'not passed': rows}
