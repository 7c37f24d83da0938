"""Checkpoints: safetensors with a JSON card in the header.

One file holds the network (under its public names), the two semantic decoders (`language_decoder_sam.*`,
`language_decoder_patch.*`) and, where the text space is centred, its mean (`text_mean`). The card holds
configuration, kind, text encoder, licence, training and scores. Large weights of the small network are stored
in 8 bits, with a scale for each output channel beside them (`NAME.scale`).
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gsemsplat_ros.checkpoints.card import CARD_KEY, parsed
from gsemsplat_ros.checkpoints.tensor_file import (
    StoredTensor,
    TensorFile,
    check_finite,
    read_tensor_file,
    write_tensor_file,
)
from gsemsplat_ros.checkpoints.torch_tensors import LazyTensor
from gsemsplat_ros.files import write_whole
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat

SHIPPED = Path(__file__).parents[1] / 'weights' / 'small.safetensors'
SHIPPED_DIGEST = 'd6a1479743fa9a8a69d7bc108b5d262b660473781c38670f263aca9fb3b103e8'  # of its tensors
# names in the public checkpoints: the decoders of the region-specific (0) and context-aware branch (1)
DECODERS = ('language_decoder_sam', 'language_decoder_patch')
TEXT_MEAN = 'text_mean'
# stored in half precision whatever their size: the code of the context-aware branch and the decoders
HALF = 'context.code.', *DECODERS
# values; smaller weights stay in half precision: they are few, and depthwise ones suffer most from 8 bits
SMALL = 16384
SCALE = '.scale'  # ends the name of the scales of an 8-bit weight


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file: network in evaluation mode, the semantic decoders' tensors, text mean and card."""

    model: GSemSplat
    decoders: dict[str, Tensor]
    text_mean: Tensor | None
    card: dict
    path: Path


def in_8_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Large weights as int8 with a scale for each output channel, the others in half precision.
    `from_8_bits` and this again give the same.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.numel() < SMALL:
            out[name] = tensor.half()
            continue
        scale = tensor.float().flatten(1).abs().amax(1).clamp(min=1e-12) / 127
        out[name] = (tensor.float() / per_channel(scale, tensor)).round().to(torch.int8)
        out[name + SCALE] = scale
    return out


def stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the small network and its decoders as a file holds them: 8 bits for large weights, half
    precision for the rest. On rooms this moves points by 0.6 % and leaves their error as it was."""
    half = {name: tensor.half() for name, tensor in tensors.items() if name.startswith(HALF)}
    others = {name: tensor for name, tensor in tensors.items() if name not in half}
    return {name: tensor.cpu() for name, tensor in (half | in_8_bits(others)).items()}


def from_8_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file in fp32. Raises ValueError for a weight without its scale."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            scale = tensors.get(name + SCALE)
            if scale is None or scale.shape != tensor.shape[:1]:
                raise ValueError(f'{name} is stored in 8 bits without {name}{SCALE}: the file is damaged')
            out[name] = tensor.float() * per_channel(scale.float(), tensor)
        elif not name.endswith(SCALE):
            out[name] = tensor.float() if tensor.is_floating_point() else tensor
    return out


def per_channel(scale: Tensor, like: Tensor) -> Tensor:
    """(C,) as (C, 1, ...) beside `like` (C, ...)."""
    return scale.reshape(-1, *[1] * (like.ndim - 1))


def save(path: str | Path, tensors: dict[str, Tensor], card: dict) -> None:
    """Write `tensors` and `card` (with the key 'config') to `path`; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        write_tensor_file(part, tensors, {CARD_KEY: json.dumps(card)})


