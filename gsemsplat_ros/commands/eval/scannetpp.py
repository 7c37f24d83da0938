"""`gsemsplat eval scannetpp`: the published evaluation on annotated views, peers beside the network, a page
of pictures.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

from gsemsplat_ros.commands.eval.ablation import cell
from gsemsplat_ros.terminal.arguments import (
    add_device_argument,
    add_model_arguments,
    add_output_arguments,
    fraction,
)
from gsemsplat_ros.terminal.console import Console

OPENCLIP = 'openclip:ViT-B-16'  # the text space of the public networks
# title -> (measure, its name in the table); parentheses as in the paper: over the visible pixels alone
TABLES = {
    'words, as published': (('miou', 'mIoU'), ('localisation_accuracy', 'localisation')),
    'words, corrected': (('corrected_miou', 'mIoU'), ('corrected_localisation_accuracy', 'localisation')),
    "words, LSM's eight classes": (('eight_miou', 'mIoU'), ('eight_accuracy', 'accuracy')),
    'colours, corrected': (('psnr', 'PSNR [dB]'), ('ssim', 'SSIM'), ('lpips', 'LPIPS')),
    'colours, as published': (
        ('psnr_plain', 'PSNR [dB]'),
        ('psnr_masked', '(PSNR)'),
        ('ssim_plain', 'SSIM'),
        ('lpips_plain', 'LPIPS'),
        ('lpips_masked', '(LPIPS)'),
    ),
}


def add(actions) -> None:
    """Adds the action to `gsemsplat eval`."""
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
        help='public Splatt3R or GSemSplat file, which carries the weights of '
        'LPIPS (default: the package lpips, where it is installed)',
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
    from gsemsplat_ros.evaluation.annotated_scores import evaluate_frames, summarise
    from gsemsplat_ros.evaluation.annotated_views import annotations, find_scenes
    from gsemsplat_ros.terminal.output import output_folder, write_json, write_text

    scenes = find_scenes(args.data)
    find = None if args.features else inputs_finder(args.scannetpp, scenes)
    out = output_folder(args.out) if args.out else None
    notes = []
    perceptual = perceptual_measure(args, notes)
    methods, made = saved_features(args) if args.features else networks(args, notes)
    results, sections = [], []
    with console.progress(sum(len(annotations(scene)) for scene in scenes), 'view', 'scoring') as bar:
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
        write_text(out / 'report.html', evaluation_page(summary, sections, args))
        console.say(str(out / 'report.html'))
    console.result(summary)


def perceptual_measure(args: argparse.Namespace, notes: list[str]):
    """LPIPS from the file that was given or from the package; None, with a note, where it cannot be had."""
    from gsemsplat_ros.device import choose
    from gsemsplat_ros.evaluation.image_quality import load_lpips

    try:
        return load_lpips(args.lpips, choose(args.device))
    except ValueError as error:
        if args.lpips:
            raise
        notes.append(str(error))
        return None


def networks(args: argparse.Namespace, notes: list[str]):
    """Our network and its peers, and what made them."""
    from gsemsplat_ros.checkpoints.checkpoint import read_card
    from gsemsplat_ros.evaluation.methods import ColourOnly, LiftedFeatures, Network
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.supervision.encoders import load_image_encoder

    if args.splatt3r:
        read_card(args.splatt3r)  # a mistake there is known before the other network is loaded
    pipeline = Pipeline.load(args.weights, args.device, args.text_checkpoint, exact=True)
    network = Network(pipeline, args.calibrated)
    colour = (
        ColourOnly.load(args.splatt3r, pipeline.device) if args.splatt3r else ColourOnly(pipeline.network)
    )
    methods = [network, colour]
    try:
        encoder = load_image_encoder(pipeline.text_encoder.name, args.text_checkpoint, pipeline.device.type)
        methods.append(LiftedFeatures(network, encoder.dense))
    except ValueError as error:
        notes.append(f'{LiftedFeatures.name} are left out: {error}')
    return methods, {'weights': pipeline.weights, 'text_encoder': pipeline.text_encoder.name}


def saved_features(args: argparse.Namespace):
    """Saved features in the text space of --weights, of OpenCLIP with --text-checkpoint, or of the shipped
    network.
    """
    from gsemsplat_ros.checkpoints import checkpoint as weights
    from gsemsplat_ros.evaluation.methods import SavedFeatures
    from gsemsplat_ros.semantics.relevancy import CANONICAL
    from gsemsplat_ros.semantics.text import load_text_encoder

    if args.text_checkpoint and not args.weights:
        encoder = load_text_encoder(OPENCLIP, args.text_checkpoint)
    else:
        checkpoint = weights.load(args.weights)
        mean = None if checkpoint.text_mean is None else checkpoint.text_mean.numpy()
        encoder = load_text_encoder(checkpoint.card['text_encoder'], args.text_checkpoint, mean)
    return [SavedFeatures(encoder, encoder.encode(CANONICAL))], {
        'weights': None,
        'text_encoder': encoder.name,
    }


def inputs_finder(root: str | None, scenes: list[Path]):
    """(scene folder, view) -> its input pair, from ScanNet++ at `root`. Raises ValueError where nothing names
    a pair.
    """
    alone = [scene for scene in scenes if not (scene / 'cameras.json').exists()]
    if alone and root is None:
        raise ValueError(
            f'{alone[0]} has no cameras.json, which names the two input images of its views: give '
            '--scannetpp ROOT to find them, or --features to score restored_feat.npy'
        )
    if not alone:
        return lambda folder, frame: None
    from gsemsplat_ros.datasets.scannetpp import ScanNetPP
    from gsemsplat_ros.evaluation.input_pairs import find_inputs

    splits = [
        split
        for split in ('val', 'train')
        if (Path(root) / 'raw' / 'splits' / f'nvs_sem_{split}.txt').is_file()
    ]
    splits = splits or ['val']
    ScanNetPP(root, splits[0])  # says what is missing before the network is loaded

    def find(folder: Path, frame):
        sources = [ScanNetPP(root, split, *frame.image.shape[:2]) for split in splits]
        return find_inputs(
            next((s for s in sources if folder.name in s.scenes), sources[0]), folder.name, frame
        )

    return find


def view_section(result):
    """One view for the page: the network's words, and everybody's picture."""
    from gsemsplat_ros.report.evaluation_page import PhrasePictures, section

    first = result.methods[0]
    frame, published = result.frame, first.published
    others = (
        []
        if result.inputs is None
        else [('first input', result.inputs.first.image), ('second input', result.inputs.second.image)]
    )
    others += [(method.name, method.picture) for method in result.methods if method.picture is not None]
    branches = (
        ('both branches, mixed',)
        if len(published.maps) == 1
        else ('region-specific branch', 'context-aware branch')
    )
    rows = {row['text']: row for row in first.words}
    phrases = []
    for k, text in enumerate(frame.phrases):
        row = rows.get(text, dict.fromkeys(('iou', 'localised', 'corrected_iou', 'corrected_localised')))
        branch = published.branch[k]
        phrases.append(
            PhrasePictures(
                text,
                published.maps[branch, k],
                published.found[k],
                published.truth[k],
                published.peaks[k],
                branches[branch],
                row['iou'],
                row['localised'],
                row['corrected_iou'],
                row['corrected_localised'],
            )
        )
    return section(f'Scene {frame.scene}, view {frame.name}', frame.image, others, phrases)


def shown_tables(summary: dict):
    """Titles, columns and rows of what was measured; a measure that nobody has is no column."""
    for title, columns in TABLES.items():
        columns = [
            (key, name)
            for key, name in columns
            if any(method[key] is not None for method in summary['methods'])
        ]
        if columns:
            yield (
                title,
                columns,
                [
                    (method['name'], *(cell(method[key], method['intervals'][key]) for key, _ in columns))
                    for method in summary['methods']
                ],
            )


def show(summary: dict, console: Console) -> None:
    """Every method with its 95 % intervals, and one row a phrase."""
    console.say(
        f'{count(summary["frames"], "view")} of {count(summary["scenes"], "scene")}, mean [95 % interval]'
    )
    for title, columns, rows in shown_tables(summary):
        console.say()
        console.table(rows, (title, *(name for _, name in columns)))
    console.say()
    first = summary['methods'][0]['name']
    console.table(
        [
            (
                row['scene'],
                row['frame'],
                row['text'],
                row['iou'],
                row['localised'],
                row['corrected_iou'],
                row['corrected_localised'],
            )
            for row in summary['phrases']
            if row['method'] == first
        ],
        ('scene', 'view', f'phrase ({first})', 'IoU', 'localised', 'corrected', 'localised'),
    )
    if summary['dropped']:
        console.say(
            'not annotated, so not asked: '
            + ', '.join('{scene}/{frame} {text}'.format(**row) for row in summary['dropped'][:8])
            + (f' and {len(summary["dropped"]) - 8} more' if len(summary['dropped']) > 8 else '')
        )
    for note in summary['notes']:
        console.note(note)


def count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def evaluation_page(summary: dict, sections: list, args: argparse.Namespace) -> str:
    from gsemsplat_ros.report.evaluation_page import EvaluationPage, page
    from gsemsplat_ros.terminal.versions import versions

    tables = [
        (
            title,
            ('', *((name,) for _, name in columns)),
            [(row[0], *((text,) for text in row[1:])) for row in rows],
        )
        for title, columns, rows in shown_tables(summary)
    ]
    views = f'{count(summary["frames"], "annotated view")} of {count(summary["scenes"], "scene")}'
    lead = (
        f'{views}, scored as published and corrected. '
        'Numbers are means, with 95 % intervals where there are several scenes or views.'
    )
    given = {'features': 'saved features'}.get(
        summary['source'], 'calibrated images with their poses' if summary['calibrated'] else 'images alone'
    )
    facts = [
        ('checkpoint', summary['weights'] or '-'),
        ('text encoder', summary['text_encoder']),
        ('given', given),
        ('threshold of the published masks', f'{summary["threshold"]:g}'),
        *versions().items(),
    ]
    return page(
        EvaluationPage(
            'Words and new views, scored',
            lead,
            tables,
            summary['notes'],
            sections,
            facts,
            shlex.join(args.command_line),
        )
    )
