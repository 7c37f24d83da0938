"""Shared by the actions of `gsemsplat eval`: arguments, held-out rooms, and tables of scores."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gsemsplat_ros.terminal.arguments import add_model_arguments
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.datasets.sample import Sample

HEIGHT, WIDTH = 384, 512  # of the rendered rooms [px]


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add arguments: checkpoint, branches, and whether to write its card."""
    add_model_arguments(parser)
    parser.add_argument(
        '--branches',
        choices=('both', 'region', 'context'),
        default='both',
        help='which semantic branches answer (default: %(default)s)',
    )
    parser.add_argument(
        '--card', action='store_true', help="write the numbers into the checkpoint's card; with --weights"
    )


def check_card(args: argparse.Namespace) -> None:
    """Raises ValueError for --card without a checkpoint: the one in the package is changed by nobody who
    did not name it.
    """
    if args.card and not args.weights:
        raise ValueError('whose card? --card changes a checkpoint: give --weights FILE')


def draw_held_out_rooms(rooms: int, console: Console) -> tuple[list[Sample], frozenset[str]]:
    """Pairs of this number of rooms of held-out furniture, and the words of the training furniture."""
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


def report_scores(name: str, result: dict[str, Any], args: argparse.Namespace, console: Console) -> None:
    """Print the scores, and with --card write them into the card under `name`."""
    if args.card:
        write_card(name, result, args.weights)
    intervals = result['intervals']
    console.table(
        [
            (measure, result[measure], '{:.4g} to {:.4g}'.format(*interval) if interval else '-')
            for measure, interval in intervals.items()
        ],
        ('measure', 'mean', '95 % interval'),
    )
    console.table(  # the lists of single phrases only with --json
        [
            (measure, value)
            for measure, value in result.items()
            if measure not in intervals and not isinstance(value, (dict, list))
        ]
    )
    console.result(result)


def write_card(name: str, result: dict[str, Any], weights: str) -> None:
    """Write the single values of the scores into the card of the checkpoint `weights` under `name`."""
    from gsemsplat_ros.checkpoints.checkpoint import add_scores

    scores = {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in result.items()
        if isinstance(value, (int, float, str)) or value is None
    }
    add_scores(weights, name, scores)


def score_cell(value: float | None, interval: tuple[float, float] | None, sign: str = '') -> str:
    """A mean with its 95 % interval as text; `sign`: '+' for differences."""
    if value is None:
        return '-'
    text = f'{value:{sign}.2f}'
    return text if interval is None else text + ' [{:{s}.2f}, {:{s}.2f}]'.format(*interval, s=sign)
