"""`gsemsplat view`: a scene, a map or a running node in the browser, with queries."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gsemsplat_ros.terminal.arguments import (
    add_device_argument,
    add_model_arguments,
    add_output_arguments,
    at_least_one,
    port,
)
from gsemsplat_ros.terminal.console import Console

if TYPE_CHECKING:
    from gsemsplat_ros.live.shared_state import SharedState
    from gsemsplat_ros.pipeline import Pipeline

DEMO_SCENE = 'living_room'
FILES = 'scene.safetensors', 'scene.ply'  # opened from a folder, the first that exists
OTHER_SPLATS = '.splat', '.ksplat', '.spz', '.sog'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments: what to show, and where to serve the page."""
    parser.description = (
        f'{parser.description} Without SCENE and --live it shows a real stereo pair of the demo.'
    )
    parser.add_argument(
        'scene',
        nargs='?',
        metavar='SCENE',
        help='a map that ~/save_map wrote, a folder or scene.safetensors that `infer` wrote, a GLB that '
        '`export` wrote, or a PLY file of Gaussians, which cannot be queried',
    )
    parser.add_argument('--live', action='store_true', help='follow the running node and query it')
    parser.add_argument(
        '--node', default='/gsemsplat', metavar='NAME', help='with --live: the node (default: %(default)s)'
    )
    parser.add_argument(
        '--service',
        default='/query',
        metavar='NAME',
        help='with --live: its query service (default: %(default)s)',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        metavar='ADDRESS',
        help='address to listen on (default: %(default)s, this machine only; 0.0.0.0: the network, without a '
        'password). Pages of other sites may not connect',
    )
    parser.add_argument('--port', type=port, default=8080, metavar='N', help='(default: %(default)s)')
    parser.add_argument(
        '--max-gaussians',
        type=at_least_one,
        default=500_000,
        metavar='N',
        help='most Gaussians in a page; a larger scene is thinned (default: %(default)s)',
    )
    add_model_arguments(parser)
    add_device_argument(parser, 'device for the queries')
    parser.set_defaults(run=run)
    add_output_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Serve the page until Ctrl-C. Raises ValueError for errors of the user."""
    from gsemsplat_ros.live.gate import is_this_machine
    from gsemsplat_ros.live.server import ViewServer
    from gsemsplat_ros.live.shared_state import SharedState

    if args.live and args.scene:
        raise ValueError('SCENE and --live: give one of them')
    if args.live:
        from gsemsplat_ros.ros.client.live_node import WORKERS, LiveNode
    shared = SharedState(WORKERS if args.live else 1)
    loading = None if args.live else open_source(args, shared, console)
    with contextlib.ExitStack() as stack:
        stack.callback(shared.close)
        server = ViewServer(shared, args.host, args.port)
        stack.callback(server.close)
        if not is_this_machine(args.host):
            console.warn(
                f'WARNING: {args.host} is open to the network: whoever reaches port {server.port} sees the '
                'scene and may ask it, without a password'
            )
        console.say(server.url)
        console.note('Ctrl-C ends it')
        console.result(
            {
                'url': server.url,
                'host': args.host,
                'port': server.port,
                'gaussians': len(shared.state.shown.gaussians) if shared.state.shown else None,
            }
        )
        if args.live:
            stack.enter_context(LiveNode(shared, args.node, args.service, args.max_gaussians))
        elif loading is not None:
            threading.Thread(target=_load, args=(loading, shared, console), daemon=True).start()
        threading.Event().wait()


def open_source(args: argparse.Namespace, shared: SharedState, console: Console) -> Callable[[], None] | None:
    """Show the scene; returns a function that loads what questions need, None: all is there already.

    Raises ValueError.
    """
    from gsemsplat_ros.live import file_source

    def load() -> Pipeline:
        from gsemsplat_ros.pipeline import Pipeline

        return Pipeline.load(args.weights, args.device, args.text_checkpoint)

    if args.scene is not None:
        return file_source.open_any(file_of(args.scene), shared, args.max_gaussians, load)
    from gsemsplat_ros.datasets.demo_pairs import load_scene

    # the scene is built before the page is up, so that nobody looks at an empty one
    console.note('two images become a scene')
    pipeline, pair = load(), load_scene(DEMO_SCENE).pair
    title = f'Demo: {DEMO_SCENE.replace("_", " ")}'
    scene = pipeline.build(pair)
    file_source.show_scene(title, scene, pair.second.image, pipeline, shared, args.max_gaussians)
    return None


def file_of(name: str) -> Path:
    """The file to open for SCENE. Raises ValueError."""
    path = Path(name)
    if path.is_dir():
        for candidate in FILES:
            if (path / candidate).is_file():
                return path / candidate
        raise ValueError(
            f'{path} holds neither {" nor ".join(FILES)}: give a folder of `gsemsplat infer`, or a file'
        )
    if not path.is_file():
        raise ValueError(f'no scene at {path}: give a map, a folder of `gsemsplat infer`, or a PLY file')
    if path.suffix.lower() in OTHER_SPLATS:
        raise ValueError(
            f'{path} holds splats in another format than PLY or GLB: export it as .ply, without compression'
        )
    if path.suffix.lower() not in ('.safetensors', '.glb', '.ply'):
        raise ValueError(
            f'{path} is no scene: wanted a .safetensors file (a map or a scene), a .glb or a .ply file'
        )
    return path


def _load(loading: Callable[[], None], shared: SharedState, console: Console) -> None:
    """Run `loading` in a thread, while the page is already up; errors are shown on the page too."""
    try:
        loading()
    except Exception as error:
        shared.write(status=str(error), is_trouble=True, ask=None, no_query_reason=str(error))
        console.note(f'gsemsplat: {error}')
