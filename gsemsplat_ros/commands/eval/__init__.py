"""`gsemsplat eval`: the published protocol, and how good a checkpoint is in rooms and on real pairs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gsemsplat_ros.commands.eval import ablation, scannetpp
from gsemsplat_ros.terminal.arguments import add_model_arguments, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console, Failure

if TYPE_CHECKING:
    from gsemsplat_ros.datasets.sample import Sample

HEIGHT, WIDTH = 384, 512  # of the drawn rooms [px]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION', title='actions')
    protocol = actions.add_parser(
        'protocol',
        help='compare the published evaluation of queries with stored results',
        description='Repeats the published evaluation of text queries on stored features and '
        'compares with the stored results.',
    )
    protocol.add_argument('fixture', metavar='FIXTURE.npz')
    protocol.set_defaults(run=run_protocol)
    rooms = actions.add_parser(
        'rooms',
        help='depth, pose, new views and queries in held-out synthetic rooms',
        description='Renders rooms with held-out furniture and scores the '
        'checkpoint in them. Needs the packages of `make training-setup`.',
    )
    rooms.add_argument(
        '--rooms',
        type=at_least_one,
        default=20,
        metavar='N',
        help='number of rooms, of up to 8 pairs each (default: %(default)s)',
    )
    rooms.set_defaults(run=run_rooms)
    stereo = actions.add_parser(
        'stereo',
        help='queries and depth on labelled real stereo pairs',
        description='Scores the checkpoint on labelled rectified pairs.',
    )
    stereo.add_argument('labels', metavar='LABELS.json')
    stereo.set_defaults(run=run_stereo)
    calibrate = actions.add_parser(
        'calibrate',
        help="fit a checkpoint's mixture and threshold on training rooms",
        description='Queries packed training rooms for present and absent names, and writes the mixture of '
        'the two branches into the card, with a threshold that one absent name in ten passes.',
    )
    calibrate.add_argument('data', metavar='DIR', help='packed rooms')
    calibrate.add_argument(
        '--pairs', type=at_least_one, default=40, metavar='N', help='how many (default: %(default)s)'
    )
    calibrate.add_argument('--weights', metavar='FILE', help='checkpoint (default: the shipped network)')
    calibrate.set_defaults(run=run_calibrate)
    for action in (rooms, stereo):
        add_model_arguments(action)
        action.add_argument(
            '--branches',
            choices=('both', 'region', 'context'),
            default='both',
            help='which semantic branches answer (default: %(default)s)',
        )
        action.add_argument(
            '--card', action='store_true', help="write the numbers into the checkpoint's card"
        )
    rooms.add_argument('--uncalibrated', action='store_true', help='use the images alone, without cameras')
    for action in (protocol, rooms, stereo, calibrate):
        add_output_arguments(action)
    ablation.add(actions)
    scannetpp.add(actions)


def run_protocol(args: argparse.Namespace, console: Console) -> None:
    from gsemsplat_ros.evaluation.published import check_protocol

    result = check_protocol(args.fixture)
    console.table(list(result.items()), ('check', 'result'))
    console.result(result)
    if not result['passed']:
        raise Failure(f'{args.fixture}: the evaluation does not repeat the stored results')


def run_rooms(args: argparse.Namespace, console: Console) -> None:
    from gsemsplat_ros.evaluation.held_out_rooms import evaluate_rooms
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.rooms.furniture import base_noun

    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    samples, taught = heldout_samples(args.rooms, console)
    nouns = {name: base_noun(name) for sample in samples for name in sample.names[1:]}
    result = evaluate_rooms(
        pipeline,
        samples,
        branches=args.branches,
        taught=taught,
        calibrated=not args.uncalibrated,
        nouns=nouns,
    )
    finish('rooms', result, args, console)


def heldout_samples(rooms: int, console: Console) -> tuple[list[Sample], frozenset[str]]:
    """Pairs of so many rooms of held-out furniture, and the words that training used for things."""
    from gsemsplat_ros.evaluation.held_out_rooms import words
    from gsemsplat_ros.rooms.stream import RoomStream

    stream = RoomStream(HEIGHT, WIDTH, 'heldout')
    samples = []
    with console.progress(rooms, 'room', 'drawing rooms') as bar:
        for number in range(rooms):
            samples += stream.room(number)
            bar.update()
    return samples, frozenset(
        word for model in stream.furniture.models if not model.heldout for word in words(model.name)
    )


def run_stereo(args: argparse.Namespace, console: Console) -> None:
    from gsemsplat_ros.evaluation.stereo_pairs import evaluate_stereo
    from gsemsplat_ros.pipeline import Pipeline

    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    finish('stereo', evaluate_stereo(pipeline, args.labels, args.branches), args, console)


def run_calibrate(args: argparse.Namespace, console: Console) -> None:
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


def finish(name: str, result: dict, args: argparse.Namespace, console: Console) -> None:
    """Show the numbers, and keep them in the card where asked to."""
    if args.card:
        from gsemsplat_ros.checkpoints.checkpoint import SHIPPED, add_scores

        add_scores(
            args.weights or SHIPPED,
            name,
            {
                key: round(value, 4) if isinstance(value, float) else value
                for key, value in result.items()
                if isinstance(value, (int, float, str)) or value is None
            },
        )
    show(result, console)


def show(result: dict, console: Console) -> None:
    """Means with their 95 % intervals; the lists of single phrases only with --json."""
    intervals = result['intervals']
    console.table(
        [
            (name, result[name], '{:.4g} to {:.4g}'.format(*interval) if interval else '-')
            for name, interval in intervals.items()
        ],
        ('measure', 'mean', '95 % interval'),
    )
    console.table(
        [
            (name, value)
            for name, value in result.items()
            if name not in intervals and not isinstance(value, (dict, list))
        ]
    )
    console.result(result)
