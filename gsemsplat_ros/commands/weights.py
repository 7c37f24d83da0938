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
    convert.add_argument(
        'file', metavar='FILE', help='.pth, .ckpt, .safetensors, an .index.json of parts, or a folder'
    )
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
        'passed_over': report.passed_over,
        'left_over': report.left_over,
        'dropped': report.dropped,
    }
    console.say(f'{args.target}: {report.kind}, {len(report.written)} tensors')
    if report.prefix or report.wrappers:
        left_out = ', '.join((*filter(None, [report.prefix]), *(f'{name}.' for name in report.wrappers)))
        console.say(f'left out of the names: {left_out}')
    meanings = {
        'placeholders': 'classes and functions named in the file, never called',
        'missing': 'not in a file of this kind, but in a whole GSemSplat',
        'passed_over': 'further networks in the file, begun by these names, not used',
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

    from gsemsplat_ros.checkpoints.checkpoint import SHIPPED, opened

    path = Path(args.file or SHIPPED)
    file, card = opened(path)
    parameters = sum(prod(tensor.shape) for tensor in file.tensors.values())
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
