"""`gsemsplat export`: a scene or map, or one thing of it, as a file that other programs open."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gsemsplat_ros.terminal.arguments import add_device_argument, add_model_arguments, add_output_arguments
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    import numpy as np

    from gsemsplat_ros.saved import Saved
    from gsemsplat_ros.semantics.answer import Answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: what is exported, the file, and which part."""
    parser.add_argument(
        'scene',
        metavar='SCENE',
        help='a map that ~/save_map wrote, a folder or scene.safetensors that `infer` wrote, a GLB or a PLY '
        'file of Gaussians',
    )
    parser.add_argument(
        'out',
        metavar='OUT',
        help='the file to write; its suffix is the format: .glb (glTF; it still answers words here), .ply '
        '(as of 3D Gaussian splatting), .spz (small), .usda (OpenUSD, for simulators) or .html (a page that '
        'shows it, to send to somebody)',
    )
    parser.add_argument(
        '--query', metavar='TEXT', help='write only the Gaussians of the objects that answer this phrase'
    )
    parser.add_argument('--without', action='store_true', help='with --query: write all but these objects')
    parser.add_argument(
        '--keep-floaters',
        action='store_true',
        help='write all Gaussians of a scene: else those in the air between things are left out',
    )
    add_model_arguments(parser)
    add_device_argument(parser, 'with --query: device that answers it')
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Write the file. Raises ValueError for files that cannot be read or written, and where the phrase is not
    found."""
    if args.without and not args.query:
        raise ValueError('--without: wanted --query too, which says without what')
    import numpy as np

    from gsemsplat_ros.commands.view import file_of
    from gsemsplat_ros.formats.writers import write, writer_of
    from gsemsplat_ros.saved import open_saved

    start, out = time.perf_counter(), Path(args.out)
    writer_of(out)
    saved = open_saved(file_of(args.scene))
    splats, total = saved.splats, len(saved.splats)
    result: dict[str, object] = {'file': str(out)}
    in_air = np.zeros(total, bool) if args.keep_floaters else splats.floaters()
    splats = splats.without(in_air)
    if args.query:
        answer, members = asked(saved, args)
        splats = splats.select(members[~in_air] != args.without)
        result |= {'query': answer.text, 'score': answer.score, 'objects': len(answer.objects)}
    write(out, splats)
    seconds, size = time.perf_counter() - start, out.stat().st_size
    dropped = int(in_air.sum())
    said = f', without {dropped:,} floaters' if dropped else ''
    console.say(
        f'{out}: {len(splats):,} of {total:,} Gaussians{said}, {size / 1e6:.1f} MB, in {seconds:.1f} s'
    )
    counts = {'gaussians': len(splats), 'of': total, 'floaters': dropped}
    console.result({**result, **counts, 'bytes': size, 'seconds': seconds})


def asked(saved: Saved, args: argparse.Namespace) -> tuple[Answer, np.ndarray]:
    """The answer to the phrase, and which (N,) bool of the Gaussians are its objects.

    Raises ValueError where it is not found.
    """
    import numpy as np

    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.semantics.members import members_of

    _ = saved.space  # fails before the network is loaded, not after it
    pipeline = Pipeline.load(args.weights, args.device, args.text_checkpoint)
    answer = pipeline.query(saved.target(pipeline), args.query)
    means = [part.means.cpu().numpy() for part in saved.splats.parts]
    members = members_of(answer, np.concatenate(means))
    if not members.any():
        raise ValueError(
            f"'{answer.text}' is {answer.state} in {args.scene} (score {answer.score:.2f}, wanted "
            f'{pipeline.threshold:.2f}): nothing is written; name another thing'
        )
    return answer, members
