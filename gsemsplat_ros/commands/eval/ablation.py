"""`gsemsplat eval ablation`: the contribution of each semantic branch, in rooms and on labelled pairs."""

from __future__ import annotations

import argparse
from typing import Any

from gsemsplat_ros.commands.eval.shared import draw_held_out_rooms, score_cell
from gsemsplat_ros.terminal.arguments import Actions, add_model_arguments, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console

TITLES = {
    'localisation_accuracy': 'localisation',
    'taught_localisation': 'of taught words',
    'new_localisation': 'of new words',
    'mask_iou': 'mIoU of the mask',
    'miou_argmax': 'mIoU by argmax',
    'told_apart': 'told apart',
}


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'ablation',
        help='contribution of each semantic branch',
        description='Queries the same scenes with the region-specific branch alone, with the '
        'context-aware one alone and with both. Rooms need the packages of '
        '`make training-setup`.',
    )
    parser.add_argument(
        '--rooms',
        type=at_least_one,
        default=3,
        metavar='N',
        help='number of rooms, of up to 8 pairs each (default: %(default)s)',
    )
    parser.add_argument(
        '--labels', metavar='LABELS.json', help='also labelled real pairs, as in `eval pairs`'
    )
    add_model_arguments(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Score each branch alone and both."""
    from gsemsplat_ros.evaluation.ablation import ablate_pairs, ablate_rooms
    from gsemsplat_ros.pipeline import Pipeline

    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    result: dict[str, Any] = {}
    if args.labels:
        result['real'] = ablate_pairs(pipeline, args.labels)
    samples, taught = draw_held_out_rooms(args.rooms, console)
    result['rooms'] = ablate_rooms(pipeline, samples, taught=taught)
    for name, part in result.items():
        console.say(f'{name}, {part["pairs"]} pairs')
        show(part, console)
        console.say()
    console.result(result)


def show(result: dict[str, Any], console: Console) -> None:
    """Print the scores of the branches and the contribution of each, with 95 % intervals."""
    measures = list(result['rows']['both'])
    header = ('branches', *(TITLES[name] for name in measures))
    console.table(
        [
            (branch, *(score_cell(values[name], result['intervals'][branch][name]) for name in measures))
            for branch, values in result['rows'].items()
        ]
        + [
            (
                f'added by {branch}',
                *(score_cell(values[name]['mean'], values[name]['interval'], '+') for name in measures),
            )
            for branch, values in result['added'].items()
        ],
        header,
    )
