"""`gsemsplat eval calibrate`: fits the mixture of a checkpoint's two branches on training rooms."""

from __future__ import annotations

import argparse

from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'calibrate',
        help="fit a checkpoint's mixture and threshold on training rooms",
        description='Queries packed training rooms for present and absent names, and writes the mixture of '
        'the two branches into the card, with a threshold that one absent name in ten passes.',
    )
    parser.add_argument('data', metavar='DIR', help='packed rooms')
    parser.add_argument(
        '--pairs', type=at_least_one, default=40, metavar='N', help='how many (default: %(default)s)'
    )
    parser.add_argument('--weights', metavar='FILE', help='checkpoint (default: the shipped network)')
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Fit the mixture and write it into the card of the checkpoint."""
    import numpy as np

    from gsemsplat_ros.checkpoints.checkpoint import SHIPPED, update_card
    from gsemsplat_ros.datasets.packed_rooms import PackedRooms
    from gsemsplat_ros.evaluation.mixture_fit import calibrate
    from gsemsplat_ros.pipeline import Pipeline

    pipeline = Pipeline.load(args.weights)
    rooms = PackedRooms(args.data)
    picks = np.linspace(0, len(rooms) - 1, min(args.pairs, len(rooms))).astype(int)
    with console.progress(1, 'run', f'asking {len(picks)} pairs') as bar:
        result = calibrate(pipeline, [rooms[int(i)] for i in picks])
        bar.update()
    update_card(args.weights or SHIPPED, {'mixture': result['mixture']})
    console.table(list(result.items()))
    console.result(result)
