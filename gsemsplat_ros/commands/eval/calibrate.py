"""`gsemsplat eval calibrate`: makes the scores of a checkpoint probabilities, on labelled pairs and rooms."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'calibrate',
        help="fit a checkpoint's scores and threshold",
        description='Queries labelled pairs and packed training rooms for present and absent phrases, and '
        'writes into the card how the peak of relevancy becomes the probability that a phrase is there, with '
        'the threshold that one absent phrase in ten passes.',
    )
    parser.add_argument('labels', nargs='*', type=Path, metavar='LABELS.json', help='as of `eval pairs`')
    parser.add_argument('--rooms', type=Path, metavar='DIR', help='packed rooms')
    parser.add_argument(
        '--pairs',
        type=at_least_one,
        default=40,
        metavar='N',
        help='how many of the rooms (default: %(default)s)',
    )
    parser.add_argument('--weights', metavar='FILE', required=True, help='checkpoint whose card is changed')
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Fit the mixture and write it into the card of the checkpoint."""
    import numpy as np

    from gsemsplat_ros.checkpoints.checkpoint import read_card, update_card
    from gsemsplat_ros.checkpoints.licences import ROLES, ROOMS, inherited, not_stated, stated, united
    from gsemsplat_ros.datasets.packed_rooms import PackedRooms
    from gsemsplat_ros.evaluation.mixture_fit import calibrate
    from gsemsplat_ros.evaluation.pair_labels import read_labels
    from gsemsplat_ros.pipeline import Pipeline

    if not args.labels and not args.rooms:
        raise ValueError('on what? give LABELS.json of labelled pairs, or --rooms DIR, or both')
    pairs = [pair for path in args.labels for pair in read_labels(path)]
    samples = []
    if args.rooms:
        rooms = PackedRooms(args.rooms)
        samples = [rooms[int(i)] for i in np.linspace(0, len(rooms) - 1, min(args.pairs, len(rooms)))]
    pipeline = Pipeline.load(args.weights)
    with console.progress(1, 'run', f'asking {len(pairs) + len(samples)} pairs') as bar:
        result = calibrate(pipeline, pairs, samples)
        bar.update()
    fitted_to = [not_stated(path.name, 'calibration', 'the user', 'labelled pairs') for path in args.labels]
    kept = [role for role in ROLES if role != 'calibration']
    before = inherited(Path(args.weights).name, read_card(args.weights), kept)
    licences = united(before, fitted_to, stated(*ROOMS) if samples else ())
    update_card(args.weights, {'mixture': result['mixture'], 'licences': licences})
    console.table(list(result.items()))
    console.result(result)
