"""A public MASt3R, Splatt3R or GSemSplat file to our safetensors, checked key by key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.inert_pickle import printable
from gsemsplat_ros.checkpoints.licences import stated, united
from gsemsplat_ros.checkpoints.state_dict import Entry, Found, find, objects_in, split
from gsemsplat_ros.checkpoints.tensor_file import check_finite
from gsemsplat_ros.checkpoints.weight_files import LazyWeight, read_weight_file
from gsemsplat_ros.files import digest
from gsemsplat_ros.network.config import CODE_DIM, NetworkConfig

CLIP_DIM = 512
LARGEST_DECODER = 1 << 26  # numbers; the likely public ones have about 1 << 19
TEXT_ENCODER = 'openclip:ViT-B-16'
LICENCE = 'CC BY-NC-SA 4.0 (user-supplied public weights)'
LINEAGE = {  # kind -> what of licences.json it holds
    'mast3r': ('mast3r',),
    'splatt3r': ('splatt3r', 'mast3r'),
    'gsemsplat': ('gsemsplat', 'splatt3r', 'mast3r', 'openclip-vit-b-16'),
}
_UNWANTED = 'lpips_criterion.'  # a training loss
_DUPLICATE = '.scratch.layer_rn.'  # the same tensors as scratch.layer1_rn ... layer4_rn


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion; every tuple is sorted, names are as in the file.

    kind: 'mast3r', 'splatt3r' or 'gsemsplat'. prefix: what the network's names begin with in the file;
    wrappers: names of wrappers that were left out of them; passed_over: prefixes of further networks in the
    file, such as moving averages. placeholders: classes and functions that the file names, none
    of which was called. missing: what the complete GSemSplat network has beyond this kind. left_over: entries
    that were not used. dropped: duplicates and training losses. written: keys of the new file.
    """

    kind: str
    prefix: str
    wrappers: tuple[str, ...]
    passed_over: tuple[str, ...]
    placeholders: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    dropped: tuple[str, ...]
    written: tuple[str, ...]


def convert(source: str | Path, target: str | Path) -> ConversionReport:
    """Write the network of `source` to `target`, whole or not at all. `source`: a torch file or .safetensors,
    the index of one in parts, or a folder with one of these (weight_files.py).

    Raises ValueError, in one line, for a foreign, truncated or damaged file, for missing or wrong keys, and
    for numbers that are not finite.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f'{target} is the file to convert: give another name for the result')
    if target.is_dir():
        raise ValueError(f'{target} is a folder: give the name of the .safetensors file to write')
    complete = weights.expected_shapes(NetworkConfig.large())
    file = read_weight_file(source)
    try:
        found = find(file.tree, {name.split('.')[0] for name in complete})
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from None
    if found is None:
        raise ValueError(
            f'{source} holds no state dict of a MASt3R, Splatt3R or GSemSplat network{objects_in(file.tree)}'
        )
    network, decoders, dropped, left_over = _sort(found)
    if not any(key.startswith('dec_blocks2.') for key in network):
        network |= {
            key.replace('dec_blocks.', 'dec_blocks2.', 1): tensor
            for key, tensor in network.items()
            if key.startswith('dec_blocks.')
        }
    kind = _kind(source, network)
    config = NetworkConfig.large(kind)
    expected = weights.expected_shapes(config)
    left_over += [network[key].name for key in network if key not in expected]
    network = {key: entry for key, entry in network.items() if key in expected}
    chosen = {key: entry.value for key, entry in network.items()}
    problems = weights.mismatches(chosen, expected)
    problems += [
        f'{key} holds {tensor.dtype}, wanted floating point'
        for key, tensor in chosen.items()
        if tensor.dtype is None or not tensor.dtype.is_floating_point
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
        'licences': united(stated(*LINEAGE[kind])),
        'source': {'file': source.name, 'sha256': digest(*file.files)},
    }
    tensors = _read(source, chosen | decoders)
    weights.save(target, tensors, card)
    names = (file.placeholders, complete.keys() - expected, left_over, dropped, tensors)
    return ConversionReport(
        kind,
        printable(found.prefix),
        found.wrappers,
        tuple(map(printable, found.passed_over)),
        *(tuple(sorted(map(printable, group))) for group in names),
    )


def _sort(found: Found) -> tuple[dict[str, Entry], dict[str, LazyWeight], list[str], list[str]]:
    """The network's entries, the semantic decoders' tensors, the dropped and the left-over names, of the
    dictionary that the network lies in. The decoders' prefix begins the network's, or is it.
    """
    dropped = [entry.name for entry in found.tensors.values() if _DUPLICATE in entry.name]
    network = {key: entry for key, entry in found.tensors.items() if _DUPLICATE not in key}
    decoders: dict[str, LazyWeight] = {}
    left_over: list[str] = []
    for entry in found.beside:
        parts = split(entry.path, set(weights.DECODERS)) if entry.is_tensor else None
        if parts is not None and found.prefix.startswith(parts[0]):
            decoders[parts[1]] = entry.value
        elif entry.at == found.at:
            (dropped if _UNWANTED in entry.name else left_over).append(entry.name)
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


def _read(source: Path, tensors: Mapping[str, LazyWeight]) -> dict[str, Tensor]:
    """The tensors themselves. Raises ValueError for one that is damaged or not finite."""
    result = {}
    for key, tensor in tensors.items():
        try:
            result[key] = tensor.read().contiguous()
        except ValueError as error:
            raise ValueError(f'{source}: {key}: {error}') from None
        try:
            check_finite(key, result[key])
        except ValueError as error:
            raise ValueError(f'{source}: {error}; download it again, or take another') from None
    return result
