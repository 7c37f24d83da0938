"""`gsemsplat eval pairs`: scores a checkpoint on labelled real pairs."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.eval.shared import add_score_arguments, report_scores
from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'pairs',
        help='queries, poses and depth on labelled real pairs',
        description='Scores the checkpoint on labelled pairs, rectified or free.',
    )
    parser.add_argument('labels', metavar='LABELS.json')
    add_score_arguments(parser)
    parser.add_argument('--uncalibrated', action='store_true', help='use the images alone, without cameras')
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Score the checkpoint on the labelled pairs."""
    from gsemsplat_ros.evaluation.labelled_pairs import evaluate_pairs
    from gsemsplat_ros.pipeline import Pipeline

    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    result = evaluate_pairs(pipeline, args.labels, args.branches, not args.uncalibrated)
    report_scores('pairs', result, args, console)
