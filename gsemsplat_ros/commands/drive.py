"""`gsemsplat drive`: query a running node for an object, and send the robot there with Nav2."""

from __future__ import annotations

import argparse

from gsemsplat_ros.terminal.arguments import add_output_arguments, positive
from gsemsplat_ros.terminal.console import Console, Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: the object, and the interfaces of the node and of Nav2."""
    parser.add_argument('text', metavar='TEXT', help="what to drive to, e.g. 'red chair'")
    parser.add_argument(
        '--service', default='/query', metavar='NAME', help='service of the node (default: %(default)s)'
    )
    parser.add_argument(
        '--action', default='navigate_to_pose', metavar='NAME', help='action of Nav2 (default: %(default)s)'
    )
    parser.add_argument(
        '--timeout', type=positive, default=300.0, metavar='S', help='for the way [s] (default: %(default)g)'
    )
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Query the node and send the robot there. Raises ValueError, and Failure if it does not arrive."""
    from gsemsplat_ros.ros.client.client import Client
    from gsemsplat_ros.ros.client.drive import check_nav2, drive, find

    check_nav2()  # fail before the query, not after it
    with Client() as client:
        goal = find(client, args.text, args.service)
        at, frame = goal.pose.position, goal.header.frame_id
        console.note(f"'{args.text}': driving to ({at.x:.2f}, {at.y:.2f}, {at.z:.2f}) m in {frame}")
        if goal.header.stamp.sec:
            console.note(
                f"{frame} is the camera's frame, and the goal is where it stood at its image: set the node's "
                'map_frame for a goal in a fixed frame'
            )
        if reason := drive(client, goal, args.action, args.timeout):
            raise Failure(f"the robot did not reach '{args.text}': {reason}")
    console.say('arrived')
    console.result({'text': args.text, 'frame': frame, 'goal': [at.x, at.y, at.z]})
