"""`gsemsplat map`: what a saved map holds, and one map of two."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gsemsplat_ros.terminal.arguments import add_output_arguments
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.mapping.map import Map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Actions: info, merge."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION', title='actions')
    info = actions.add_parser(
        'info', help='print what a map holds', description='Prints what a map of ~/save_map holds.'
    )
    info.add_argument('file', metavar='FILE', help='a map of ~/save_map')
    info.set_defaults(run=run_info)
    merge = actions.add_parser(
        'merge',
        help='make one map of two that show a common place',
        description='Finds where map B stands in map A by the pictures that both keep, and writes one map of '
        'both, in the frame and with the voxels of A. Both must come from one checkpoint and show a common '
        'place. In doubt nothing is written, and the reason is printed.',
    )
    merge.add_argument('first', metavar='A', help='a map of ~/save_map; its frame stays')
    merge.add_argument('second', metavar='B', help='the map that is placed in it')
    merge.add_argument('target', metavar='OUT', help='the .safetensors file to write, with a .ply beside it')
    merge.set_defaults(run=run_merge)
    for action in (info, merge):
        add_output_arguments(action)


def run_info(args: argparse.Namespace, console: Console) -> None:
    """Print what a map holds. Raises ValueError for a file that is none."""
    from gsemsplat_ros.mapping.map_file import read_map

    map_, space = read_map(args.file)
    result = {'file': args.file, **_about(map_), 'weights': space.weights, 'text_encoder': space.text_encoder}
    console.table([(name.replace('_', ' '), value) for name, value in result.items()])
    console.result(result)


def run_merge(args: argparse.Namespace, console: Console) -> None:
    """Write one map of two. Raises ValueError where they do not fit."""
    import numpy as np

    from gsemsplat_ros.mapping.alignment import alignment_of
    from gsemsplat_ros.mapping.map_file import read_map, save_map
    from gsemsplat_ros.mapping.merging import together
    from gsemsplat_ros.scene.coded_file import check_space

    (a, space), (b, theirs) = read_map(args.first), read_map(args.second)
    check_space(Path(args.second), theirs, space, 'merge maps of one checkpoint')
    with console.progress(len(b.keyframes), 'keyframe', 'looking for the place') as bar:
        where = alignment_of(a, b, bar.update)
    if isinstance(where, str):
        raise ValueError(f'{args.second} finds no place in {args.first}: {where}')
    if a.voxel != b.voxel:
        console.say(f'the voxels of {args.second}, {b.voxel:g} wide, become {a.voxel:g} wide')
    merged = together(a, b, where)
    save_map(args.target, merged, space)
    turned = float(np.degrees(np.arccos(np.clip((np.trace(where.a_from_b[:3, :3]) - 1) / 2, -1, 1))))
    place = {
        'agreeing': len(where.agreeing),
        'known': where.known,
        'asked': where.asked,
        'moved': where.a_from_b[:3, 3].tolist(),
        'turned_deg': turned,
        'scale': where.scale,
    }
    console.say(
        f'{len(where.agreeing)} of {where.asked} keyframes of {args.second} agree on its place in '
        f'{args.first}, '
        f'{where.known - len(where.agreeing)} say something else: '
        'moved by {:.2f}, {:.2f}, {:.2f}, turned by {:.1f} degrees'.format(*place['moved'], turned)
        + ('' if where.scale == 1 else f', scaled by {where.scale:.3f}')
    )
    about = _about(merged)
    console.table(
        [(name.replace('_', ' '), _about(a)[name], _about(b)[name], about[name]) for name in about],
        ('', 'A', 'B', 'OUT'),
    )
    console.result({'file': args.target, **about, 'place': {**place, 'a_from_b': where.a_from_b.tolist()}})


def _about(map_: Map) -> dict[str, object]:
    """What a map holds."""
    return {
        'frame': map_.frame,
        'metric': map_.metric,
        'gaussians': len(map_),
        'voxel': map_.voxel,
        'scenes': map_.scenes,
        'keyframes': len(map_.keyframes),
        'objects': len(map_.objects.objects),
    }
