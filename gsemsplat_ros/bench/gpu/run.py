"""Everything that needs a GPU, in one run: parts in processes of their own, each with a time limit.

A crash, a hang or a lack of memory costs the part in which it happens. What the parts print goes to `gpu.log`
as it comes, and after each part `gpu.json` and `gpu.md` are written again, so a run that is killed leaves
what was finished. The folder never holds more than eight files of at most 16 MiB: some machines send no more.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsemsplat_ros.bench.gpu.report import report
from gsemsplat_ros.files import write_whole

SHORTEST_S = 20.0  # less is not worth the start of a part
RESERVE_S = 20.0  # at the end of the run, for ending a part
GRACE_S = 20.0  # for a part that is asked to end; a training saves


@dataclass(frozen=True)
class Part:
    """name; minutes: its limit; what: it measures, in a line."""

    name: str
    minutes: float
    what: str


# in the order of their worth: time may run out
PARTS = (
    Part('machine', 1, 'device, driver, packages, rates of copies and matrix products'),
    Part('tests', 3, 'the tests marked cuda'),
    Part('small', 2, 'the shipped network: pairs, then stage by stage beside the public algorithm'),
    Part('large', 3, 'the public network: the same'),
    Part('draw', 1.5, '524,288 Gaussians with 35 channels: renderers, and a question to the picture'),
    Part('node', 1.5, 'images of a stereo camera to scene, answer and rows of a message'),
    Part('profile', 2, 'kernels and gaps of kept pairs'),
    Part('variants', 3, 'ways to make the public network faster, one by one'),
    Part('train', 600, 'training of the small network for the minutes left'),
)


def choose_parts(names: Sequence[str]) -> list[Part]:
    """The parts of these names, in the order of PARTS; all without names. Raises ValueError."""
    known = [part.name for part in PARTS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f'no part {unknown[0]!r}: wanted some of {", ".join(known)}')
    return [part for part in PARTS if not names or part.name in names]


def run_parts(
    parts: Sequence[Part],
    out: Path,
    minutes: float,
    command: Callable[[Part, float], list[str]],
    show: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Run the parts one after the other, `minutes` in all; returns their outcomes, as in `gpu.json`.

    command: of a part and its limit [s] to the words of its process, whose last line of JSON on stdout is the
    result; show: called with a line about each part.
    """
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * minutes
    for part in parts:
        seconds = min(60 * part.minutes, end - time.monotonic() - RESERVE_S)
        if seconds < min(SHORTEST_S, 60 * part.minutes):
            outcome: dict[str, Any] = {'state': 'left out', 'reason': 'no time was left', 'result': {}}
        else:
            show(f'{part.name}, at most {seconds / 60:.1f} min: {part.what}')
            outcome = run_part(command(part, seconds), seconds, out / 'gpu.log')
        outcomes.append({'part': part.name, 'what': part.what, **outcome})
        show(f'{part.name}: {outcome["state"]}{": " * bool(outcome["reason"])}{outcome["reason"]}')
        for name, text in ('gpu.json', json.dumps(outcomes, indent=1)), ('gpu.md', report(outcomes)):
            with write_whole(out / name) as unfinished:
                unfinished.write_text(text)
    return outcomes


def run_part(words: list[str], seconds: float, log: Path) -> dict[str, Any]:
    """Run a command for at most `seconds`, its output appended to `log`.

    Returns its 'state' ('done', 'failed', 'stopped', or 'left out' for the reason that the result gives under
    this name), the 'reason', its 'seconds', and as 'result' the last JSON object that it printed in a line of
    its own, {} without any.
    """
    with log.open('a') as file:
        file.write(f'\n$ {" ".join(words)}\n')
        file.flush()
        before, start = file.tell(), time.monotonic()
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end_group(process)
    with log.open(errors='replace') as file:
        file.seek(before)
        lines = [line.strip() for line in file if line.strip()]
    found = [object_of(line) for line in lines]
    result: dict[str, Any] = next((value for value in reversed(found) if value is not None), {})
    said = next(
        (line for line, value in zip(lines[::-1], found[::-1]) if value is None), 'it printed nothing'
    )
    if status is None:
        state, reason = 'stopped', f'not finished after {seconds:.0f} s'
    elif status < 0:
        state, reason = 'failed', f'ended by {signal.Signals(-status).name}'
    elif status:
        state, reason = 'failed', said[:300]
    else:
        state, reason = ('left out', result['left out']) if 'left out' in result else ('done', '')
    return {'state': state, 'reason': reason, 'seconds': time.monotonic() - start, 'result': result}


def object_of(line: str) -> dict[str, Any] | None:
    """The JSON object in this line, None without one."""
    try:
        value = json.loads(line) if line.startswith('{') else None
    except ValueError:
        return None
    return value


def end_group(process: subprocess.Popen) -> None:
    """End a process and all that it started: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
