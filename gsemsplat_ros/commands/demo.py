"""`gsemsplat demo`: the main job for real, over ROS 2, on real stereo pairs."""

from __future__ import annotations

import argparse

from gsemsplat_ros.commands.console import Console, add_output_arguments

ANSWER_WITHIN_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from gsemsplat_ros.commands.scenes import QUERIES
    parser.description += (' Starts the node as its own process, plays real indoor stereo pairs with their '
                           'calibration to it over ROS 2, and asks its service.')
    parser.add_argument('--scene', nargs='+', action='extend', choices=tuple(QUERIES), metavar='NAME',
                        help=f'scenes to play (default: all): {", ".join(QUERIES)}')
    parser.add_argument('--query', nargs='+', action='extend', metavar='TEXT',
                        help='things to look for in every scene (default: chosen for each)')
    parser.add_argument('--out', default='out/demo', metavar='DIR',
                        help='folder for report.html, scene.ply (of the first scene) and summary.json (default: '
                             '%(default)s)')
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    from gsemsplat_ros.commands.files import output_folder, write_json
    from gsemsplat_ros.commands.node_process import COMMAND
    from gsemsplat_ros.commands.present import answers_table, write_page
    from gsemsplat_ros.commands.scenes import QUERIES, load_scene
    from gsemsplat_ros.network.weights import SHIPPED, read_card

    scenes = [load_scene(name, args.query) for name in dict.fromkeys(args.scene or QUERIES)]
    card = read_card(SHIPPED)
    out = output_folder(args.out)
    results = play(scenes, out, console, COMMAND)
    summary = {'pairs': [{'scene': result.name, **result.summary()} for result in results],
               'report': str(out / 'report.html'), 'scene': str(out / 'scene.ply')}
    write_json(out / 'summary.json', summary)
    write_page(out / 'report.html', 'Real rooms, real words', results, card, args.command_line)
    answers_table(console, results)
    console.say(f'{out / "report.html"}')
    console.result(summary)


def play(scenes, out, console: Console, command) -> list:
    """Start the node with `command`, play the scenes, ask, and end the node: the PairResults. Writes out/scene.ply."""
    from gsemsplat_ros.commands.client import Client
    from gsemsplat_ros.commands.node_process import NodeProcess
    from gsemsplat_ros.commands.player import PARAMETERS, Player
    from gsemsplat_ros.gaussians.ply import write_ply
    from gsemsplat_ros.viewer.flight import draw
    from gsemsplat_ros.viewer.result import PairResult

    results = []
    console.note(f'starting the node; its log is {out / "node.log"}')
    with NodeProcess(PARAMETERS, out / 'node.log', command) as node, Client() as client:
        player = Player(client, lambda: node.alive, node.last_words)
        player.wait_for_node(scenes[0].pair)
        console.note('the node is ready')
        with console.progress(1 + len(scenes), 'pair', 'warm-up') as bar:
            player.play(scenes[0].pair)         # the first pair of a process compiles the renderer
            bar.update()
            for scene in scenes:
                bar.set_description(scene.name)
                received = player.play(scene.pair)
                answers = [client.ask(text, ANSWER_WITHIN_S, with_image=True)[0] for text in scene.queries]
                if not results:
                    write_ply(out / 'scene.ply', received.gaussians)
                camera = scene.pair.first.camera
                depth, views = draw(received.gaussians, camera)
                results.append(PairResult(
                    scene.name, scene.pair.first.image, scene.pair.second.image, camera, depth, views, tuple(answers),
                    len(received.gaussians), received.seconds, received.weights, received.scale_source, received.scale,
                    received.timings))
                bar.update()
    return results
