"""`gsemsplat train`: the small network, from packed rooms."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.console import Console, add_output_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from gsemsplat_ros.training import train
    train.add_arguments(parser)
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    from gsemsplat_ros.training import train
    result = train.run(args)
    console.say(f'{result["checkpoint"]} after {result["steps"]} steps')
    console.table(list(result['losses'].items()), ('loss', 'value'))
    console.result(result)
