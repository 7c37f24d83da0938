"""`gsemsplat train prepare`: the target features of every frame for the semantic heads."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from gsemsplat_ros.terminal.arguments import Actions, add_output_arguments, at_least_one, pixels
from gsemsplat_ros.terminal.console import Console

SIZE = 512  # px: published
NOTE_EVERY = 60.0  # s between notes if there is no bar, as in a log
MODELS = 'vit_h, vit_l, vit_b of SAM, or a .yaml of SAM 2'


def add_parser(actions: Actions) -> None:
    """Add the action to `gsemsplat train`."""
    parser = actions.add_parser(
        'prepare',
        help='compute target features for the semantic heads',
        description='Computes for every frame of SOURCE one feature for each mask (region-specific) and a '
        'dense map (context-aware). Only missing frames are computed, so the same command resumes.',
    )
    parser.add_argument(
        'source',
        type=Path,
        metavar='SOURCE',
        help='ScanNet++ (raw and processed), RGB-D folders in the TUM layout, or packed rooms',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the features')
    parser.add_argument(
        '--split', choices=('train', 'val'), default='train', help='of ScanNet++ (default: %(default)s)'
    )
    parser.add_argument(
        '--height',
        type=pixels(32),
        default=SIZE,
        metavar='PX',
        help='of the frames [px] (default: %(default)s; rooms keep theirs)',
    )
    parser.add_argument('--width', type=pixels(32), default=SIZE, metavar='PX', help='as --height')
    things = parser.add_argument_group('masks (default: the instance ids of rooms)')
    things.add_argument('--masks', type=Path, metavar='DIR', help='DIR/SCENE/IMAGE.png or .npy')
    things.add_argument(
        '--sam', type=Path, metavar='FILE', help='checkpoint of Segment Anything (its package is needed)'
    )
    things.add_argument(
        '--sam-model', default='vit_h', metavar='NAME', help=f'{MODELS} (default: %(default)s)'
    )
    what = parser.add_argument_group('encoder')
    what.add_argument(
        '--encoder',
        default='minilm-l6',
        metavar='NAME',
        help='minilm-l6 (packaged) or openclip:ViT-B-16 (default: %(default)s)',
    )
    what.add_argument('--checkpoint', type=Path, metavar='FILE', help='weights of the OpenCLIP model')
    how = parser.add_argument_group('how')
    how.add_argument(
        '--workers',
        type=at_least_one,
        default=1,
        metavar='N',
        help='processes; they share the GPUs (default: %(default)s)',
    )
    how.add_argument(
        '--shard',
        type=shard,
        metavar='I/N',
        help='part I of N, from 0 (default: all; with torchrun the rank)',
    )
    how.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='(default: %(default)s)'
    )
    parser.epilog = (
        'A SLURM array: sbatch --array=0-15 --wrap "gsemsplat train prepare ... --shard '
        '\\$SLURM_ARRAY_TASK_ID/16".'
    )
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def shard(text: str) -> tuple[int, int]:
    """An argparse type: '3/16' to (3, 16)."""
    number, _, count = text.partition('/')
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f'{text!r}: wanted I/N with I from 0 to N - 1')
    return int(number), int(count)


def run(args: argparse.Namespace, console: Console) -> None:
    """Compute the missing features."""
    from torch import distributed

    from gsemsplat_ros.device import choose
    from gsemsplat_ros.supervision.prepare import Recipe, prepare

    own = args.shard or (0, 1)
    if not args.shard and distributed.is_torchelastic_launched():
        own = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    recipe = Recipe(
        source=args.source,
        out=args.out,
        split=args.split,
        height=args.height,
        width=args.width,
        encoder=args.encoder,
        checkpoint=args.checkpoint,
        masks=args.masks,
        sam=args.sam,
        sam_model=args.sam_model,
        device=choose(args.device).type,
    )
    bar, noted = None, time.monotonic()

    def report(done: int, total: int, seconds: float) -> None:
        nonlocal bar, noted
        bar = bar or console.progress(total, 'frame', 'features')
        bar.update(done - bar.n)
        if bar.disable and time.monotonic() - noted > NOTE_EVERY:
            noted = time.monotonic()
            console.note(f'{done} of {total} frames, {time_left(done, total, seconds)} left')

    try:
        result = prepare(recipe, own, args.workers, report)
    finally:
        if bar is not None:
            bar.close()
    console.say(
        f'{args.out}: made {result["made"]} of {result["pieces"]} pieces of shard {result["shard"]}, the '
        'rest was there'
    )
    console.table(list(result.items()))
    console.result(result)


def time_left(done: int, total: int, seconds: float) -> str:
    """The time left at the mean pace so far, such as '2 h 05 min'."""
    minutes = round((total - done) * seconds / done / 60)
    return f'{minutes // 60} h {minutes % 60:02} min' if minutes >= 60 else f'{minutes} min'
