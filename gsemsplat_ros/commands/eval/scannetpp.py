"""`gsemsplat eval scannetpp`: the published evaluation on annotated views, with baselines and a report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsemsplat_ros.terminal.arguments import (
    Actions,
    add_device_argument,
    add_model_arguments,
    add_output_arguments,
    fraction,
)
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    import numpy as np

    from gsemsplat_ros.evaluation.annotated_views import AnnotatedView, Inputs
    from gsemsplat_ros.evaluation.methods import Method

OPENCLIP = 'openclip:ViT-B-16'  # the text space of the public networks


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat eval`."""
    parser = actions.add_parser(
        'scannetpp',
        help='the published evaluation on annotated views of ScanNet++',
        description='Scores queries and new views on the published eval_datasets (one folder a '
        'scene: frame_*.json and .jpg, mask_*.npy, queries.txt), from the images '
        'that a network is given or from saved features.',
    )
    parser.add_argument('data', metavar='DIR', help='the published eval_datasets, or one scene of it')
    parser.add_argument(
        '--scannetpp',
        metavar='ROOT',
        help='ScanNet++ on disk: the input pair of each view is found there, for scenes without cameras.json',
    )
    parser.add_argument(
        '--features', action='store_true', help='score restored_feat.npy (or .npz) instead of a network'
    )
    add_model_arguments(parser)
    parser.add_argument(
        '--splatt3r',
        metavar='FILE',
        help='converted Splatt3R checkpoint for the row without words (default: the same network)',
    )
    parser.add_argument(
        '--lpips',
        metavar='FILE',
        help='public Splatt3R or GSemSplat file, which carries the weights of LPIPS (default: without LPIPS)',
    )
    parser.add_argument(
        '--calibrated',
        action='store_true',
        help='give the network the cameras and poses of its input, unlike the published setting',
    )
    parser.add_argument(
        '--threshold',
        type=fraction,
        default=0.5,
        metavar='T',
        help='threshold of the published masks (default: %(default)s; LangSplat: 0.4)',
    )
    parser.add_argument('--eight', action='store_true', help="also score LSM's eight classes")
    add_device_argument(parser, 'device of the network')
    parser.add_argument('--out', metavar='DIR', help='folder for report.html and scores.json')
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> None:
    """Score every annotated view, and write the report if --out is given."""
    from gsemsplat_ros.commands.eval.scannetpp_report import evaluation_page, show, view_section
    from gsemsplat_ros.evaluation import annotated_views
    from gsemsplat_ros.evaluation.annotated_scores import evaluate_frames, summarise
    from gsemsplat_ros.terminal.output import output_folder, write_json, write_text

    scenes = annotated_views.find_scenes(args.data)
    find = None if args.features else inputs_finder(args.scannetpp, scenes)
    out = output_folder(args.out) if args.out else None
    notes: list[str] = []
    perceptual = perceptual_measure(args, notes)
    methods, made = saved_features(args) if args.features else networks(args, notes)
    results, sections = [], []
    views = sum(len(annotated_views.annotation_files(scene)) for scene in scenes)
    with console.progress(views, 'view', 'scoring') as bar:
        for result in evaluate_frames(args.data, methods, find, args.threshold, args.eight, perceptual):
            if out:
                sections.append(view_section(result))
            bare = [
                replace(method, published=None, corrected=None, picture=None) for method in result.methods
            ]
            results.append(replace(result, methods=bare))
            bar.update()
    summary = {
        'source': 'features' if args.features else 'images',
        'threshold': args.threshold,
        'calibrated': args.calibrated,
        **made,
        **summarise(results),
        'notes': notes,
    }
    show(summary, console)
    if out:
        write_json(out / 'scores.json', summary)
        write_text(out / 'report.html', evaluation_page(summary, sections, args.command_line))
        console.say(str(out / 'report.html'))
    console.result(summary)


