"""`gsemsplat eval map`: scores the map that a robot makes of houses that change."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.eval.shared import HEIGHT, WIDTH
from gsemsplat_ros.terminal.arguments import Actions, add_model_arguments, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console

SETTINGS = 'stereo', 'stereo_tf', 'sequential', 'sequential_tf'  # copy of evaluation.map_houses.SETTINGS
FEWEST = 4  # keyframes: two a round


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'map',
        help='the map of a robot in synthetic houses where things are taken away and moved',
        description='Drives a camera twice around synthetic houses of four rooms, takes some things away and '
        'moves others between the rounds, and scores the map: drift, what stays of what went, what is lost '
        'of what stands, relocalisation, boxes of the things. Needs the packages of `make training-setup`.',
    )
    parser.add_argument(
        '--houses', type=at_least_one, default=2, metavar='N', help='number of houses (default: %(default)s)'
    )
    parser.add_argument(
        '--keyframes',
        type=at_least_one,
        default=200,
        metavar='N',
        help='keyframes in each, over both rounds (default: %(default)s)',
    )
    parser.add_argument(
        '--settings',
        nargs='+',
        choices=SETTINGS,
        default=SETTINGS,
        metavar='SETTING',
        help=f'cameras, with or without given poses (default: {" ".join(SETTINGS)})',
    )
    add_model_arguments(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Draw the houses and score the map in them. Raises ValueError for too few keyframes, and without
    furniture or EGL."""
    from gsemsplat_ros.evaluation.map_houses import MEASURES, evaluate_house, summarise, walkers
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.rooms.furniture import load_furniture
    from gsemsplat_ros.rooms.renderer import RoomRenderer

    if args.keyframes < FEWEST:
        raise ValueError(f'--keyframes {args.keyframes}: two rounds need at least {FEWEST}')
    renderer = RoomRenderer(load_furniture(), HEIGHT, WIDTH)
    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    scores = []
    with console.progress(args.houses * args.keyframes, 'keyframe', 'driving') as bar:
        for seed in range(args.houses):
            walker, elsewhere = walkers(renderer, seed)
            scores.append(
                evaluate_house(pipeline, walker, elsewhere, args.keyframes, args.settings, seed, bar.update)
            )
    result = {**summarise(scores), 'houses': args.houses, 'keyframes': args.keyframes}
    settings = result['settings']
    console.table(
        [
            (
                measure,
                *(_cell(values[measure], values['intervals'][measure]) for values in settings.values()),
                text,
            )
            for measure, text in MEASURES.items()
        ],
        ('measure', *settings, 'meaning'),
    )
    for name, values in settings.items():
        for reason, count in sorted(values['left_out'].items(), key=lambda item: -item[1])[:3]:
            console.say(f'{name}: {count} left out: {reason}')
    for reason in result['not_measured']:
        console.say(f'not measured: {reason}')
    console.result(result)


def _cell(value: float | None, interval: tuple[float, float] | None) -> str:
    """A mean, and between brackets the interval over houses."""
    if value is None:
        return '-'
    return f'{value:.3g}' + (' [{:.2g}, {:.2g}]'.format(*interval) if interval else '')
