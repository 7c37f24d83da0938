"""`gsemsplat bench --node`: the node's own cost, between two processes."""

import json

import pytest

from gsemsplat_ros.cli import main
from gsemsplat_ros.ros.client import bench_node, bench_splats

pytestmark = pytest.mark.usefixtures('own_environment')


def test_the_cost_of_the_node_is_measured_between_two_processes(monkeypatch, capsys):
    monkeypatch.setattr(bench_node, 'PLAYS', 2)
    monkeypatch.setattr(bench_node, 'WARM_UP', 1)
    monkeypatch.setattr(bench_splats, 'PLAYS', 8)
    monkeypatch.setattr(bench_splats, 'COUNT', 10_000)
    assert main(['bench', '--node', '--json']) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result['gaussians'], result['images'], result['plays']) == (400_000, '2 x 640x480', 2)
    assert 0 < result['best_seconds'] <= result['seconds']
    assert result['message_seconds'] > 0 and result['node_cpu_seconds'] > 0
    packed, array = (result['splats'][kind] for kind in bench_splats.KINDS)
    assert packed['splats'] == array['splats'] == 10_000
    assert packed['bytes_each'] == pytest.approx(28, abs=0.1)
    assert array['bytes_each'] == pytest.approx(384, abs=0.1)
    assert packed['messages_per_second'] > array['messages_per_second'] > 0
