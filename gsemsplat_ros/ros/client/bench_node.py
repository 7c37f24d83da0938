"""What the node itself costs: images in, messages out, between two processes, with a pipeline that does
nothing.

Run as a module, this is the node of that bench.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

COUNT = 400_000  # Gaussians in the message: two views of 512 x 384 make as many
WIDTH, HEIGHT = 640, 480  # of the images
PLAYS = 12
WARM_UP = 2  # plays that are not counted: discovery, first pages
CPU = 'processor time: '  # before the seconds that the node has computed, in its log, at each pair
COMMAND = (sys.executable, '-m', 'gsemsplat_ros.ros.client.bench_node')


def bench_node(step=lambda name: None) -> dict:
    """Seconds from the images leaving one process to the cloud of COUNT Gaussians having arrived there again;
    what of it is processor time of the node (from pair to pair, its reports included); and what the copy into
    the message takes."""
    from gsemsplat_ros.bench.tools import Times, picture
    from gsemsplat_ros.images.camera import Camera
    from gsemsplat_ros.images.view import Pair, View
    from gsemsplat_ros.ros.client.client import Client
    from gsemsplat_ros.ros.client.node_process import NodeProcess
    from gsemsplat_ros.ros.client.player import PARAMETERS, Player, stereo_messages

    camera = Camera(WIDTH, HEIGHT, 500.0, 500.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    pair = Pair(
        View(picture(WIDTH, HEIGHT, 0), camera, 'left_optical'), View(picture(WIDTH, HEIGHT, 1), camera), 0.1
    )
    seconds, filling = Times(), Times()
    with (
        tempfile.TemporaryDirectory() as folder,
        NodeProcess(PARAMETERS, Path(folder) / 'node.log', COMMAND) as node,
        Client() as client,
    ):
        player = Player(client, lambda: node.alive, node.last_words)
        messages = stereo_messages(pair, time.time_ns())
        step('the node starts')
        player.wait_for_node(messages)
        for number in range(WARM_UP + PLAYS):
            step('image to cloud')
            received = player.play(messages)
            if number >= WARM_UP:
                seconds.seconds.append(received.seconds)
        busy = [
            float(line.removeprefix(CPU))
            for line in node.log.read_text().splitlines()
            if line.startswith(CPU)
        ]
    gaussians = idle_gaussians()
    for _ in range(PLAYS):
        fill_message(gaussians, filling)
    return {
        'gaussians': COUNT,
        'images': f'2 x {WIDTH}x{HEIGHT}',
        'plays': PLAYS,
        'seconds': seconds.median,
        'iqr_seconds': seconds.spread,
        'best_seconds': min(seconds.seconds),
        'node_cpu_seconds': float(np.median(np.diff(busy)[WARM_UP:])),
        'message_seconds': filling.median,
        'message_iqr_seconds': filling.spread,
    }


def fill_message(gaussians, times) -> None:
    """Note how long it takes to make a cloud of `gaussians`."""
    import torch

    from gsemsplat_ros.ros.clouds import gaussian_cloud
    from gsemsplat_ros.ros.conversions import make_header

    times.of(lambda: gaussian_cloud(gaussians, make_header('camera', 0)), torch.device('cpu'))


def idle_gaussians():
    """COUNT Gaussians, as a scene has them."""
    from gsemsplat_ros.bench.tools import wall

    gaussians, _ = wall(640, 320)
    return gaussians.select(slice(0, COUNT))


class IdlePipeline:
    """In the place of the pipeline: every pair becomes the same Gaussians at once."""

    def __init__(self):
        import torch

        from gsemsplat_ros.images.camera import Camera
        from gsemsplat_ros.scene.coded_file import CodeSpace

        self.weights, self.device, self.text_encoder = 'none', 'cpu', SimpleNamespace(name='none')
        self.code_space = CodeSpace('none', 'none', 'none')
        self._gaussians = idle_gaussians()
        self._camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
        self._rendering = SimpleNamespace(depth=torch.full((48, 64), 2.0), alpha=torch.ones(48, 64))

    def build(self, pair):
        from gsemsplat_ros.images.window import Window
        from gsemsplat_ros.scene.scene import Keyframe, Scene

        print(f'{CPU}{time.process_time():.6f}', flush=True)
        view = pair.first
        height, width = view.image.shape[:2]
        window = Window(width, height, width, height, 1.0, 1.0, 0.0, 0.0)
        keyframe = Keyframe(
            self._camera, self._rendering, None, view.image, window, view.frame, view.stamp_ns
        )
        return Scene(
            replace(self._gaussians, frame=view.frame),
            keyframe,
            np.eye(4),
            1.0,
            'stereo baseline',
            1,
            1,
            {'predict': 0.0},
        )


if __name__ == '__main__':
    from gsemsplat_ros.ros.main import main

    sys.exit(main(load_pipeline=lambda *args, **kwargs: IdlePipeline()))
