"""Many who ask at once: each is answered."""

import os
import subprocess
import sys
from pathlib import Path

from sensor_msgs.msg import PointCloud2
from support.node_process import DEADLINE_S
from support.ros_client import EVERY_PAIR, Stereo

CLIENTS, REQUESTS = 50, 5


def test_fifty_clients_at_once_are_all_answered(client, start, domain):
    client.listen(PointCloud2, '/a/gsemsplat/gaussians')
    process = start('-r', '__ns:=/a', *EVERY_PAIR)
    process.wait_for('waiting for')
    Stereo(client).scene()
    crowd = subprocess.run(
        [sys.executable, '-m', 'support.crowd', '/a/query', *map(str, (CLIENTS, REQUESTS, 2 * DEADLINE_S))],
        cwd=Path(__file__).parents[1],
        env=dict(os.environ, ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST'),
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE_S,
    )
    assert f'{CLIENTS * REQUESTS} answered' in crowd.stdout, crowd.stdout + crowd.stderr[-2000:]
