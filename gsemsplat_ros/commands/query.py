"""`gsemsplat query`: query a running node."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from gsemsplat_ros.terminal.arguments import add_output_arguments, at_least_one, positive
from gsemsplat_ros.terminal.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: the queries, and the service of the node."""
    parser.add_argument(
        'text', nargs='+', metavar='TEXT', help='objects to look for; quote phrases of several words'
    )
    parser.add_argument(
        '--service', default='/query', metavar='NAME', help='service of the node (default: %(default)s)'
    )
    parser.add_argument(
        '--threshold',
        type=positive,
        metavar='R',
        help="relevancy from which a phrase counts as found, below 1 (default: the node's)",
    )
    parser.add_argument(
        '--max-objects',
        type=at_least_one,
        metavar='N',
        help="most objects in one answer (default: the node's)",
    )
    parser.add_argument(
        '--timeout', type=positive, default=10.0, metavar='S', help='longest wait [s] (default: %(default)g)'
    )
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Query the node and print the answers. Raises ValueError without the service."""
    from gsemsplat_ros.ros.client.client import Client
    from gsemsplat_ros.terminal.results import say_notes

    with Client() as client:
        if not client.wait_for_service(args.service, args.timeout):
            raise ValueError(
                f'no service {args.service} within {args.timeout:g} s: start `gsemsplat node`, and '
                f'compare ROS_DOMAIN_ID, which is {os.environ.get("ROS_DOMAIN_ID", "not set")} here'
            )
        replies = [
            client.ask(
                text,
                args.timeout,
                service=args.service,
                threshold=args.threshold or 0.0,
                max_objects=args.max_objects or 0,
            )
            for text in args.text
        ]
    header = replies[-1][1]
    rows = []
    for answer in (reported.answer for reported, _ in replies):
        rows.append(
            (
                answer.text,
                answer.state,
                f'{answer.score:.3f}',
                _numbers(answer.peak_pixel, 0),
                _numbers(answer.peak_point, 2),
                '-',
            )
        )
        rows += [
            (
                '',
                f'object #{thing.id}' if thing.id else f'object {i}',
                f'{thing.score:.3f}',
                '',
                _numbers(thing.center, 2),
                _numbers(thing.size, 2),
            )
            for i, thing in enumerate(answer.objects, 1)
        ]
    console.table(rows, ('query', 'answer', 'score', 'peak [px]', 'at x, y, z [m]', 'size [m]'))
    say_notes(console, (reported.answer for reported, _ in replies))
    console.say(f'frame {header.frame_id}, images of {header.stamp.sec}.{header.stamp.nanosec:09d} s')
    console.result(
        {
            'frame': header.frame_id,
            'stamp_ns': header.stamp.sec * 10**9 + header.stamp.nanosec,
            'queries': [reported.summary() for reported, _ in replies],
        }
    )


def _numbers(values: Sequence[float] | None, digits: int) -> str:
    return '-' if values is None else ', '.join(f'{value:.{digits}f}' for value in values)
