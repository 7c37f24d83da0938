"""`gsemsplat eval protocol`: compares the published evaluation with stored results."""

from __future__ import annotations

import argparse

from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments
from gsemsplat_ros.terminal.console import Console, Failure


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'protocol',
        help='compare the published evaluation of queries with stored results',
        description='Repeats the published evaluation of text queries on stored features and '
        'compares with the stored results.',
    )
    parser.add_argument('fixture', metavar='FIXTURE.npz')
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Compare and print. Raises Failure if a result differs."""
    from gsemsplat_ros.evaluation.published import check_protocol

    result = check_protocol(args.fixture)
    console.table(list(result.items()), ('check', 'result'))
    console.result(result)
    if not result['passed']:
        raise Failure(f'{args.fixture}: the evaluation does not repeat the stored results')
