"""Arguments that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeAlias

# of a command with subcommands of its own
Actions: TypeAlias = 'argparse._SubParsersAction[argparse.ArgumentParser]'
DEVICES = 'auto', 'cpu', 'cuda'  # copy of device.NAMES, so that `--help` does not import PyTorch


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --json and --quiet, the same for every command."""
    group = parser.add_argument_group('output')
    group.add_argument(
        '--json', action='store_true', help='print the result as one JSON object, the last line of stdout'
    )
    group.add_argument('--quiet', action='store_true', help='print no notes and no progress bar')


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --weights and --text-checkpoint, for commands that load a network with its text encoder."""
    parser.add_argument('--weights', metavar='FILE', help='checkpoint (default: the shipped network)')
    parser.add_argument(
        '--text-checkpoint', metavar='FILE', help='OpenCLIP file, for checkpoints that need OpenCLIP'
    )


def add_device_argument(parser: argparse._ActionsContainer, help: str) -> None:
    """Add --device with this `help`."""
    parser.add_argument('--device', choices=DEVICES, default='auto', help=help)


def positive(text: str) -> float:
    """An argparse type: a number above zero."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not above zero')
    return number


def at_least_one(text: str) -> int:
    """An argparse type: a whole number from one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is less than one')
    return number


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to below 1."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not from 0 to below 1')
    return number


def port(text: str) -> int:
    """An argparse type: a port, 0 for any free one."""
    number = int(text)
    if not 0 <= number < 65536:
        raise argparse.ArgumentTypeError(f'{text} is no port: wanted 0 to 65535')
    return number


def pixels(multiple: int) -> Callable[[str], int]:
    """An argparse type: a side of an image [px], at least 32 and a multiple of `multiple`."""

    def side(text: str) -> int:
        number = int(text)
        if number < 32 or number % multiple:
            raise argparse.ArgumentTypeError(f'{text} px: wanted a multiple of {multiple} from 32')
        return number

    return side
