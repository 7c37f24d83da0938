"""`gsemsplat splats`: sends Gaussians to RVizSplat, a display of RViz."""

from __future__ import annotations

import argparse

from gsemsplat_ros.terminal.arguments import add_output_arguments
from gsemsplat_ros.terminal.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: the topic."""
    parser.add_argument(
        'topic',
        nargs='?',
        default='/gsemsplat/gaussians',
        help='of the Gaussians, e.g. /gsemsplat/map; what is heard is its .../packed (default: %(default)s)',
    )
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Send Gaussians until Ctrl-C."""
    from gsemsplat_ros.ros.client import splat_display

    splat_display.run(args.topic)
