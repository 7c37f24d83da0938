"""The cost of the node without the network (idle_node.py): images in, messages out, between two processes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.bench.tools import Times, picture
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.ros.client.bench_splats import bench_splats
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.idle_node import COUNT, CPU, idle_gaussians
from gsemsplat_ros.ros.client.node_process import NodeProcess
from gsemsplat_ros.ros.client.player import PARAMETERS, Player, stereo_messages
from gsemsplat_ros.ros.clouds import gaussian_cloud
from gsemsplat_ros.ros.conversions import make_header

WIDTH, HEIGHT = 640, 480  # of the images
PLAYS = 12
WARM_UP = 2  # plays that are not counted: discovery, first pages
COMMAND = (sys.executable, '-m', 'gsemsplat_ros.ros.client.idle_node')


def bench_node(step: Callable[[str], Any]) -> dict[str, Any]:
    """Seconds from the images leaving one process to the cloud of COUNT Gaussians having arrived there again;
    what of it is processor time of the node (from pair to pair, its reports included); what the copy into the
    message takes; and `splats`: see bench_splats. `step(name)` is called before each step."""
    camera = Camera(WIDTH, HEIGHT, 500.0, 500.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    left = View(picture(WIDTH, HEIGHT, 0), camera, 'left_optical')
    pair = Pair(left, View(picture(WIDTH, HEIGHT, 1), camera), 0.1)
    seconds, filling = Times(), Times()
    with (
        tempfile.TemporaryDirectory() as folder,
        NodeProcess(PARAMETERS, Path(folder) / 'node.log', COMMAND) as node,
    ):
        with Client() as client:
            player = Player(client, lambda: node.alive, node.last_words)
            messages = stereo_messages(pair, time.time_ns())
            step('the node starts')
            player.wait_for_node(messages)
            for number in range(WARM_UP + PLAYS):
                step('image to cloud')
                received = player.play(messages)
                if number >= WARM_UP:
                    seconds.seconds.append(received.seconds)
        splats = bench_splats(step)
        busy = [
            float(line.removeprefix(CPU))
            for line in node.log.read_text().splitlines()
            if line.startswith(CPU)
        ]
    gaussians = idle_gaussians()
    for _ in range(PLAYS):
        filling.of(lambda: gaussian_cloud(gaussians, make_header('camera', 0)), torch.device('cpu'))
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
        'splats': splats,
    }
