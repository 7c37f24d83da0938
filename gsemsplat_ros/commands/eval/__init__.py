"""`gsemsplat eval`: the published protocol, and accuracy in rooms, on real pairs and of maps."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.eval import ablation, calibrate, floaters, map, pairs, protocol, rooms, scannetpp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Actions, one per module."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION', title='actions')
    for action in (protocol, rooms, map, pairs, calibrate, ablation, floaters, scannetpp):
        action.add_parser(actions)
