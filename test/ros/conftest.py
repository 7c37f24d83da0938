"""Nodes as processes, and a client that speaks with them; without ROS, these tests are left out."""

from importlib.util import find_spec

import pytest

if find_spec('rclpy') is None:
    collect_ignore_glob = ['*']


@pytest.fixture(scope='module')
def domain():
    """Number of a ROS domain that only this module's tests use."""
    from gsemsplat_ros.ros.client.node_process import reserve_domain

    domain, guard = reserve_domain()
    with guard:
        yield domain


@pytest.fixture(scope='module')
def client(domain):
    """A Client in the module's domain."""
    from support.ros_client import Client

    client = Client(domain)
    yield client
    client.close()


@pytest.fixture(scope='module')
def start(domain):
    """Function that starts a node process with ROS arguments; at the end what still runs ends cleanly."""
    from support.node_process import NodeProcess

    nodes = []

    def make(*ros_args, program='node_program.py'):
        nodes.append(NodeProcess(*ros_args, domain=domain, program=program))
        return nodes[-1]

    yield make
    try:
        for node in nodes:
            if node.active:
                node.stop()
    finally:
        for node in nodes:
            node.kill()
