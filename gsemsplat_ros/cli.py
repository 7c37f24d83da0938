"""The command `gsemsplat`: finds the subcommand, runs it, and turns errors into one line and an exit status.

Exit status 0: done; 1: a failure of the program or the machine; 2: an error of the user; 130: Ctrl-C. Only
the chosen subcommand's module is imported, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

from gsemsplat_ros.terminal.console import Console, Failure, printable
from gsemsplat_ros.terminal.log_notes import log_as_notes

PROG = 'gsemsplat'
COMMANDS = {
    'demo': 'play real stereo pairs to the ROS 2 node, query it, write a report',
    'infer': 'turn two image files into semantic Gaussians and query them, without ROS',
    'node': 'run the ROS 2 node (takes ROS arguments)',
    'query': 'ask a running node where objects are',
    'drive': 'send the robot to an object by its name, with Nav2',
    'policy': "print the node's permissions for SROS 2",
    'splats': 'send Gaussians on to RVizSplat, a display of RViz',
    'view': 'show a scene, a map or the running node in the browser, and query it',
    'export': 'write a scene or a map as a file that other programs open',
    'map': 'say what a saved map holds, or merge two maps of one place',
    'weights': 'convert, describe or check checkpoints',
    'eval': 'measure the accuracy of a checkpoint',
    'bench': 'measure speed and memory, compared with the public algorithm',
    'gpu': 'run everything that needs a GPU: tests, benches, a profile, training',
    'train': 'train the small network',
}


class Parser(argparse.ArgumentParser):
    """argparse with errors as ValueErrors of one line, and without abbreviated options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises ValueError with `message` in one line."""
        raise ValueError(f'{message}; see `{self.prog} --help`')


def build_parser(chosen: str | None) -> Parser:
    """The parser, with the arguments of the `chosen` command only."""
    parser = Parser(
        prog=PROG, description='Turns two camera images into a 3D scene that can be searched with words.'
    )
    parser.add_argument(
        '--version', action='store_true', help='print the versions of this package and what it runs on'
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', title='commands', prog=PROG)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
        if name == chosen:
            importlib.import_module(f'gsemsplat_ros.commands.{name}').add_arguments(command)
    return parser


def run(argv: list[str]) -> int:
    """Run a command line and return its exit status; failures are exceptions."""
    for word in argv:
        if not word.isprintable() and any('\ud800' <= c <= '\udfff' for c in word):
            raise ValueError(f'{word!a} is not UTF-8: rename the file, or type it in UTF-8')
    chosen = next((word for word in argv if not word.startswith('-')), None)
    parser = build_parser(chosen)
    args, unknown = parser.parse_known_args(argv)
    if unknown and args.command != 'node':
        raise ValueError(
            f'unrecognized arguments: {" ".join(unknown)}; see `{PROG} {args.command or ""} --help`'
        )
    if args.version:
        from gsemsplat_ros.terminal.versions import versions

        print('\n'.join(f'{name} {version}' for name, version in versions().items()))
        return 0
    if not args.command:
        parser.print_help()
        return 2
    if args.command == 'node':
        from gsemsplat_ros.commands import node

        return node.run(unknown)
    args.command_line = [PROG, *argv]
    console = Console(args.json, args.quiet)
    with log_as_notes(console):
        args.run(args, console)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run `argv` (None: the process's arguments); prints errors in one line on stderr, returns the status."""
    # before torch is imported: idle threads must sleep, or a node and its neighbours starve each other
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
    try:
        if hasattr(signal, 'SIGTERM'):
            signal.signal(signal.SIGTERM, _end)  # so that `finally` runs and stops child processes
        return run(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:  # --help, SIGTERM
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of stdout has closed it; without this the interpreter would fail again in its final flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ValueError as error:
        return _complain(str(error), 2)
    except Failure as error:
        return _complain(str(error), 1)
    except ModuleNotFoundError as error:
        return _complain(_missing(error), 1)
    except OSError as error:
        return _complain(str(error), 1)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _complain(
            f'internal error: {type(error).__name__}: {error} ({where.filename}:{where.lineno}); '
            'please report it',
            1,
        )


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _complain(message: str, status: int) -> int:
    print(f'{PROG}: {printable(" ".join(message.split()))}', file=sys.stderr)
    return status


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or str(error)).partition('.')[0]
    if name == 'rclpy' or name.endswith(('_msgs', '_interfaces')):
        return (
            f'{name} is missing: source your ROS 2 installation and workspace, or use the environment of '
            '`make setup`'
        )
    if name in ('moderngl', 'trimesh'):
        return (
            f'the Python package {name} is missing: `make training-setup` installs what rendering rooms needs'
        )
    return f'the Python package {name} is missing: install it, or use the environment of `make setup`'


if __name__ == '__main__':
    sys.exit(main())
