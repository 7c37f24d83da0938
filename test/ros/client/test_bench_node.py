"""`gsemsplat bench --node`: the node's own cost, between two processes."""

import json

import pytest

from gsemsplat_ros.cli import main
from gsemsplat_ros.ros.client import bench_node

pytestmark = pytest.mark.usefixtures('own_environment')


def test_the_cost_of_the_node_is_measured_between_two_processes(monkeypatch, capsys):
    monkeypatch.setattr(bench_node, 'PLAYS', 2)
    monkeypatch.setattr(bench_node, 'WARM_UP', 1)
    assert main(['bench', '--node', '--json']) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result['gaussians'], result['images'], result['plays']) == (400_000, '2 x 640x480', 2)
    assert 0 < result['best_seconds'] <= result['seconds']
    assert result['message_seconds'] > 0 and result['node_cpu_seconds'] > 0
