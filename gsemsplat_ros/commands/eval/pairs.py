"""`gsemsplat eval pairs`: scores a checkpoint on labelled real pairs."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.eval.shared import add_score_arguments, check_card, write_card
from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments
from gsemsplat_ros.terminal.console import Console


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'pairs',
        help='queries, poses and depth on labelled real pairs',
        description='Scores the checkpoint on labelled pairs, rectified or free, beside an untrained '
        'classifier.',
    )
    parser.add_argument('labels', metavar='LABELS.json')
    add_score_arguments(parser)
    parser.add_argument('--uncalibrated', action='store_true', help='use the images alone, without cameras')
    parser.add_argument('--out', metavar='DIR', help='folder for report.html and scores.json')
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Score the checkpoint on the labelled pairs, and write the report if --out is given."""
    from gsemsplat_ros.commands.eval.pairs_report import pairs_page, show, view_section
    from gsemsplat_ros.evaluation.dense_classifier import ClassifierPeer
    from gsemsplat_ros.evaluation.labelled_pairs import PairScores, evaluate_pairs
    from gsemsplat_ros.evaluation.pair_labels import LabelledPair
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.report.markup import Markup
    from gsemsplat_ros.terminal.output import output_folder, write_json, write_text

    check_card(args)
    out = output_folder(args.out) if args.out else None
    pipeline = Pipeline.load(args.weights, text_checkpoint=args.text_checkpoint)
    sections: list[Markup] = []

    def add_section(labelled: LabelledPair, scores: PairScores) -> None:
        if out:
            sections.append(view_section(labelled, scores))

    result = evaluate_pairs(
        pipeline,
        args.labels,
        args.branches,
        calibrated=not args.uncalibrated,
        classifier=ClassifierPeer.of(pipeline.model),
        show=add_section,
    )
    show(result, console)
    if args.card:
        write_card('pairs_uncalibrated' if args.uncalibrated else 'pairs', result, args.weights)
    if out:
        write_json(out / 'scores.json', result)
        write_text(out / 'report.html', pairs_page(result, sections, pipeline.weights, args.command_line))
        console.say(str(out / 'report.html'))
    console.result(result)