def opened(path: str | Path) -> tuple[TensorFile, dict]:
    """The header of a checkpoint, and its card, checked. Raises ValueError, in one line, for another file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f'no checkpoint at {path}: give a .safetensors file that `gsemsplat weights convert` or '
            '`gsemsplat train` wrote'
        )
    try:
        file = read_tensor_file(path)
        text = file.metadata.get(CARD_KEY)
        if text is None:
            raise ValueError('it has no card')
        return file, parsed(text)
    except ValueError as error:
        raise ValueError(
            f'{path} is no gsemsplat checkpoint ({error}): convert a public file with '
            '`gsemsplat weights convert FILE OUT`'
        ) from None


def read_card(path: str | Path) -> dict:
    """The card of a checkpoint. Raises ValueError as `opened`."""
    return opened(path)[1]


def update_card(path: str | Path, changes: dict) -> None:
    """Write `changes` into the card of a checkpoint; its tensors stay bit for bit."""
    file, card = opened(path)
    save(path, file.read(), {**card, **changes})


def add_scores(path: str | Path, name: str, scores: Mapping[str, float | str | None]) -> None:
    """Write measured `scores` into the card, under 'scores' and `name`."""
    update_card(path, {'scores': {**(read_card(path).get('scores') or {}), name: scores}})


def load(path: str | Path | None = None, device: str | torch.device = 'cpu') -> Checkpoint:
    """Load `path` (None: the shipped small network) in fp32, in evaluation mode.

    Raises ValueError for any other file, for tensors that do not match the configuration and for numbers that
    are not finite, naming them; for the shipped file also if its tensors are not those that were shipped.
    """
    path = SHIPPED if path is None else Path(path)
    file, card = opened(path)
    config = NetworkConfig.from_json(card['config'])
    network = {name: stored for name, stored in file.tensors.items() if not name.endswith(SCALE)}
    decoders = {name: network.pop(name) for name in list(network) if name.split('.')[0] in DECODERS}
    text_mean = network.pop(TEXT_MEAN, None)
    problems = missing_blocks(network, config)
    if not problems:
        model = without_weights(path, config)
        problems = mismatches(network, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    if problems:
        raise ValueError(
            f'{path} does not fit its configuration: {problems[0]}'
            + (f' (and {len(problems) - 1} more)' if len(problems) > 1 else '')
            + '; convert or train it again'
        )
    if path == SHIPPED and (found := file.digest()) != SHIPPED_DIGEST:
        raise ValueError(
            f'{path} is not the file that was shipped (SHA-256 of its tensors {found}, wanted '
            f'{SHIPPED_DIGEST}): install the package again'
        )
    try:
        tensors = in_fp32(file, network, device)
        decoder_tensors = in_fp32(file, decoders, device)
        mean = None if text_mean is None else in_fp32(file, [TEXT_MEAN], device)[TEXT_MEAN]
    except ValueError as error:
        raise ValueError(f'{path}: {error}; convert or train it again') from None
    model.load_state_dict(tensors, assign=True)
    return Checkpoint(model.eval().requires_grad_(False), decoder_tensors, mean, card, path)


def without_weights(path: Path, config: NetworkConfig) -> GSemSplat:
    """The network of `config` on the meta device. Raises ValueError for sizes that build none."""
    try:
        with torch.device('meta'):
            return GSemSplat(config)
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'{path}: its configuration builds no network ({reason})') from None


def missing_blocks(tensors: Container[str], config: NetworkConfig) -> list[str]:
    """One sentence for each stack of blocks of `config` whose last is not in the file: no layer is built for
    a card alone."""
    depths = {'enc_blocks': config.enc_depth, 'dec_blocks': config.dec_depth, 'dec_blocks2': config.dec_depth}
    last = [f'{stack}.{depth - 1}.norm1.weight' for stack, depth in depths.items()]
    return [f'{name} is missing' for name in last if name not in tensors]


def in_fp32(file: TensorFile, names: Iterable[str], device: str | torch.device) -> dict[str, Tensor]:
    """Tensors of a file in fp32, one after the other, so that no more than one is in memory twice.

    Raises ValueError, with the name, for one that is not finite, and as `from_8_bits`.
    """
    out: dict[str, Tensor] = {}
    for name in names:
        scale = file.tensors.get(name + SCALE)
        part = {name: file.tensors[name].read().to(device)}
        if scale is not None:
            part[name + SCALE] = scale.read().to(device)
        out |= from_8_bits(part)
        if not out[name].is_floating_point():
            raise ValueError(f'{name} holds {out[name].dtype}, wanted floating point')
        check_finite(name, out[name])
    return out


def expected_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network."""
    with torch.device('meta'):
        return {k: tuple(t.shape) for k, t in GSemSplat(config).state_dict().items()}


def mismatches(
    tensors: Mapping[str, Tensor | StoredTensor | LazyTensor], expected: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """One sentence for every missing, unknown or wrongly shaped tensor."""
    problems = [f'{k} is missing' for k in expected if k not in tensors]
    problems += [f'{k} is not part of the network' for k in tensors if k not in expected]
    problems += [
        f'{k} has shape {tuple(t.shape)}, wanted {expected[k]}'
        for k, t in tensors.items()
        if k in expected and tuple(t.shape) != expected[k]
    ]
    return problems
