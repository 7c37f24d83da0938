"""Shared by `gsemsplat train` and `gsemsplat train semantics`: arguments, options and output."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, TypeVar

from gsemsplat_ros.terminal.arguments import add_device_argument, at_least_one, positive
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.training.loop import TrainingResult
    from gsemsplat_ros.training.options import TrainingOptions

    Options = TypeVar('Options', bound=TrainingOptions)


def add_training_arguments(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, steps: int, lr: float
) -> None:
    """Add the arguments of every training, with the defaults `steps` and `lr`."""
    parser.add_argument(
        '--steps',
        type=at_least_one,
        default=steps,
        metavar='N',
        help='total steps, also of the learning-rate schedule (default: %(default)s)',
    )
    parser.add_argument(
        '--batch',
        type=at_least_one,
        default=4,
        metavar='N',
        help='pairs in a step, over all processes (default: %(default)s)',
    )
    parser.add_argument(
        '--lr', type=positive, default=lr, metavar='X', help='peak learning rate (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='(default: %(default)s)')
    add_device_argument(parser, '(default: %(default)s, a GPU if available)')
    parser.add_argument('--minutes', type=positive, metavar='M', help='save and stop after this time [min]')


def several_processes(command: str) -> str:
    """Help text on training with several processes."""
    return (
        f'Several processes or machines: torchrun --nproc_per_node=N $(which gsemsplat) {command} ... '
        'with the same arguments. Ctrl-C saves and stops.'
    )


def options_of(kind: type[Options], args: argparse.Namespace) -> Options:
    """The arguments as options; an option without an argument keeps its default."""
    return kind(**{field.name: getattr(args, field.name) for field in fields(kind) if field.name in args})


def show_result(result: TrainingResult | None, console: Console) -> None:
    """Print the result of a training; only its first process has one."""
    if result:
        console.say(f'{result.checkpoint} after {result.steps} steps')
        console.table(list(result.losses.items()), ('loss', 'value'))
        console.result({**asdict(result), 'checkpoint': str(result.checkpoint)})
