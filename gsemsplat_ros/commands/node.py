"""`gsemsplat node`: the ROS 2 node in this process."""

from __future__ import annotations

import argparse

EXAMPLE = 'gsemsplat node --ros-args -p mode:=sequential -r image:=/camera/image_raw'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own: ROS arguments go to the node."""
    parser.usage = 'gsemsplat node [--ros-args ...]'
    parser.epilog = f'Example: {EXAMPLE}. Parameters stand in config/gsemsplat.yaml.'


def run(arguments: list[str]) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status. Raises ValueError for other options."""
    from gsemsplat_ros.ros.arguments import foreign_arguments

    others = foreign_arguments(arguments)
    if others:
        raise ValueError(
            f'the node takes ROS arguments only, not {" ".join(others)}: for example `{EXAMPLE}`'
        )
    from gsemsplat_ros.ros.main import main

    return main(['gsemsplat', *arguments])
