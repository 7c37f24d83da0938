"""Checkpoints: safetensors with a JSON card in the header.

One file holds the network (under its public names), the two semantic decoders (`language_decoder_sam.*`,
`language_decoder_patch.*`) and, where the text space is centred, its mean (`text_mean`). The card holds
configuration, kind, text encoder, licence, training and scores. Large weights of the small network are stored
in 8 bits, with a scale for each output channel beside them (`NAME.scale`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gsemsplat_ros.files import write_whole
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat

SHIPPED = Path(__file__).parents[1] / 'weights' / 'small.safetensors'
# names in the public checkpoints: the decoders of the region-specific (0) and context-aware branch (1)
DECODERS = ('language_decoder_sam', 'language_decoder_patch')
TEXT_MEAN = 'text_mean'
CARD_KEY = 'gsemsplat'
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
        save_file(
            {k: t.detach().contiguous() for k, t in tensors.items()}, part, {CARD_KEY: json.dumps(card)}
        )


def read_card(path: str | Path) -> dict:
    """The card of a checkpoint. Raises ValueError for any other file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f'no checkpoint at {path}: give a .safetensors file that `gsemsplat weights convert` or '
            '`gsemsplat train` wrote'
        )
    try:
        with safe_open(path, 'pt') as file:
            return json.loads((file.metadata() or {})[CARD_KEY])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f'{path} is no gsemsplat checkpoint ({type(error).__name__}): convert a public file with '
            '`gsemsplat weights convert FILE OUT`'
        ) from None


def update_card(path: str | Path, changes: dict) -> None:
    """Write `changes` into the card of a checkpoint; its tensors stay bit for bit."""
    card = read_card(path)
    with safe_open(path, 'pt') as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  (not a dictionary)
    save(path, tensors, {**card, **changes})


def add_scores(path: str | Path, name: str, scores: Mapping[str, float | str | None]) -> None:
    """Write measured `scores` into the card, under 'scores' and `name`."""
    update_card(path, {'scores': {**read_card(path).get('scores', {}), name: scores}})


def load(path: str | Path | None = None, device: str | torch.device = 'cpu') -> Checkpoint:
    """Load `path` (None: the shipped small network) in fp32, in evaluation mode.

    Raises ValueError for any other file, and for tensors that do not match the configuration, naming them.
    """
    path = SHIPPED if path is None else Path(path)
    card = read_card(path)
    config = NetworkConfig.from_json(card['config'])
    with safe_open(path, 'pt', device=str(device)) as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  (not a dictionary)
    try:
        tensors = from_8_bits(tensors)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    decoders = {k: tensors.pop(k) for k in list(tensors) if k.split('.')[0] in DECODERS}
    text_mean = tensors.pop(TEXT_MEAN, None)
    with torch.device('meta'):
        model = GSemSplat(config)
    problems = mismatches(tensors, expected_shapes(config))
    if problems:
        raise ValueError(
            f'{path} does not fit its configuration: {problems[0]}'
            + (f' (and {len(problems) - 1} more)' if len(problems) > 1 else '')
            + '; convert or train it again'
        )
    model.load_state_dict(tensors, assign=True)
    return Checkpoint(model.eval().requires_grad_(False), decoders, text_mean, card, path)


def expected_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network."""
    with torch.device('meta'):
        return {k: tuple(t.shape) for k, t in GSemSplat(config).state_dict().items()}


def mismatches(tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> list[str]:
    """One sentence for every missing, unknown or wrongly shaped tensor."""
    problems = [f'{k} is missing' for k in expected if k not in tensors]
    problems += [f'{k} is not part of the network' for k in tensors if k not in expected]
    problems += [
        f'{k} has shape {tuple(t.shape)}, wanted {expected[k]}'
        for k, t in tensors.items()
        if k in expected and tuple(t.shape) != expected[k]
    ]
    return problems
