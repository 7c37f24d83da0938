"""`gsemsplat weights`: convert and export networks, print cards, compare with the public network."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from gsemsplat_ros.checkpoints.licences import Licence, licence_list, objections
from gsemsplat_ros.terminal.arguments import add_output_arguments, pixels
from gsemsplat_ros.terminal.console import Console, Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Actions: convert, info, licences, parity, export."""
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
    licences = actions.add_parser(
        'licences',
        help='write the licence list of a checkpoint',
        description='Writes a list of what a checkpoint was made of into its card, in the place of the one '
        'that it has; its tensors stay as they are.',
    )
    licences.add_argument('file', metavar='FILE', help='the checkpoint')
    licences.add_argument(
        'list', metavar='LIST.json', help='as `weights info FILE --json` prints it (docs/company.md)'
    )
    licences.set_defaults(run=run_licences)
    parity = actions.add_parser(
        'parity',
        help='compare the large network with outputs of the public one',
        description='Runs the large network with generated weights and compares every '
        'output with what the public code returned.',
    )
    parity.add_argument('fixture', metavar='FIXTURE.npz')
    parity.set_defaults(run=run_parity)
    export = actions.add_parser(
        'export',
        help='write the network as ONNX files, for TensorRT and ONNX Runtime',
        description='Writes FILE.encode.onnx (an image to its encoding) and FILE.predict.onnx (two encodings '
        'to points and Gaussians), checks both, and runs them where ONNX Runtime is installed.',
    )
    export.add_argument('target', metavar='FILE.onnx', help='begins the names of both files')
    export.add_argument('--weights', metavar='FILE', help='checkpoint (default: the shipped network)')
    for side in ('width', 'height'):
        export.add_argument(
            f'--{side}',
            type=pixels(16),
            metavar='PX',
            help='of the images that the files take (default: what a camera of 4:3 gives the network)',
        )
    export.add_argument(
        '--fp16',
        action='store_true',
        help='half precision, but for norms and what is computed of raw outputs',
    )
    export.set_defaults(run=run_export)
    for action in (convert, info, licences, parity, export):
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
    console.table(
        list(flat({**about, **{name: value for name, value in card.items() if name != 'licences'}}))
    )
    console.say()
    say_licences(licence_list(card.get('licences')), console)
    console.result({**about, 'card': card})


def run_licences(args: argparse.Namespace, console: Console) -> None:
    """Write the licence list of a checkpoint. Raises ValueError."""
    import json
    from pathlib import Path

    from gsemsplat_ros.checkpoints.checkpoint import update_card

    try:
        entries = json.loads(Path(args.list).read_text())
        items = licence_list(entries)
    except (OSError, ValueError) as error:
        raise ValueError(f'{args.list}: {error}') from None
    update_card(args.file, {'licences': entries})
    say_licences(items, console)
    console.result({'file': args.file, 'licences': entries})


def say_licences(items: Sequence[Licence] | None, console: Console) -> None:
    """Print the list, and what in it is non-commercial or has no licence."""
    if items is None:
        console.say('licences of what it was made of: not stated')
        return
    rows = [
        (each.role, each.name, each.licence or 'not stated', 'yes' if each.commercial else 'no')
        for each in items
    ]
    console.table(rows, ('role', 'item', 'licence', 'commercial'))
    for line in objections(items) or ['no item is non-commercial or without a licence']:
        console.say(line)


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


def run_export(args: argparse.Namespace, console: Console) -> None:
    """Write the network as two ONNX files. Raises Failure if they do not compute what PyTorch does."""
    from dataclasses import asdict

    import torch

    from gsemsplat_ros.checkpoints.checkpoint import load
    from gsemsplat_ros.checkpoints.onnx_check import (
        can_run,
        differences,
        patterns,
        read_contents,
        run_exported,
    )
    from gsemsplat_ros.checkpoints.onnx_export import export, needed_packages, targets
    from gsemsplat_ros.images.view import network_size
    from gsemsplat_ros.network.pixels import to_tensor
    from gsemsplat_ros.network.tensors import prediction_tensors

    needed_packages()
    targets(args.target)
    with console.steps('export') as step:
        step('reading the checkpoint')
        checkpoint = load(args.weights)
        usual = network_size(640, 480, checkpoint.model.config.long_side)
        width, height = args.width or usual[0], args.height or usual[1]
        step('running the network in PyTorch')
        images = patterns(width, height)
        with torch.no_grad():
            first, second = (checkpoint.model.encode(to_tensor(image)[None]) for image in images)
            prediction = checkpoint.model.forward_encoded(first, second)
        wanted = {name: tensor.numpy() for name, tensor in prediction_tensors(prediction).items()}
        step('writing the files')
        exported = export(checkpoint, args.target, (first, second), args.fp16)
        files = [read_contents(path) for path in (exported.encode, exported.predict)]
        step('running them in ONNX Runtime')
        apart = differences(run_exported(exported, images), wanted) if can_run() else {}
    for file in files:
        console.say(f'{file.path}: {file.bytes / 1e6:.1f} MB, opset {file.opset}')
        rows = [(name, 'x'.join(map(str, shape))) for name, shape in file.inputs.items()]
        console.table(rows, ('input', 'shape'))
        rows = [(name, 'x'.join(map(str, shape))) for name, shape in file.outputs.items()]
        console.table(rows, ('output', 'shape'))
        console.say('operators: ' + ', '.join(f'{count} {name}' for name, count in file.operators.items()))
        console.say()
    console.table(
        [(name, f'{each.largest:.1e}', f'{each.mean:.1e}') for name, each in apart.items()],
        ('output', "largest difference from PyTorch, part of the output's range", 'mean'),
    )
    if not apart:
        console.note('not run: for a comparison with PyTorch run `pip install onnxruntime`')
    console.result(
        {
            'files': [{**asdict(file), 'path': str(file.path)} for file in files],
            'width': width,
            'height': height,
            'precision': 'float16' if args.fp16 else 'float32',
            'checkpoint_sha256': exported.digest,
            'differences': {name: asdict(each) for name, each in apart.items()} or None,
        }
    )
    if wrong := [name for name, each in apart.items() if not each.allowed(args.fp16)]:
        raise Failure(f'{", ".join(wrong)} of {args.target} differ from PyTorch: do not use these files')


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
