"""`gsemsplat eval stereo`: scores a checkpoint on labelled real stereo pairs."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.eval.shared import add_score_arguments, report_scores
from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'stereo',
        help='queries and depth on labelled real stereo pairs',
        description='Scores the checkpoint on labelled rectified pairs.',
    )
    parser.add_argument('labels', metavar='LABELS.json')
    add_score_arguments(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Score the checkpoint on the labelled pairs."""
    from gsemsplat_ros.evaluation.stereo_pairs import evaluate_stereo
    from gsemsplat_ros.pipeline import Pipeline

    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    report_scores('stereo', evaluate_stereo(pipeline, args.labels, args.branches), args, console)
