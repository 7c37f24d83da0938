"""Marks of the tests, and a ROS domain of its own for each run: runs do not hear each other."""

import os
import random
import socket
import tempfile

import pytest

# The ports by which the domain_coordinator of ament_cmake_ros reserves a domain too.
PORT_OF_DOMAIN_0 = 32768
HIGHEST_DOMAIN = 101  # above it, DDS ports reach the ephemeral ports of Linux


def reserve_domain() -> tuple[int, socket.socket]:
    """Returns a free ROS domain, 1 to 101, and the socket that keeps it reserved while it is open.

    Raises:
        RuntimeError: every domain is reserved.
    """
    for domain in random.SystemRandom().sample(range(1, HIGHEST_DOMAIN + 1), HIGHEST_DOMAIN):
        guard = socket.socket()
        try:
            guard.bind(('', PORT_OF_DOMAIN_0 + domain))
            return domain, guard
        except OSError:
            guard.close()
    raise RuntimeError(f'ROS domains 1 to {HIGHEST_DOMAIN} are all reserved by other test runs: end one')


def pytest_configure(config):
    config.addinivalue_line('markers', 'heavy: takes long; only `make test-all` runs it')
    config.addinivalue_line('markers', 'cuda: needs an NVIDIA GPU; skipped without')
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ.setdefault('ROS_LOG_DIR', os.path.join(tempfile.gettempdir(), 'gsemsplat_ros_log'))
    if 'ROS_DOMAIN_ID' not in os.environ:
        domain, config.stash[DOMAIN_GUARD] = reserve_domain()
        os.environ['ROS_DOMAIN_ID'] = str(domain)


DOMAIN_GUARD = pytest.StashKey[socket.socket]()


def pytest_collection_modifyitems(items):
    gpu_items = [item for item in items if item.get_closest_marker('cuda')]
    if gpu_items:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_items:
                item.add_marker(pytest.mark.skip(reason='needs an NVIDIA GPU'))
