"""`gsemsplat train semantics`: the semantic heads and decoders of a network, from prepared features."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsemsplat_ros.terminal.console import Console, add_output_arguments, at_least_one, positive


def add_parser(actions) -> None:
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
        '(default: the small network that is shipped)',
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
    parser.add_argument(
        '--steps', type=at_least_one, default=66900, metavar='N', help='total steps (default: %(default)s)'
    )
    parser.add_argument(
        '--batch',
        type=at_least_one,
        default=4,
        metavar='N',
        help='pairs in a step, over all processes (default: %(default)s)',
    )
    parser.add_argument(
        '--accumulate',
        type=at_least_one,
        default=1,
        metavar='K',
        help='split the pairs of a process into K turns to save memory (default: %(default)s)',
    )
    parser.add_argument(
        '--lr', type=positive, default=1e-5, metavar='X', help='learning rate (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='(default: %(default)s)')
    parser.add_argument(
        '--device',
        choices=('auto', 'cpu', 'cuda'),
        default='auto',
        help='(default: %(default)s, a GPU if available)',
    )
    parser.add_argument('--minutes', type=positive, metavar='M', help='save and stop after this time [min]')
    parser.epilog = (
        'Several processes or machines: torchrun --nproc_per_node=N $(which gsemsplat) train semantics ... '
        'with the same arguments. Ctrl-C saves and stops.'
    )
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    from gsemsplat_ros.training import semantic_heads as semantics

    result = semantics.run(args, args.quiet)
    if result:  # the other processes say nothing
        console.say(f'{result["checkpoint"]} after {result["steps"]} steps')
        console.table(list(result['losses'].items()), ('loss', 'value'))
        console.result(result)
