"""A public MASt3R, Splatt3R or GSemSplat file to our safetensors, checked key by key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.inert_pickle import printable
from gsemsplat_ros.checkpoints.torchfile import LazyTensor, read_torch_file
from gsemsplat_ros.files import digest
from gsemsplat_ros.network.config import CODE_DIM, NetworkConfig

CLIP_DIM = 512
LARGEST_DECODER = 1 << 26  # numbers; the likely public ones have about 1 << 19
TEXT_ENCODER = 'openclip:ViT-B-16'
LICENCE = 'CC BY-NC-SA 4.0 (user-supplied public weights)'
_PREFIX = 'encoder.'  # of the network inside a Lightning file
_UNWANTED = 'lpips_criterion.'  # a training loss
_DUPLICATE = '.scratch.layer_rn.'  # the same tensors as scratch.layer1_rn ... layer4_rn


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion; every tuple is sorted, names are as in the file.

    kind: 'mast3r', 'splatt3r' or 'gsemsplat'. placeholders: classes and functions that the file names, none
    of which was called. missing: what the complete GSemSplat network has beyond this kind. left_over: entries
    that were not used. dropped: duplicates and training losses. written: keys of the new file.
    """

    kind: str
    placeholders: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    dropped: tuple[str, ...]
    written: tuple[str, ...]


def convert(source: str | Path, target: str | Path) -> ConversionReport:
    """Write the network of `source` (torch file or .safetensors) to `target`, whole or not at all.

    Raises ValueError, in one line, for a foreign, truncated or damaged file and for missing or wrong keys.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f'{target} is the file to convert: give another name for the result')
    found, placeholders = _state_dict(source)
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in found) else ''
    network, decoders, dropped, left_over = _sort(found, prefix)
    if not any(key.startswith('dec_blocks2.') for key in network):
        network |= {
            key.replace('dec_blocks.', 'dec_blocks2.', 1): tensor
            for key, tensor in network.items()
            if key.startswith('dec_blocks.')
        }
    kind = _kind(source, network)
    config = NetworkConfig.large(kind)
    expected = weights.expected_shapes(config)
    left_over += [prefix + key for key in network if key not in expected]
    network = {key: tensor for key, tensor in network.items() if key in expected}
    problems = weights.mismatches(network, expected)
    problems += [
        f'{key} holds {tensor.dtype}, wanted floating point'
        for key, tensor in network.items()
        if not tensor.dtype.is_floating_point
    ]
    if kind == 'gsemsplat':
        problems += _decoder_problems(decoders)
    else:
        left_over += decoders
        decoders = {}
    if problems:
        more = f' (and {len(problems) - 3} more)' if len(problems) > 3 else ''
        raise ValueError(f'{source} is no whole {kind} network: {"; ".join(problems[:3])}{more}')

    card = {
        'config': config.to_json(),
        'kind': kind,
        'text_encoder': TEXT_ENCODER if decoders else None,
        'licence': LICENCE,
        'source': {'file': source.name, 'sha256': digest(source)},
    }
    tensors = _read(source, network | decoders)
    weights.save(target, tensors, card)
    complete = weights.expected_shapes(NetworkConfig.large())
    names = (placeholders, complete.keys() - expected, left_over, dropped, tensors)
    return ConversionReport(kind, *(tuple(sorted(map(printable, group))) for group in names))


def _state_dict(source: Path) -> tuple[dict, tuple[str, ...]]:
    """Names to tensors (perhaps other things), and the placeholders."""
    if source.suffix == '.safetensors':
        if not source.is_file():
            raise ValueError(f'no file at {source}')
        try:
            return load_file(source), ()
        except SafetensorError as error:
            raise ValueError(f'{source} is no whole safetensors file ({printable(str(error))})') from None
    file = read_torch_file(source)
    tree = file.tree
    if isinstance(tree, dict):
        for found in (tree.get('state_dict'), tree.get('model'), tree):
            if isinstance(found, dict) and any(isinstance(value, LazyTensor) for value in found.values()):
                return {
                    name if isinstance(name, str) else repr(name): value for name, value in found.items()
                }, file.placeholders
    raise ValueError(f'{source} holds no state dict: wanted a dictionary of tensors, `model` or `state_dict`')


def _sort(found: Mapping, prefix: str) -> tuple[dict, dict, list[str], list[str]]:
    """The network's tensors without prefix, the semantic decoders', the dropped and the left-over names."""
    network, decoders, dropped, left_over = {}, {}, [], []
    for name, value in found.items():
        if name.startswith(_UNWANTED) or _DUPLICATE in name:
            dropped.append(name)
        elif not isinstance(value, (LazyTensor, Tensor)):
            left_over.append(name)
        elif name.split('.')[0] in weights.DECODERS:
            decoders[name] = value
        elif name.startswith(prefix):
            network[name.removeprefix(prefix)] = value
        else:
            left_over.append(name)
    return network, decoders, dropped, left_over


def _kind(source: Path, network: Mapping) -> str:
    heads = ('.gaussian_language.', 'gsemsplat'), ('.gaussian_dpt.', 'splatt3r'), ('.dpt.', 'mast3r')
    for part, kind in heads:
        if any(part in key for key in network):
            return kind
    raise ValueError(f'{source} holds no MASt3R, Splatt3R or GSemSplat network (no downstream_head1.dpt.*)')


def _decoder_problems(decoders: Mapping) -> list[str]:
    """Decoders are stacks of convolutions from 16 to 512 channels; only the file determines their depth."""
    problems = []
    for prefix in (f'{decoder}.' for decoder in weights.DECODERS):
        parts = {name: tuple(tensor.shape) for name, tensor in decoders.items() if name.startswith(prefix)}
        layers = sorted(
            (tuple(map(int, re.findall(r'\d+', name))), shape)
            for name, shape in parts.items()
            if name.endswith('.weight') and len(shape) == 4
        )
        widths = [(shape[1], shape[0]) for _, shape in layers]  # (in, out), in the order of the numbers
        size = sum(map(math.prod, parts.values()))
        if not widths:
            problems.append(f'{prefix}* is missing')
        elif size > LARGEST_DECODER:
            problems.append(f'{prefix}* has {size} numbers, wanted at most {LARGEST_DECODER}')
        elif (
            widths[0][0] != CODE_DIM
            or widths[-1][1] != CLIP_DIM
            or any(a[1] != b[0] for a, b in pairwise(widths))
        ):
            problems.append(
                f'{prefix}* leads through {widths[:12]}, wanted {CODE_DIM} to {CLIP_DIM} channels'
            )
    return problems


def _read(source: Path, tensors: Mapping) -> dict[str, Tensor]:
    """The tensors themselves, no two in the same memory (safetensors refuses that)."""
    result, taken = {}, set()
    for key, tensor in tensors.items():
        try:
            tensor = (tensor.read() if isinstance(tensor, LazyTensor) else tensor).contiguous()
        except ValueError as error:
            raise ValueError(f'{source}: {key}: {error}') from None
        result[key] = tensor.clone() if tensor.data_ptr() in taken else tensor
        taken.add(tensor.data_ptr())
    return result