def perceptual_measure(
    args: argparse.Namespace, notes: list[str]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """LPIPS from --lpips; None, with a note, without. Raises ValueError."""
    from gsemsplat_ros.device import choose
    from gsemsplat_ros.evaluation.image_quality import load_lpips

    if args.lpips:
        return load_lpips(args.lpips, choose(args.device))
    notes.append(
        'LPIPS is left out: give --lpips FILE, the public Splatt3R checkpoint, which has its weights'
    )
    return None


def networks(args: argparse.Namespace, notes: list[str]) -> tuple[Sequence[Method], dict[str, Any]]:
    """Our network and its baselines, and their checkpoint and text encoder for the summary."""
    from gsemsplat_ros.checkpoints.checkpoint import read_card
    from gsemsplat_ros.evaluation.methods import ColorOnly, LiftedFeatures, Network
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.semantics.text_spaces import sentence_space
    from gsemsplat_ros.supervision.encoders import load_image_encoder

    if args.splatt3r:
        read_card(args.splatt3r)  # fail before the other network is loaded
    pipeline = Pipeline.load(args.weights, args.device, args.text_checkpoint, exact=True)
    network = Network(pipeline, args.calibrated)
    colour = ColorOnly.load(args.splatt3r, pipeline.device) if args.splatt3r else ColorOnly(pipeline.network)
    methods: list[Method] = [network, colour]
    try:
        space = sentence_space(pipeline.text_encoder.name)
        encoder = load_image_encoder(space, args.text_checkpoint, pipeline.device.type)
        methods.append(LiftedFeatures(network, encoder.dense))
    except ValueError as error:
        notes.append(f'{LiftedFeatures.name} are left out: {error}')
    return methods, {'weights': pipeline.weights, 'text_encoder': pipeline.text_encoder.name}


def saved_features(args: argparse.Namespace) -> tuple[Sequence[Method], dict[str, Any]]:
    """The method of saved features, in the text space of --weights, else of OpenCLIP from --text-checkpoint,
    else of the shipped network."""
    from gsemsplat_ros.checkpoints import checkpoint as weights
    from gsemsplat_ros.evaluation.methods import SavedFeatures
    from gsemsplat_ros.semantics.relevancy import CANONICAL
    from gsemsplat_ros.semantics.text_spaces import load_text_encoder, sentence_space

    if args.text_checkpoint and not args.weights:
        encoder = load_text_encoder(OPENCLIP, args.text_checkpoint)
    else:
        checkpoint = weights.load(args.weights)
        mean = None if checkpoint.text_mean is None else checkpoint.text_mean.numpy()
        encoder = load_text_encoder(
            sentence_space(checkpoint.card['text_encoder']), args.text_checkpoint, mean
        )
    return [SavedFeatures(encoder, encoder.encode(CANONICAL))], {
        'weights': None,
        'text_encoder': encoder.name,
    }


def inputs_finder(root: str | None, scenes: list[Path]) -> Callable[[Path, AnnotatedView], Inputs | None]:
    """A function (scene folder, view) -> input pair, from ScanNet++ at `root`.

    Raises ValueError if a scene has neither `root` nor cameras.json.
    """
    alone = [scene for scene in scenes if not (scene / 'cameras.json').exists()]
    if alone and root is None:
        raise ValueError(
            f'{alone[0]} has no cameras.json, which names the two input images of its views: give '
            '--scannetpp ROOT to find them, or --features to score restored_feat.npy'
        )
    if root is None or not alone:
        return lambda folder, frame: None
    from gsemsplat_ros.datasets.scannetpp import ScanNetPP
    from gsemsplat_ros.evaluation.input_pairs import find_inputs

    splits = [
        split
        for split in ('val', 'train')
        if (Path(root) / 'raw' / 'splits' / f'nvs_sem_{split}.txt').is_file()
    ]
    splits = splits or ['val']
    ScanNetPP(root, splits[0])  # fail before the network is loaded

    def find(folder: Path, frame: AnnotatedView) -> Inputs | None:
        sources = [ScanNetPP(root, split, frame.image.shape[0], frame.image.shape[1]) for split in splits]
        return find_inputs(
            next((s for s in sources if folder.name in s.scenes), sources[0]), folder.name, frame
        )

    return find
