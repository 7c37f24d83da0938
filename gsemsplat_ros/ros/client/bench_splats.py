"""The cost of splats between two processes: PackedSplats against gsplat_msgs/SplatArray.

gsplat_msgs comes with RVizSplat alone, so the SplatArray goes as its bytes on a topic of another type, as DDS
carries any; both are received as bytes. Run as a module this file is the sender: it makes and sends a message
as soon as the one before was answered, so that none is lost and none waits.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from gsemsplat_msgs.msg import PackedSplats
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Empty

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.packed import covariances_of
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.idle_node import idle_gaussians
from gsemsplat_ros.ros.client.splat_display import splat_array
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.ros.packed_splats import packed_splats, splats_of
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.terminal.console import Failure

COUNT = 100_000  # splats in a message
PLAYS, WARM_UP = 24, 3
WITHIN_S = 60.0
TOPIC, ANSWER = '/gsemsplat_bench/sent/', '/gsemsplat_bench/received/'
KINDS = 'PackedSplats', 'SplatArray'
COMMAND = (sys.executable, '-m', 'gsemsplat_ros.ros.client.bench_splats')


def maker(kind: str, gaussians: Gaussians) -> Callable[[], bytes]:
    """Makes the serialized message of this kind anew, as its publisher does. The SplatArray is made of packed
    splats, as `gsemsplat splats` makes it."""
    header = make_header('map', 0)
    if kind == 'PackedSplats':
        return lambda: serialize_message(packed_splats(gaussians, header))
    packed = packed_splats(gaussians, header)
    return lambda: splat_array(packed, len(gaussians))


def bench_splats(step: Callable[[str], Any]) -> dict[str, dict[str, float]]:
    """For each kind: splats, bytes, messages a second, the seconds of one from making it to having it, and
    what making it takes; for PackedSplats what reading it into arrays takes. Call it in the domain of a
    NodeProcess, whose transport it uses. Raises Failure when nothing arrives."""
    results: dict[str, dict[str, float]] = {}
    gaussians = idle_gaussians().select(slice(0, COUNT))
    with Client() as client, _sender():
        for kind in KINDS:
            step(f'splats as {kind}')
            sizes, times = _received(client, kind)
            seconds = float(np.median(np.diff(times)[WARM_UP:]))
            results[kind] = {
                'splats': COUNT,
                'bytes_each': sizes[-1] / COUNT,
                'messages_per_second': 1 / seconds,
                'seconds': seconds,
            }
    for kind in KINDS:
        results[kind]['make_seconds'] = _median(maker(kind, gaussians))
    data = maker(KINDS[0], gaussians)()
    results[KINDS[0]]['read_seconds'] = _median(
        lambda: covariances_of(splats_of(deserialize_message(data, PackedSplats)))
    )
    return results


def _median(work: Callable[[], Any]) -> float:
    times = [time.perf_counter()]
    for _ in range(PLAYS // 4):
        work()
        times.append(time.perf_counter())
    return float(np.median(np.diff(times)[1:]))


def _received(client: Client, kind: str) -> tuple[list[int], list[float]]:
    """Sizes of the messages, and when each had arrived."""
    sizes: list[int] = []
    times: list[float] = []
    answer = client.node.create_publisher(Empty, ANSWER + kind, 10)

    def on_message(data: bytes) -> None:
        times.append(time.perf_counter())
        sizes.append(len(data))
        answer.publish(Empty())

    heard = client.node.create_subscription(PackedSplats, TOPIC + kind, on_message, LATCHED, raw=True)
    if not client.until(lambda: len(sizes) >= PLAYS, WITHIN_S):
        raise Failure(f'{len(sizes)} messages of {kind} within {WITHIN_S:g} s: wanted {PLAYS}')
    client.node.destroy_subscription(heard)
    client.node.destroy_publisher(answer)
    return sizes, times


@contextmanager
def _sender() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / 'log', 'wb') as log:
        process = subprocess.Popen([*COMMAND, str(COUNT)], stdout=log, stderr=log, env=dict(os.environ))
        try:
            yield
        finally:
            process.kill()
            process.wait()


def send(count: int) -> None:
    """Send `count` splats of each kind while somebody listens to it, the next message when the last was
    answered, until the process is ended."""
    rclpy.init(args=[])
    node = rclpy.create_node('gsemsplat_bench_sender')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    gaussians = idle_gaussians().select(slice(0, count))
    for kind in KINDS:
        make, publisher = maker(kind, gaussians), node.create_publisher(PackedSplats, TOPIC + kind, LATCHED)
        answers: list[Empty] = []
        node.create_subscription(Empty, ANSWER + kind, answers.append, 10)
        while not (publisher.get_subscription_count() and node.count_publishers(ANSWER + kind)):
            executor.spin_once(timeout_sec=0.05)
        while publisher.get_subscription_count():
            answered = len(answers)
            publisher.publish(make())
            while len(answers) == answered and publisher.get_subscription_count():
                executor.spin_once(timeout_sec=0.2)


if __name__ == '__main__':
    send(int(sys.argv[1]))
