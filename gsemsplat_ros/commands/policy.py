"""`gsemsplat policy`: the node's permissions, for SROS 2."""

from __future__ import annotations

import argparse
import re

from gsemsplat_ros.terminal.arguments import add_output_arguments
from gsemsplat_ros.terminal.console import Console

PATH = r'[A-Za-z_]\w*(?:/[A-Za-z_]\w*)*'  # of ROS names; no wildcard of DDS or XML
NAME = re.compile(f'(?:~?/)?{PATH}', re.ASCII)
NAMESPACE = re.compile(f'/?(?:{PATH})?', re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: the remappings and namespace of the node."""
    parser.description = (
        f'{parser.description} Prints a policy that allows the node its own topics and services and no '
        'others, for `ros2 security create_permission KEYSTORE /gsemsplat policy.xml`.'
    )
    parser.add_argument(
        'remap',
        nargs='*',
        metavar='FROM:=TO',
        type=_remap,
        help='remappings of the node, e.g. left/image_raw:=/camera/left/image_rect',
    )
    parser.add_argument(
        '--namespace', type=_namespace, default='', metavar='NAME', help='of the node (default: none)'
    )
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Print the policy. Raises ValueError for names that the node does not have."""
    from gsemsplat_ros.ros.policy import permissions, policy

    remaps = dict(args.remap)
    known = {name for names in permissions().values() for name in names}
    strangers = [name for name in remaps if '/' + name.lstrip('/') not in known and not name.startswith('~')]
    if strangers:
        raise ValueError(
            f'the node has no topic or service {strangers[0]}: wanted names such as left/image_raw or query'
        )
    console.say(policy(args.namespace, remaps).rstrip())
    console.result(permissions(args.namespace, remaps))


def _namespace(text: str) -> str:
    if not NAMESPACE.fullmatch(text):
        raise argparse.ArgumentTypeError(f'{text!r}: wanted a namespace of ROS, such as /robot1/front')
    return text


def _remap(text: str) -> tuple[str, str]:
    name, sign, other = text.partition(':=')
    if not sign or not NAME.fullmatch(name) or not NAME.fullmatch(other):
        raise argparse.ArgumentTypeError(f'{text!r}: wanted FROM:=TO, two names of ROS')
    return name, other
