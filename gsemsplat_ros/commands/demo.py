"""`gsemsplat demo`: real stereo pairs, or a robot in a rendered house, through the ROS 2 node; a report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gsemsplat_ros.terminal.arguments import add_output_arguments, at_least_one
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.datasets.demo_pairs import DemoScene
    from gsemsplat_ros.report.pair_result import PairResult

ANSWER_WITHIN_S = 60.0
BAG_QUERIES = 'chair', 'table', 'door', 'plant'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: pairs, queries and output folder."""
    from gsemsplat_ros.datasets.demo_pairs import QUERIES

    parser.description = (
        f'{parser.description} Starts the node as its own process, plays real indoor stereo pairs with their '
        'calibration to it over ROS 2, and queries its service.'
    )
    parser.add_argument(
        '--scene',
        nargs='+',
        action='extend',
        choices=tuple(QUERIES),
        metavar='NAME',
        help=f'scenes to play (default: all): {", ".join(QUERIES)}',
    )
    parser.add_argument(
        '--query',
        nargs='+',
        action='extend',
        metavar='TEXT',
        help='things to look for in every scene (default: chosen for each; with --bag: '
        f'{", ".join(BAG_QUERIES)})',
    )
    house = parser.add_argument_group('a rendered house instead')
    house.add_argument(
        '--house',
        action='store_true',
        help='drive a robot through a furnished house that is rendered here (`make training-setup` installs '
        'what that needs), ask for words, and send it to the first that it can reach; also writes the film '
        'house.webp and the bag house.mcap',
    )
    bag = parser.add_argument_group('a bag of your robot instead')
    bag.add_argument(
        '--bag',
        metavar='FILE',
        help='.mcap, .db3 or ROS 1 .bag file, or folder of `ros2 bag record`, with the images and '
        'camera_info of a stereo camera',
    )
    bag.add_argument(
        '--pairs',
        type=at_least_one,
        default=6,
        metavar='N',
        help='pairs of the bag to play, evenly spread (default: %(default)s)',
    )
    bag.add_argument('--left', metavar='TOPIC', help='left images of the bag (default: found by their names)')
    bag.add_argument('--right', metavar='TOPIC', help='right images of the bag')
    images = bag.add_mutually_exclusive_group()
    images.add_argument(
        '--rectified',
        action='store_true',
        default=None,
        help='the images of the bag are rectified (default: found by matching some both ways)',
    )
    images.add_argument(
        '--raw',
        dest='rectified',
        action='store_false',
        help='they are not: rectify them with K, D, R, P of their camera_info',
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        help='folder for report.html, scene.ply (of the first scene) and summary.json (default: out/demo, '
        'with --house out/house)',
    )
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Play the pairs to a node, and write its Gaussians, its answers and the report into the folder.

    Raises ValueError for errors of the user.
    """
    from gsemsplat_ros.checkpoints.checkpoint import SHIPPED, read_card
    from gsemsplat_ros.ros.client.node_process import COMMAND
    from gsemsplat_ros.terminal.output import output_folder, write_json
    from gsemsplat_ros.terminal.results import answers_table, write_page

    if args.house:
        return _run_house(args, console)
    program = _program_of_bag(args, console) if args.bag else _packaged_program(args)
    card = read_card(SHIPPED)
    out = output_folder(args.out or 'out/demo')
    results = play(program.scenes, out, console, COMMAND, program.parameters)
    summary = {
        **program.about,
        'pairs': [{'scene': result.name, **result.summary()} for result in results],
        'report': str(out / 'report.html'),
        'scene': str(out / 'scene.ply'),
    }
    write_json(out / 'summary.json', summary)
    write_page(out / 'report.html', program.title, results, card, args.command_line)
    answers_table(console, results)
    console.say(f'{out / "report.html"}')
    console.result(summary)


def _run_house(args: argparse.Namespace, console: Console) -> None:
    """Drive a robot through a house, and write the report, the film and the bag."""
    from gsemsplat_ros.checkpoints.checkpoint import SHIPPED, read_card
    from gsemsplat_ros.files import write_whole
    from gsemsplat_ros.ros.client.house_demo import QUERIES, run_house
    from gsemsplat_ros.ros.client.node_process import COMMAND
    from gsemsplat_ros.terminal.output import output_folder, write_json
    from gsemsplat_ros.terminal.results import house_table, write_house_page

    if any((args.bag, args.scene, args.left, args.right)) or args.rectified is not None:
        raise ValueError('--house renders its own images: give it without scenes and without a bag')
    card = read_card(SHIPPED)
    out = output_folder(args.out or 'out/house')
    result = run_house(out, console, COMMAND, tuple(args.query or QUERIES))
    files = {name: str(out / name) for name in ('report.html', 'house.webp', 'house.mcap')}
    summary = {**result.summary(), 'files': files}
    with write_whole(out / 'house.webp') as part:
        part.write_bytes(result.film)
    write_json(out / 'summary.json', summary)
    write_house_page(out / 'report.html', result, card, args.command_line)
    house_table(console, result)
    console.say('\n'.join(files.values()))
    console.result(summary)


@dataclass(frozen=True)
class Program:
    """What to play. parameters: of the node, besides player.PARAMETERS; title: of the report; about: facts
    for the summary of the run."""

    scenes: Sequence[DemoScene]
    parameters: Mapping[str, Any]
    title: str
    about: Mapping[str, Any]


def _packaged_program(args: argparse.Namespace) -> Program:
    """The pairs of the package stereodemo."""
    from gsemsplat_ros.datasets.demo_pairs import QUERIES, load_scene

    alone = [f'--{name}' for name in ('left', 'right') if getattr(args, name)]
    if args.rectified is not None:
        alone.append('--rectified' if args.rectified else '--raw')
    if alone:
        raise ValueError(f'{" and ".join(alone)} belong to a bag: give --bag FILE too')
    scenes = [load_scene(name, args.query) for name in dict.fromkeys(args.scene or QUERIES)]
    return Program(scenes, {}, 'Real rooms, real words', {})


def _program_of_bag(args: argparse.Namespace, console: Console) -> Program:
    """Pairs from a bag."""
    from gsemsplat_ros.datasets.demo_pairs import DemoScene
    from gsemsplat_ros.ros.client.bag import Bag

    if args.scene:
        raise ValueError('--scene names packaged pictures, --bag a file: give one of the two')
    queries = tuple(args.query or BAG_QUERIES)
    with Bag(args.bag, args.left, args.right, args.rectified) as bag:
        topics, rectified = bag.topics, bag.rectified.value
        console.note(
            f'{bag.path}: {topics.images[0]} and {topics.images[1]}, {" and ".join(map(str, bag.counts))} '
            f'images in {bag.seconds:.1f} s, {"rectified" if rectified else "raw"} {bag.rectified.reason}'
        )
        pairs = list(bag.pairs(args.pairs))
        about = {
            'path': str(bag.path),
            'images': topics.images,
            'camera_infos': topics.infos,
            'compressed': topics.compressed,
            'rectified': rectified,
            'rectified_reason': bag.rectified.reason,
            'seconds': bag.seconds,
            'skew_ms': [pair.skew_ms for pair in pairs],
        }
    return Program(
        [DemoScene(f'{pair.seconds:.2f} s', pair.pair, queries, pair.messages) for pair in pairs],
        {'rectified': rectified, 'image_transport': 'compressed' if topics.compressed else 'raw'},
        f'Words for {bag.path.name}',
        {'bag': about},
    )


def play(
    scenes: Sequence[DemoScene],
    out: Path,
    console: Console,
    command: Sequence[str],
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> list[PairResult]:
    """Start the node by `command` with `parameters` besides player.PARAMETERS, play and query the scenes, and
    stop it. Writes out/scene.ply from the first scene and out/node.log."""
    from gsemsplat_ros.flight.flight import draw
    from gsemsplat_ros.formats.ply import write_ply
    from gsemsplat_ros.report.pair_result import PairResult
    from gsemsplat_ros.ros.client.client import Client
    from gsemsplat_ros.ros.client.node_process import NodeProcess
    from gsemsplat_ros.ros.client.player import PARAMETERS, Player, stereo_messages

    results: list[PairResult] = []
    console.note(f'starting the node; its log is {out / "node.log"}')
    compressed = parameters.get('image_transport') == 'compressed'
    messages = [scene.messages or stereo_messages(scene.pair, 0) for scene in scenes]
    with (
        NodeProcess({**PARAMETERS, **parameters}, out / 'node.log', command) as node,
        Client() as client,
        console.progress(1 + len(scenes), 'pair', 'warm-up') as bar,
    ):
        player = Player(client, lambda: node.alive, node.last_words, compressed)
        player.wait_for_node(messages[0])
        console.note('the node is ready')
        player.play(messages[0])  # the first pair of a process compiles the renderer
        bar.update()
        for scene, sent in zip(scenes, messages):
            bar.set_description(scene.name)
            received = player.play(sent)
            answers = [client.ask(text, ANSWER_WITHIN_S, with_image=True)[0] for text in scene.queries]
            if not results:
                write_ply(out / 'scene.ply', received.gaussians)
            camera = scene.pair.first.camera
            assert camera is not None  # the pair is calibrated
            depth, views = draw(received.gaussians, camera)
            results.append(
                PairResult(
                    name=scene.name,
                    first=scene.pair.first.image,
                    second=scene.pair.second.image,
                    camera=camera,
                    depth=depth,
                    views=views,
                    answers=tuple(answers),
                    gaussians=len(received.gaussians),
                    pair_seconds=received.seconds,
                    weights=received.weights,
                    scale_source=received.scale_source,
                    scale=received.scale,
                    timings=received.timings,
                )
            )
            bar.update()
    return results
