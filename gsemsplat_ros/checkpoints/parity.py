"""Comparison with stored outputs of the public network, both with generated weights.

A fixture holds what the public implementation returned in fp32 for one pair, with weights and images that
NumPy makes from names and a seed, so no checkpoint is needed. Passed means max |ours - theirs| / max |theirs|
<= 1e-4 in every field.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.checkpoints.checkpoint import expected_shapes
from gsemsplat_ros.network.config import SH_C0, NetworkConfig
from gsemsplat_ros.network.model import GSemSplat, Prediction, ViewPrediction

TOLERANCE = 1e-4


def rule_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The rule's weight for one state_dict name: normal numbers seeded by the name, scaled by its kind."""
    count = int(np.prod(shape))
    x = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(
        count, dtype=np.float32
    )
    x = x.reshape(shape)
    if len(shape) >= 2:
        x /= np.float32(np.sqrt(count / shape[0]))
        if name.endswith('head.4.weight'):
            x *= np.float32(0.1)
    elif name.endswith('.weight') and 'norm' in name:
        x = 1 + np.float32(0.1) * x
    else:
        x *= np.float32(0.1)
    return torch.from_numpy(x)


def rule_model(config: NetworkConfig) -> GSemSplat:
    """A network with the rule's weights, in evaluation mode."""
    with torch.device('meta'):
        model = GSemSplat(config)
    model.load_state_dict({k: rule_tensor(k, s) for k, s in expected_shapes(config).items()}, assign=True)
    return model.eval().requires_grad_(False)


def rule_images(seed: int, height: int, width: int) -> torch.Tensor:
    """The rule's two images (2, 3, H, W) in [0, 1]: uniform noise."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(generator.random((2, 3, height, width), dtype=np.float32))


def covariances_xyzw(scales: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
    """R S S R^T (..., 3, 3) [m^2] from scales and unit quaternions (x, y, z, w), docs/published.md 14."""
    i, j, k, r = quats.unbind(-1)
    t = 2 / (quats.square().sum(-1) + 1e-8)
    rotation = torch.stack(
        (
            1 - t * (j * j + k * k),
            t * (i * j - k * r),
            t * (i * k + j * r),
            t * (i * j + k * r),
            1 - t * (i * i + k * k),
            t * (j * k - i * r),
            t * (i * k - j * r),
            t * (j * k + i * r),
            1 - t * (i * i + j * j),
        ),
        -1,
    ).unflatten(-1, (3, 3))
    half = rotation * scales[..., None, :]
    return half @ half.mT


def fields(view: ViewPrediction, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """The fixture's names for the outputs of one view; `image` (3, H, W) in [0, 1]."""
    out: dict[str, torch.Tensor | None] = {
        'pts3d': view.pts3d,
        'conf': view.conf,
        'desc': view.desc,
        'desc_conf': view.desc_conf,
    }
    if view.sh is not None and view.opacities is not None:
        assert view.scales is not None and view.quats_xyzw is not None
        residual = (image.permute(1, 2, 0) - 0.5) / SH_C0
        out.update(
            means=view.means,
            scales=view.scales,
            rotations=view.quats_xyzw,
            sh=(view.sh - residual)[..., None],
            sh_residual=view.sh[..., None],
            opacities=view.opacities[..., None],
            covariances=covariances_xyzw(view.scales, view.quats_xyzw),
        )
    if view.codes is not None:
        out['clip_features'] = view.codes
    return {k: v[0] for k, v in out.items() if v is not None}


def read_fixture(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a fixture by name. Raises ValueError for anything but a parity fixture."""
    try:
        with np.load(path, allow_pickle=False) as file:
            fixture = {k: file[k] for k in file.files}
        NetworkConfig.large(str(fixture['model']))
        int(fixture['height']), int(fixture['width']), int(fixture['seed'])
    except FileNotFoundError:
        raise ValueError(f'no parity fixture at {path}') from None
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        AttributeError,
        TypeError,
        IndexError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f'{path} is no parity fixture ({error}): wanted an .npz with model, height, width, seed and '
            'the outputs of the public network'
        ) from None
    return fixture


@torch.inference_mode()
def check_parity(path: str | Path) -> dict:
    """Run the large network on a fixture. Returns {'fields': {name: error}, 'max_error', 'passed'}.

    Raises ValueError for anything but a parity fixture.
    """
    fixture = read_fixture(path)
    height, width = int(fixture['height']), int(fixture['width'])
    images = rule_images(int(fixture['seed']), height, width)
    model = rule_model(NetworkConfig.large(str(fixture['model'])))
    first, second = model.encode(2 * images - 1).split()
    tokens1, tokens2 = model.decode(first, second)
    prediction: Prediction = model.forward_encoded(first, second, descriptors=True)
    ours = {
        'encoder_1': first.tokens[0],
        'encoder_2': second.tokens[0],
        'decoder_6_1': tokens1[6][0],
        'decoder_12_2': tokens2[12][0],
    }
    pixels = fixture.get('pixels')
    for number, view, image in ((1, prediction.first, images[0]), (2, prediction.second, images[1])):
        for name, value in fields(view, image).items():
            ours[f'{name}_{number}'] = value if pixels is None else value.flatten(0, 1)[pixels]
    errors = {}
    for name in sorted(set(fixture) - {'model', 'height', 'width', 'seed', 'pixels'}):
        theirs = fixture[name]
        if name not in ours or tuple(ours[name].shape) != theirs.shape:
            raise ValueError(f'{path}: field {name} of shape {theirs.shape} is not an output of this network')
        errors[name] = float(np.abs(ours[name].numpy() - theirs).max() / np.abs(theirs).max())
    worst = max(errors.values())
    return {'fields': errors, 'max_error': worst, 'passed': bool(worst <= TOLERANCE)}
