"""`gsemsplat train`: trains the small network in rooms, rendered or already packed.

Its actions `prepare` and `semantics` train the semantic heads of any network on posed RGB-D frames; `words`
makes the context-aware branch of the small network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gsemsplat_ros.commands.train import prepare, semantics, words
from gsemsplat_ros.commands.train.shared import (
    add_training_arguments,
    options_of,
    several_processes,
    show_result,
)
from gsemsplat_ros.terminal.arguments import add_output_arguments, at_least_one, pixels
from gsemsplat_ros.terminal.console import Console

HEIGHT, WIDTH = 192, 256  # of rendered rooms [px]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: rooms and training; actions: the other trainings."""
    rooms = parser.add_argument_group('rooms')
    rooms.add_argument('--data', type=Path, metavar='DIR', help='packed rooms')
    rooms.add_argument(
        '--rooms',
        type=at_least_one,
        metavar='N',
        help='render the first N rooms into DIR unless they are there (needs `make training-setup`)',
    )
    rooms.add_argument(
        '--height',
        type=pixels(16),
        default=HEIGHT,
        metavar='PX',
        help='of rendered rooms [px] (default: %(default)s)',
    )
    rooms.add_argument(
        '--width',
        type=pixels(16),
        default=WIDTH,
        metavar='PX',
        help='of rendered rooms [px] (default: %(default)s)',
    )
    rooms.add_argument(
        '--preview',
        type=Path,
        metavar='FILE',
        help='draw some of the rooms into this PNG instead of training',
    )
    training = parser.add_argument_group('training')
    training.add_argument(
        '--out', type=Path, metavar='DIR', help='folder of the run; an interrupted run is resumed'
    )
    training.add_argument(
        '--init', type=Path, metavar='FILE', help='start from this checkpoint instead of random weights'
    )
    add_training_arguments(training, steps=20000, lr=4e-4)
    parser.epilog = several_processes('train')
    parser.set_defaults(run=run)
    add_output_arguments(parser)
    actions = parser.add_subparsers(
        dest='action',
        metavar='ACTION',
        title='other trainings',
        description='without one, the small network is trained on rooms',
    )
    prepare.add_parser(actions)
    semantics.add_parser(actions)
    words.add_parser(actions)


def run(args: argparse.Namespace, console: Console) -> None:
    """Train the small network, or draw a preview of its rooms. Raises ValueError."""
    if not args.data:
        raise ValueError('the following arguments are required: --data; see `gsemsplat train --help`')
    if args.preview:
        return run_preview(args, console)
    if not args.out:
        raise ValueError('where to? give --out DIR, or --preview FILE to look at the rooms only')
    from gsemsplat_ros.training.loop import run as train
    from gsemsplat_ros.training.options import SmallNetworkOptions
    from gsemsplat_ros.training.small_network import SmallNetworkTrainer

    show_result(train(SmallNetworkTrainer, options_of(SmallNetworkOptions, args), args.quiet), console)


def run_preview(args: argparse.Namespace, console: Console) -> None:
    """Draw some of the rooms into a picture."""
    from gsemsplat_ros.rooms.preview import preview

    if args.rooms:
        from gsemsplat_ros.rooms.packing import pack

        pack(args.data, args.height, args.width, range(args.rooms))
    preview(args.data, args.preview)
    console.say(f'{args.preview}: rows are pairs; first, second and new view, depth and names of the first')
    console.result({'preview': str(args.preview)})
