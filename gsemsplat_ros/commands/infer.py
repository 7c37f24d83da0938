"""`gsemsplat infer`: two image files to Gaussians, answers and a report, without ROS."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gsemsplat_ros.terminal.arguments import add_device_argument, add_model_arguments, add_output_arguments
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from tqdm import tqdm

    from gsemsplat_ros.flight.flight import Film
    from gsemsplat_ros.images.camera import Camera
    from gsemsplat_ros.images.view import Pair
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.report.pair_result import PairResult
    from gsemsplat_ros.scene.scene import Scene

PATHS = 'arc', 'orbit', 'dolly', 'published'  # copy from flight/paths.py, not imported for a fast `--help`
VIDEOS = 'rgb', 'semantics'
FORMATS = 'glb', 'spz', 'usda', 'html'  # copy from formats/writers.py; PLY is written anyhow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: two images, queries and output folder."""
    parser.add_argument(
        'left',
        metavar='LEFT',
        help='image of the first camera (JPEG, PNG, TIFF or WebP); results are in its frame',
    )
    parser.add_argument('right', metavar='RIGHT', help='image of the second camera')
    parser.add_argument(
        '--query', nargs='+', action='extend', default=[], metavar='TEXT', help='objects to look for'
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='folder for report.html, scene.ply, scene.safetensors (for `gsemsplat view`) and summary.json',
    )
    parser.add_argument(
        '--calibration',
        nargs='+',
        type=float,
        metavar='NUMBER',
        help='FX FY CX CY [BASELINE]: focal lengths and principal point of both images [px]; with '
        'the baseline [m] they are a rectified stereo pair, LEFT is the left one, and the scene '
        'is metric',
    )
    parser.add_argument(
        '--export',
        nargs='+',
        action='extend',
        default=[],
        choices=FORMATS,
        metavar='FORMAT',
        help=f'also write the scene as {", ".join(f"scene.{name}" for name in FORMATS)}: those of these that '
        'are named (see `gsemsplat export`)',
    )
    parser.add_argument(
        '--video',
        nargs='?',
        const=PATHS[0],
        choices=PATHS,
        metavar='PATH',
        help='also write rgb.mp4 and semantics.mp4 along a camera path: '
        f'{", ".join(PATHS)} (default: {PATHS[0]}; published: that of the published demo)',
    )
    add_model_arguments(parser)
    parser.add_argument(
        '--geometry',
        metavar='FILE',
        help='another network for the points, your file of Depth Anything 3 SMALL or BASE; the shipped one '
        'sees the words (docs/backbones.md)',
    )
    add_device_argument(parser, 'device of the network')
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Write the scene, the answers and the report into the folder."""
    from gsemsplat_ros.formats.ply import write_ply
    from gsemsplat_ros.pipeline import Pipeline
    from gsemsplat_ros.scene.scene_file import save_scene
    from gsemsplat_ros.terminal.output import output_folder, write_json
    from gsemsplat_ros.terminal.results import answers_table, write_page

    pair = read_pair(args.left, args.right, args.calibration)
    if args.video:
        from gsemsplat_ros.flight.video import load_av

        load_av()  # fail before the work, not after it
    out = output_folder(args.out)
    with console.progress(2 + len(args.query), 'step', 'load') as bar:
        pipeline = Pipeline.load(args.weights, args.device, args.text_checkpoint, geometry=args.geometry)
        bar.update()
        bar.set_description('build')
        result, scene = build_and_ask(pipeline, pair, args.query, Path(args.left).stem, bar)
    write_ply(out / 'scene.ply', scene.gaussians)
    # for `gsemsplat view`
    save_scene(out / 'scene.safetensors', scene, pair.second.image, pipeline.code_space)
    summary = {**result.summary(), 'report': str(out / 'report.html'), 'scene': str(out / 'scene.ply')}
    if args.export:
        from gsemsplat_ros.formats.writers import write
        from gsemsplat_ros.saved import of_scene

        splats = of_scene(scene, pipeline.code_space)
        splats = splats.without(splats.floaters())
    for name in args.export:
        write(out / f'scene.{name}', splats)
        summary[name] = str(out / f'scene.{name}')
    if args.video:
        film = film_scene(pipeline, scene, result.camera, args.video, out, console)
        result = replace(result, film=film)
        summary['video'] = {**film.summary(), **{name: str(out / f'{name}.mp4') for name in VIDEOS}}
    write_json(out / 'summary.json', summary)
    write_page(out / 'report.html', 'Two images, one scene', [result], pipeline.card, args.command_line)
    geometry = result.geometry and f', geometry by {result.geometry}'
    console.say(
        f'{result.gaussians:,} Gaussians in {result.pair_seconds:.2f} s with {result.weights}{geometry}; '
        f'scale: {result.scale_source}; focal length: {result.focal}'
    )
    answers_table(console, [result])
    if args.video:
        console.say(
            f'{out / "rgb.mp4"}, {out / "semantics.mp4"}: {film.frames} frames along the path {film.path}'
        )
    console.say(f'{out / "report.html"}')
    console.result(summary)


def read_pair(left: str, right: str, calibration: list[float] | None) -> Pair:
    """The two images as a Pair; calibration: fx, fy, cx, cy [px] and perhaps the baseline [m].

    Raises ValueError for unreadable images and wrong calibrations.
    """
    from gsemsplat_ros.images.calibration import check_calibration
    from gsemsplat_ros.images.camera import Camera
    from gsemsplat_ros.images.image_file import read_views
    from gsemsplat_ros.images.view import Pair

    first, second = read_views(left, right)
    if calibration is None:
        return Pair(first, second)
    if len(calibration) not in (4, 5):
        raise ValueError(
            f'--calibration has {len(calibration)} numbers: wanted FX FY CX CY [px] and perhaps BASELINE [m]'
        )
    if first.image.shape != second.image.shape:
        raise ValueError(
            '--calibration is for two images of one size, but {} has {}x{} px and {} {}x{} px'.format(
                left, *first.image.shape[1::-1], right, *second.image.shape[1::-1]
            )
        )
    camera = Camera(*first.image.shape[1::-1], *calibration[:4])
    try:
        check_calibration(camera, camera, *calibration[4:])
    except ValueError as error:
        raise ValueError(f'--calibration: {error}') from None
    return Pair(replace(first, camera=camera), replace(second, camera=camera), *calibration[4:])


def build_and_ask(
    pipeline: Pipeline, pair: Pair, queries: Sequence[str], name: str, bar: tqdm
) -> tuple[PairResult, Scene]:
    """Build, query and render the scene; `bar` counts the scene and each answer."""
    from gsemsplat_ros.flight.flight import draw
    from gsemsplat_ros.pictures.heat import answer_overlay
    from gsemsplat_ros.report.pair_result import PairResult, ReportedAnswer

    start = time.perf_counter()
    scene = pipeline.build(pair)
    pair_seconds = time.perf_counter() - start
    bar.update()
    bar.set_description('ask')
    answers = []
    for text in queries:
        start = time.perf_counter()
        answer = pipeline.query(scene, text)
        picture = answer_overlay(scene.keyframe, answer)
        answers.append(ReportedAnswer(answer, picture, time.perf_counter() - start))
        bar.update()
    camera = pair.first.camera or scene.keyframe.input_camera
    depth, views = draw(scene.gaussians, camera)
    result = PairResult(
        name=name,
        first=pair.first.image,
        second=pair.second.image,
        camera=camera,
        depth=depth,
        views=views,
        answers=tuple(answers),
        gaussians=len(scene.gaussians),
        pair_seconds=pair_seconds,
        weights=pipeline.weights,
        geometry=pipeline.geometry,
        scale_source=scene.scale_source,
        scale=float(scene.scale),
        focal_source=scene.focal_source,
        focal_spread=float(scene.focal_spread),
        pose_found=scene.first_from_second is not None,
        timings=dict(scene.timings),
    )
    return result, scene


def film_scene(
    pipeline: Pipeline, scene: Scene, camera: Camera, preset: str, out: Path, console: Console
) -> Film:
    """Render the path `preset` with `camera`, unless the path has its own, into `rgb.mp4` and
    `semantics.mp4` in the folder `out`."""
    from gsemsplat_ros.flight.flight import VIDEO_LONG_SIDE, Film, fly, looked_at, resized, semantic_colors
    from gsemsplat_ros.flight.paths import camera_path
    from gsemsplat_ros.flight.video import VideoWriter

    camera = resized(camera, VIDEO_LONG_SIDE)
    path = camera_path(preset, looked_at(scene.gaussians, camera)[1])
    rgb_file, semantics_file = (out / f'{name}.mp4' for name in VIDEOS)
    pictures = fly(scene.gaussians, semantic_colors(scene.gaussians, pipeline.decoders), path, camera)
    with (
        console.progress(len(path), 'frame', 'film') as bar,
        VideoWriter(rgb_file, path.fps) as rgb,
        VideoWriter(semantics_file, path.fps) as semantics,
    ):
        posters = next(pictures)
        for colored, meant in itertools.chain([posters], pictures):
            rgb.add(colored)
            semantics.add(meant)
            bar.update()
    files = rgb_file.read_bytes(), semantics_file.read_bytes()
    return Film(path.name, len(path), path.seconds, posters, files)
