"""`gsemsplat gpu`: everything that needs a GPU, in one run of so many minutes."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gsemsplat_ros.terminal.arguments import add_device_argument, add_output_arguments, positive
from gsemsplat_ros.terminal.console import Console, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from gsemsplat_ros.bench.gpu.parts import Task
    from gsemsplat_ros.bench.gpu.run import Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: which parts, where to, and for how long."""
    parser.description = (
        'Runs tests, benches, a profile and a training on a GPU, one part after the other in the order of '
        'their worth, each in a process with a time limit. `gpu.md` in the folder has the tables.'
    )
    parser.add_argument('parts', nargs='*', metavar='PART', help='(default: all)')
    parser.add_argument(
        '--out', type=Path, default=Path('out/gpu'), metavar='DIR', help='(default: %(default)s)'
    )
    parser.add_argument(
        '--minutes', type=positive, default=10.0, metavar='M', help='for everything (default: %(default)s)'
    )
    parser.add_argument(
        '--data', type=Path, metavar='DIR', help='packed rooms to train in (default: some are rendered)'
    )
    parser.add_argument(
        '--here', action='store_true', help='run one part in this process and print its result'
    )
    add_device_argument(parser, '(default: cuda; cpu rehearses, slowly)')
    parser.set_defaults(run=run, device='cuda')
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Run the parts. Raises ValueError without a GPU, and Failure where a part failed or was stopped."""
    from gsemsplat_ros.bench.gpu.run import PARTS, choose_parts, run_parts

    device = chosen_device(args.device)
    parts = choose_parts(args.parts)
    out = args.out.absolute()
    if args.here:
        from gsemsplat_ros.bench.gpu.parts import Task
        from gsemsplat_ros.bench.gpu.report import tables

        if len(args.parts) != 1:
            raise ValueError('--here runs one part: give its name')
        out.mkdir(parents=True, exist_ok=True)
        for result in part_functions()[parts[0].name](Task(device, 60 * args.minutes, out, args.data)):
            console.result(result)
            last = result
        console.say('\n'.join(tables(last)))
        return

    def command(part: Part, seconds: float) -> list[str]:
        words = [sys.executable, '-m', 'gsemsplat_ros.cli', 'gpu', part.name, '--here', '--json', '--quiet']
        words += ['--out', str(out), '--minutes', f'{seconds / 60:.3f}', '--device', device.type]
        return [*words, *(['--data', str(args.data.absolute())] if args.data else [])]

    console.note(f'{len(parts)} of {len(PARTS)} parts in {args.minutes:g} min into {args.out}')
    outcomes = run_parts(parts, out, args.minutes, command, console.note)
    console.say(f'{args.out / "gpu.md"}')
    console.table([(o['part'], o['state'], o['reason']) for o in outcomes], ('part', 'outcome', 'reason'))
    console.result({'out': str(args.out), 'parts': outcomes})
    if unfinished := [outcome['part'] for outcome in outcomes if outcome['state'] in ('failed', 'stopped')]:
        raise Failure(f'not finished: {", ".join(unfinished)}; see {args.out / "gpu.log"}')


def chosen_device(name: str) -> torch.device:
    """The device of this name. Raises ValueError that says what PyTorch has and what it lacks."""
    import torch

    from gsemsplat_ros.device import choose

    if name == 'cuda' and not torch.cuda.is_available():
        built = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'
        raise ValueError(
            f'no GPU: PyTorch {torch.__version__} of {sys.executable} ({built}) sees none. Give a Python '
            'that has PyTorch with CUDA: `PYTHON=/path/to/python3 make gpu`; `nvidia-smi` names the GPUs'
        )
    return choose(name)


def part_functions() -> dict[str, Callable[[Task], Iterator[dict]]]:
    """What runs each part."""
    from gsemsplat_ros.bench.gpu.node import node_part
    from gsemsplat_ros.bench.gpu.parts import draw_part, machine_part, network_part
    from gsemsplat_ros.bench.gpu.profile import profile_part
    from gsemsplat_ros.bench.gpu.tests import tests_part
    from gsemsplat_ros.bench.gpu.train import train_part
    from gsemsplat_ros.bench.gpu.variants import variants_part

    return {
        'machine': machine_part,
        'tests': tests_part,
        'small': partial(network_part, 'small'),
        'large': partial(network_part, 'large'),
        'draw': draw_part,
        'node': node_part,
        'profile': profile_part,
        'variants': variants_part,
        'train': train_part,
    }
