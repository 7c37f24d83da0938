"""`gsemsplat train semantics`: trains semantic heads and decoders of a network on prepared features."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsemsplat_ros.commands.train.shared import (
    add_training_arguments,
    options_of,
    several_processes,
    show_result,
)
from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat train`."""
    parser = actions.add_parser(
        'semantics',
        help='train semantic heads and decoders on prepared features',
        description='Renders the codes of two views at other views, decodes them and compares them with the '
        'features that `train prepare` made. Defaults are the published settings.',
    )
    parser.add_argument('source', type=Path, metavar='SOURCE', help='the prepared scenes')
    parser.add_argument(
        '--features', type=Path, required=True, metavar='DIR', help='output of `train prepare`'
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder of the run; an interrupted run is resumed',
    )
    parser.add_argument(
        '--init',
        type=Path,
        metavar='FILE',
        help='network to start from: a converted Splatt3R, MASt3R or GSemSplat file, or one of ours '
        '(default: the shipped network)',
    )
    parser.add_argument(
        '--tune',
        choices=('semantics', 'gaussians', 'all'),
        default='gaussians',
        help='trained parameters: semantic heads and decoders; also the Gaussian heads; all '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--lpips',
        type=Path,
        metavar='FILE',
        help='public Splatt3R or GSemSplat file, whose LPIPS weights the perceptual loss needs '
        '(default: no perceptual loss)',
    )
    add_training_arguments(parser, steps=66900, lr=1e-5)
    parser.add_argument(
        '--accumulate',
        type=at_least_one,
        default=1,
        metavar='K',
        help='split the pairs of a process into K turns to save memory (default: %(default)s)',
    )
    parser.epilog = several_processes('train semantics')
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Train the semantic heads and decoders."""
    from gsemsplat_ros.training.loop import run as train
    from gsemsplat_ros.training.options import SemanticHeadsOptions
    from gsemsplat_ros.training.semantic_heads import SemanticHeadsTrainer

    show_result(train(SemanticHeadsTrainer, options_of(SemanticHeadsOptions, args), args.quiet), console)
