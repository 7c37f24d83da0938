"""`gsemsplat bench`: speed of network, renderer, queries and messages, compared with the public algorithm; of
training."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsemsplat_ros.terminal.arguments import add_device_argument, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console, Failure

if TYPE_CHECKING:
    import torch

    from gsemsplat_ros.bench.stages import Stage
    from gsemsplat_ros.gaussians.gaussians import Gaussians


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: what to measure."""
    parser.description = (
        'Runs the public algorithm in plain steps (float32, both images encoded, every head) and the fast '
        'path, interleaved in one process, and compares their outputs. Both see the same weights: '
        '`large` has random ones, for the public ones cannot be shipped.'
    )
    parser.add_argument(
        '--size',
        choices=('small', 'large'),
        default='small',
        help='the network that ships, or the public one (default: %(default)s)',
    )
    add_device_argument(parser, '(default: %(default)s)')
    parser.add_argument(
        '--repeats', type=at_least_one, metavar='N', help='of each measurement (default: 7, large 3)'
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        '--scale',
        metavar='PICTURE.svg',
        help='instead: time and memory against image size, number of Gaussians and number of standing '
        'queries, as a table and a plot',
    )
    other.add_argument(
        '--node',
        action='store_true',
        help='instead: what the node itself costs, images in to messages out '
        'between two processes, with 400,000 Gaussians; and splats as messages',
    )
    other.add_argument(
        '--train', action='store_true', help='instead: loading and steps of the training of the small network'
    )
    train = parser.add_argument_group('with --train')
    train.add_argument(
        '--data', type=Path, metavar='DIR', help='packed rooms (default: a few, rendered for this)'
    )
    train.add_argument(
        '--workers', type=at_least_one, metavar='N', help='processes that load (default: as in training)'
    )
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Run the chosen measurement. Raises Failure if the outputs of the paths differ too much, and ValueError
    for errors of the user."""
    if (args.data or args.workers) and not args.train:
        raise ValueError('--data and --workers are of --train: give that too')
    if args.node:
        run_node(console)
        return
    from gsemsplat_ros.device import choose

    device = choose(args.device)
    if args.train:
        run_train(args, device, console)
        return
    if args.scale:
        run_scale(args.scale, device, console)
        return
    from gsemsplat_ros.bench.compare import bench

    with console.steps('bench') as step:
        result = bench(args.size, device, args.repeats or 0, further_stages(), step)
    show(result, console)
    console.result(result)
    if not result['within_tolerance']:
        raise Failure(
            f'the fast path differs from the plain one by {result["max_relative_difference"]:.3g} of the '
            f'range (mean {result["mean_relative_difference"]:.3g}), allowed {result["tolerance"]:g} and '
            f'{result["mean_tolerance"]:g}: please report it'
        )


def further_stages() -> tuple[Callable[[Gaussians], Stage], ...]:
    """Stages that need ROS, if it is installed."""
    if importlib.util.find_spec('rclpy') is None:
        return ()
    from gsemsplat_ros.ros.client.bench_messages import message_stage

    return (message_stage,)


def show(result: dict[str, Any], console: Console) -> None:
    """Print the result as tables."""
    console.say(f'{result["size"]} on {result["device"]}')
    console.say(
        f'weights: {result["weights"]}; pictures {result["pictures"]}; drawn and asked: '
        f'{result["gaussians"]} Gaussians at {result["drawn"]}; medians of {result["repeats"]}, '
        'spread is the interquartile range'
    )
    rows = [
        (
            name,
            1e3 * s['plain_seconds'],
            1e3 * s['plain_iqr_seconds'],
            1e3 * s['fast_seconds'],
            1e3 * s['fast_iqr_seconds'],
            s['ratio'],
            gigaflops(s, 'plain'),
            gigaflops(s, 'fast'),
        )
        for name, s in result['stages'].items()
    ]
    console.table(
        rows, ('stage', 'plain [ms]', '+-', 'fast [ms]', '+-', 'ratio', 'plain [GFLOP/s]', 'fast [GFLOP/s]')
    )
    console.say()
    memory, kept = result['peak_memory_megabytes'], result['weights_megabytes']
    console.table(
        [
            ('pair to Gaussians and codes, plain [s]', result['plain_seconds']),
            (f'the same, fast ({result["fast_type"]}, one encoding kept) [s]', result['fast_seconds']),
            ('ratio', result['ratio']),
            ('fast, network alone [GFLOP/s]', result['fast_flops_per_second'] / 1e9),
            (
                f'peak of matrix products, {result["fast_type"]} [GFLOP/s]',
                result['peak_flops_per_second'] / 1e9,
            ),
            ('of the peak', result['peak_fraction']),
            ('peak of matrix products, float32 [GFLOP/s]', result['peak_float32_flops_per_second'] / 1e9),
            ('memory beside the weights, plain [MB]', memory['plain']),
            ('the same, fast [MB]', memory['fast']),
            ('weights, plain [MB]', kept['plain']),
            ('weights, fast [MB]', kept['fast']),
            ('rendered, Gaussians per second', result['gaussians_per_second']),
            ('largest difference of an output, of its range', result['max_relative_difference']),
            ('largest mean difference of an output, of its range', result['mean_relative_difference']),
            ('allowed', f'{result["tolerance"]:g}, mean {result["mean_tolerance"]:g}'),
        ],
        ('measure', 'value'),
    )


def gigaflops(stage: dict[str, float], path: str) -> int | None:
    """GFLOP/s of a stage on a path, None if not counted."""
    value = stage.get(f'{path}_flops_per_second')
    return None if value is None else round(value / 1e9)


def run_node(console: Console) -> None:
    """Measure and print the overhead of the node."""
    from gsemsplat_ros.ros.client.bench_node import bench_node

    with console.steps('bench') as step:
        result = bench_node(step)
    rows = [(key.replace('_', ' '), value) for key, value in result.items() if key != 'splats']
    console.table(rows, ('measure', 'value'))
    console.say()
    measures = result['splats']['PackedSplats']
    rows = [
        (name.replace('_', ' '), *(kind.get(name) for kind in result['splats'].values())) for name in measures
    ]
    console.table(rows, ('splats', *result['splats']))
    console.result(result)


def run_train(args: argparse.Namespace, device: torch.device, console: Console) -> None:
    """Measure and print loading and steps of the training of the small network."""
    from gsemsplat_ros.bench.train import bench_training

    with console.steps('bench') as step:
        result = bench_training(args.data, device, args.workers, args.repeats or 1, step)
    console.say(f'{result["height"]}x{result["width"]} px on {result["machine"]}')
    loading = result['loading']
    console.table([(key.replace('_', ' '), value) for key, value in loading.items()], ('loading', 'value'))
    console.say()
    steps = [
        (
            row['batch'],
            *(
                row[key]
                for key in ('device_part', 'forward', 'backward', 'optimiser', 'step', 'pairs_per_second')
            ),
        )
        for row in result['steps']
    ]
    parts = 'device part [s]', 'forward [s]', 'backward [s]', 'optimiser [s]', 'step [s]', 'pairs/s'
    console.table(steps, ('pairs in a step', *parts))
    console.say(f'bound by {result["bound"]}')
    console.result(result)


def run_scale(picture: str, device: torch.device, console: Console) -> None:
    """Measure and print the growth of time and memory, and plot it into `picture`, an .svg file."""
    from gsemsplat_ros.bench.plot import plot
    from gsemsplat_ros.bench.scale import AXES, scale
    from gsemsplat_ros.terminal.output import write_text

    if Path(picture).suffix != '.svg':
        raise ValueError(f'{picture}: wanted a name that ends in .svg')
    with console.steps('bench') as step:
        result = scale(device, step)
    write_text(Path(picture), plot(result))
    console.say(result['device'])
    for axis in AXES:
        rows = [
            (r['at'], r['what'], 1e3 * r['seconds'], 1e3 * r['iqr_seconds'], r['megabytes'])
            for r in result[axis.name]
        ]
        console.table(rows, (axis.label, 'what', 'time [ms]', '+-', 'memory [MB]'))
        console.say()
    console.result(result)
