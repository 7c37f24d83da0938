"""`gsemsplat eval rooms`: scores a checkpoint in synthetic rooms of held-out furniture."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.eval.shared import (
    add_score_arguments,
    check_card,
    draw_held_out_rooms,
    report_scores,
)
from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'rooms',
        help='depth, pose, new views and queries in held-out synthetic rooms',
        description='Renders rooms with held-out furniture and scores the '
        'checkpoint in them. Needs the packages of `make training-setup`.',
    )
    parser.add_argument(
        '--rooms',
        type=at_least_one,
        default=20,
        metavar='N',
        help='number of rooms, of up to 8 pairs each (default: %(default)s)',
    )
    add_score_arguments(parser)
    parser.add_argument('--uncalibrated', action='store_true', help='use the images alone, without cameras')
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Render the rooms and score the checkpoint in them."""
    from gsemsplat_ros.evaluation.held_out_rooms import evaluate_rooms
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.rooms.furniture import base_noun

    check_card(args)
    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    samples, taught = draw_held_out_rooms(args.rooms, console)
    nouns = {name: base_noun(name) for sample in samples for name in sample.names[1:]}
    result = evaluate_rooms(
        pipeline,
        samples,
        branches=args.branches,
        taught=taught,
        calibrated=not args.uncalibrated,
        nouns=nouns,
    )
    report_scores('rooms', result, args, console)
