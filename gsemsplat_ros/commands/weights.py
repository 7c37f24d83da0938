"""`gsemsplat weights`: convert public checkpoints, print cards, compare the network with the public one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from gsemsplat_ros.terminal.arguments import add_output_arguments
from gsemsplat_ros.terminal.console import Console, Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Actions: convert, info, parity."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION', title='actions')
    convert = actions.add_parser(
        'convert',
        help='convert a public MASt3R, Splatt3R or GSemSplat file',
        description='Reads tensors and plain containers of a public file, runs none of its code, '
        'and writes safetensors.',
    )
    convert.add_argument('file', metavar='FILE', help='.pth, .ckpt or .safetensors')
    convert.add_argument('target', metavar='OUT', help='the .safetensors file to write')
    convert.set_defaults(run=run_convert)
    info = actions.add_parser(
        'info', help='print the card of a checkpoint', description='Prints the card of a checkpoint.'
    )
    info.add_argument('file', metavar='FILE', nargs='?', help='default: the shipped network')
    info.set_defaults(run=run_info)
    parity = actions.add_parser(
        'parity',
        help='compare the large network with outputs of the public one',
        description='Runs the large network with generated weights and compares every '
        'output with what the public code returned.',
    )
    parity.add_argument('fixture', metavar='FIXTURE.npz')
    parity.set_defaults(run=run_parity)
    for action in (convert, info, parity):
        add_output_arguments(action)


def run_convert(args: argparse.Namespace, console: Console) -> None:
    """Convert a public checkpoint, and print what was converted."""
    from dataclasses import asdict

    from gsemsplat_ros.checkpoints.convert import convert

    report = convert(args.file, args.target)
    groups = {
        'placeholders': report.placeholders,
        'missing': report.missing,
        'left_over': report.left_over,
        'dropped': report.dropped,
    }
    console.say(f'{args.target}: {report.kind}, {len(report.written)} tensors')
    meanings = {
        'placeholders': 'classes and functions named in the file, never called',
        'missing': 'not in a file of this kind, but in a whole GSemSplat',
        'left_over': 'in the file, not used',
        'dropped': 'duplicates and training losses',
    }
    for group, names in groups.items():
        if names:
            console.say(f'{len(names)} {meanings[group]}:')
            for name in names:
                console.say(f'  {name}')
    console.result({'target': args.target, **asdict(report)})


def run_info(args: argparse.Namespace, console: Console) -> None:
    """Print the card of a checkpoint."""
    from math import prod
    from pathlib import Path

    from safetensors import safe_open

    from gsemsplat_ros.checkpoints.checkpoint import SHIPPED, read_card

    path = Path(args.file or SHIPPED)
    card = read_card(path)
    with safe_open(path, 'pt') as file:
        parameters = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    about = {'file': str(path), 'bytes': path.stat().st_size, 'parameters': parameters}
    console.table(list(flat({**about, **card})))
    console.result({**about, 'card': card})


def run_parity(args: argparse.Namespace, console: Console) -> None:
    """Compare the large network with stored outputs. Raises Failure if they differ."""
    from gsemsplat_ros.checkpoints.parity import TOLERANCE, check_parity

    with console.progress(1, 'fixture', 'running the large network on the CPU') as bar:
        result = check_parity(args.fixture)
        bar.update()
    console.table(
        [(name, f'{error:.1e}') for name, error in result['fields'].items()],
        ('field', "error, part of the field's range"),
    )
    console.say(f'largest {result["max_error"]:.1e}, allowed {TOLERANCE:.0e}')
    console.result(result)
    if not result['passed']:
        raise Failure(
            f'{args.fixture}: the network differs from the public one by {result["max_error"]:.1e}, allowed '
            f'{TOLERANCE:.0e}'
        )


def flat(values: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, object]]:
    """(dotted name, value) of every leaf; a list is one line, a list of dictionaries a line for each."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{name}.')
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for i, item in enumerate(value, 1):
                leaves = dict(flat(item)) if isinstance(item, dict) else {'': item}
                yield (
                    f'{prefix}{name}.{i}',
                    ', '.join(f'{key} {leaf}'.strip() for key, leaf in leaves.items()),
                )
        else:
            yield prefix + name, ', '.join(map(str, value)) if isinstance(value, list) else value
