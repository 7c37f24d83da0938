"""Convolutions that are wrong in bfloat16 for small maps, by an imitation of the fault."""

import numpy as np
import pytest
import torch
from support.tiny_network import TINY
from torch import nn
from torch.nn import functional as F

from gsemsplat_ros.checkpoints.parity import rule_model
from gsemsplat_ros.network import inference
from gsemsplat_ros.network.efficientnet import SameConv
from gsemsplat_ros.network.inference import Inference
from gsemsplat_ros.network.narrow_maps import agree, compute_right

CPU = torch.device('cpu')
right_conv2d = F.conv2d


def wrong_conv2d(x, weight, *others):
    """As oneDNN on some CPUs: of small outputs, here up to 4 on a side, only the first tap is computed."""
    out = right_conv2d(x, weight, *others)
    if x.dtype == torch.bfloat16 and min(out.shape[-2:]) <= 4:
        first = torch.zeros_like(weight)
        first[:, :, 0, 0] = weight[:, :, 0, 0]
        return right_conv2d(x, first, *others)
    return out


@pytest.fixture
def wrong_cpu(monkeypatch):
    """A CPU with units for bfloat16 whose convolutions are wrong for narrow maps."""
    monkeypatch.setattr(F, 'conv2d', wrong_conv2d)
    monkeypatch.setattr(inference, 'has_bfloat16', lambda device: True)


LAYERS = {
    'plain': lambda: nn.Conv2d(8, 16, 3, padding=1),
    'stride': lambda: nn.Conv2d(8, 16, 3, stride=2, padding=1),
    'depthwise': lambda: SameConv(8, 8, 5, stride=2, groups=8),
    'patches': lambda: nn.Conv2d(3, 16, 16, stride=16),
    'one output': lambda: nn.Conv2d(1, 1, 2),
}


@pytest.mark.parametrize('kind', LAYERS)
@pytest.mark.parametrize('last', [False, True])
def test_a_wrong_convolution_is_detected(monkeypatch, kind, last):
    torch.manual_seed(0)
    layer, twin = LAYERS[kind]().bfloat16(), LAYERS[kind]()
    twin.load_state_dict(layer.state_dict())
    layout = torch.channels_last if last else torch.contiguous_format
    sizes = [(16, 16), (512, 16), (2, 2), (17, 3), (64, 48)]
    maps = [torch.empty(1, layer.in_channels, *size).bfloat16().to(memory_format=layout) for size in sizes]
    maps = [x for x in maps if min(x.shape[-2:]) >= layer.kernel_size[0] or kind != 'patches']
    assert all(agree(layer, twin, x) for x in maps)
    sides = [min(twin(x.float()).shape[-2:]) for x in maps]
    monkeypatch.setattr(F, 'conv2d', wrong_conv2d)
    assert [agree(layer, twin, x) for x in maps] == [side > 4 for side in sides]


@pytest.mark.parametrize('kind', LAYERS)
def test_wrong_convolutions_are_computed_in_float32(wrong_cpu, kind):
    torch.manual_seed(0)
    layer, exact = LAYERS[kind]().bfloat16(), LAYERS[kind]()
    exact.load_state_dict(layer.state_dict())
    compute_right(layer)
    for size in (16, 16), (256, 16), (64, 48), (16, 16):
        x = torch.randn(1, layer.in_channels, *size).bfloat16()
        got, wanted = layer(x), exact(x.float()).detach()
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), wanted, atol=0.02 * float(wanted.abs().max()), rtol=0)


def test_each_size_is_tried_once(wrong_cpu, monkeypatch):
    tried = []
    monkeypatch.setattr(
        'gsemsplat_ros.network.narrow_maps.agree', lambda layer, twin, x: tried.append(x.shape) or True
    )
    layer = LAYERS['plain']().bfloat16()
    compute_right(layer)
    for size in (16, 4), (16, 4), (4, 16), (64, 64), (16, 4):
        layer(torch.zeros(1, 8, *size).bfloat16())
    layer.float()(torch.zeros(1, 8, 3, 3))
    assert tried == [(1, 8, 16, 4), (1, 8, 4, 16)]


HYBRID = TINY.replace(stem=True, output_stride=2, shared_trunk=True, language_channels=16)


@pytest.mark.parametrize('config', [TINY, HYBRID], ids=['public', 'small'])
@pytest.mark.parametrize('height, width', [(128, 16), (16, 128)])
def test_a_strip_is_seen_as_in_float32(wrong_cpu, monkeypatch, config, height, width):
    """The whole network on a CPU that is wrong for narrow maps; uncorrected, it sees other things."""
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2)]

    def seen(exact):
        network = Inference(rule_model(config), CPU, exact)
        assert network.bf16 != exact
        first = network.predict(*network.encode(images)).first
        return torch.cat([getattr(first, name).flatten() for name in ('pts3d', 'means', 'codes')])

    exact, corrected = seen(exact=True), seen(exact=False)
    monkeypatch.setattr(inference, 'compute_right', lambda model: None)
    wrong = seen(exact=False)
    unlike = [float((got - exact).abs().mean() / exact.std()) for got in (corrected, wrong)]
    assert unlike[0] < 0.02 and unlike[1] > 4 * unlike[0]
