"""`gsemsplat eval floaters`: what leaving floaters out changes, in synthetic rooms of held-out furniture."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.eval.shared import draw_held_out_rooms
from gsemsplat_ros.terminal.arguments import Actions, add_model_arguments, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'floaters',
        help='what `gsemsplat export` gains and loses by leaving out floaters',
        description='Renders rooms with held-out furniture and compares the Gaussians that are left out as '
        'floaters with the true depths, and a new view before and after. Needs the packages of '
        '`make training-setup`.',
    )
    parser.add_argument(
        '--rooms',
        type=at_least_one,
        default=6,
        metavar='N',
        help='number of rooms, of up to 8 pairs each (default: %(default)s)',
    )
    add_model_arguments(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Render the rooms and score the filter in them."""
    from gsemsplat_ros.evaluation.floater_scores import MEASURES, evaluate_floaters
    from gsemsplat_ros.pipeline import Pipeline

    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    samples, _ = draw_held_out_rooms(args.rooms, console)
    result = evaluate_floaters(pipeline, samples)
    intervals = result['intervals']
    rows = [
        (measure, result[measure], '{:.4g} to {:.4g}'.format(*intervals[measure]), text)
        for measure, text in MEASURES.items()
    ]
    console.table(rows, ('measure', 'mean', '95 % interval', 'meaning'))
    console.say(f'{result["pairs"]} pairs')
    console.result(result)
