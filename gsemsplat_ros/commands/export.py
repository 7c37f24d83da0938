"""`gsemsplat export`: a scene or map as a file that other programs open."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gsemsplat_ros.terminal.arguments import add_output_arguments
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.formats.writers import Splats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: what is exported, and the file."""
    parser.add_argument(
        'scene',
        metavar='SCENE',
        help='a map that ~/save_map wrote, a folder or scene.safetensors that `infer` wrote, or a PLY file',
    )
    parser.add_argument('out', metavar='OUT', help='the file to write; its suffix is the format: .ply')
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Write the file. Raises ValueError for a file that cannot be read or written."""
    from gsemsplat_ros.commands.view import file_of
    from gsemsplat_ros.formats.writers import write

    out = Path(args.out)
    splats = read(file_of(args.scene))
    write(out, splats)
    size = out.stat().st_size
    console.say(f'{out}: {len(splats):,} Gaussians, {size / 1e6:.1f} MB')
    console.result({'file': str(out), 'gaussians': len(splats), 'bytes': size})


def read(path: Path) -> Splats:
    """The Gaussians of a scene, a map or a PLY file. Raises ValueError for a file that is none."""
    from gsemsplat_ros.formats.axes import Axes
    from gsemsplat_ros.formats.ply import read_ply
    from gsemsplat_ros.formats.writers import Splats
    from gsemsplat_ros.images.camera import Camera
    from gsemsplat_ros.live.file_source import is_scene
    from gsemsplat_ros.mapping.map_file import read_map
    from gsemsplat_ros.scene.scene import is_metric
    from gsemsplat_ros.scene.scene_file import read_scene

    if path.suffix.lower() == '.ply':
        return Splats((read_ply(path, 'the frame of the file'),), Axes.OPTICAL)
    if is_scene(path):
        gaussians, card, _, _ = read_scene(path)
        return Splats((gaussians,), Axes.OPTICAL, is_metric(card['scale_source']), Camera(**card['camera']))
    map_, _ = read_map(path)
    tiles = map_.tiles.values()
    return Splats(tuple(tile.gaussians for tile in tiles) or (map_.gaussians,), Axes.Z_UP, map_.metric)
