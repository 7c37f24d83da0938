"""The common part of maps (map_file.py) and scenes (scene_file.py) on disk: Gaussians with codes, a JSON
card that names their decoders, and a digest of the whole, in one safetensors file that appears whole or not
at all.

The digest tells damage, not who wrote the file: whoever knows the format can make one. So each number and
text of a file is compared with what it may be, on reading and on writing, before anything is made of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.checkpoints.tensor_file import StoredTensor, read_tensor_file, write_tensor_file
from gsemsplat_ros.files import digest, write_whole
from gsemsplat_ros.gaussians.gaussians import Gaussians

# half precision keeps 3 digits: enough for all but positions, with scales as logarithms
DTYPES = {
    'means': torch.float32,
    'quats': torch.float16,
    'log_scales': torch.float16,
    'opacities': torch.float16,
    'colors': torch.float16,
    'codes': torch.float16,
}
ANY = -1  # of a side: the decoders fix the width of the codes, and a file names its decoders
SHAPES: dict[str, tuple[int, ...] | None] = {
    'means': (3,),
    'quats': (4,),
    'log_scales': (3,),
    'opacities': (),
    'colors': (3,),
    'codes': (ANY,),
}
SMALLEST, LARGEST = 1e-38, 1e6  # m: of a scale, and of a coordinate; squares stay finite
LONGEST_TEXT = 256  # characters of a frame or another text of a card
SPACE = 'weights', 'text_encoder', 'decoders'  # entries of every card: of which decoders the codes are
LARGEST_COUNT = 2**31 - 2  # a map counts its scenes in int32, and the next one must fit


@dataclass(frozen=True)
class CodeSpace:
    """The space of a file's codes: the checkpoint's file name, its text encoder, a digest of its decoders,
    and the width of a code (0: no codes)."""

    weights: str
    text_encoder: str
    decoders: str
    code_dim: int

    @classmethod
    def of_file(cls, card: Mapping[str, str], tensors: Mapping[str, Tensor]) -> CodeSpace:
        """That of a checked file."""
        weights, text_encoder, decoders = (card[name] for name in SPACE)
        return cls(weights, text_encoder, decoders, tensors['codes'].shape[1])

    @classmethod
    def of(cls, weights: str, text_encoder: str, decoders: Mapping[str, Tensor], code_dim: int) -> CodeSpace:
        """`decoders`: the tensors of both semantic decoders, by name; `code_dim`: what they read."""
        floats = {name: tensor.float() for name, tensor in decoders.items()}
        return cls(weights, text_encoder, fingerprint({}, floats), code_dim)


@dataclass(frozen=True)
class Kind:
    """A kind of file. name: 'map' or 'scene'; key: of its card; maker: command or service that writes it;
    dtypes, shapes: of its tensors, of each Gaussian (None: any number of values); entries: of its card, with
    the type of each; defect: what else is wrong with a card and its tensors, in words, '' for nothing; since:
    tensors that came after the first version, with the version that brought each; older files lack them.
    """

    name: str
    key: str
    version: int
    maker: str
    dtypes: Mapping[str, torch.dtype]
    shapes: Mapping[str, tuple[int, ...] | None]
    entries: Mapping[str, type]
    defect: Callable[[dict, Mapping[str, Tensor]], str]
    since: Mapping[str, int] = field(default_factory=dict)

    def of_version(self, version: int) -> Kind:
        """The kind as that earlier version wrote it."""
        dtypes = {name: of for name, of in self.dtypes.items() if self.since.get(name, 1) <= version}
        return replace(self, version=version, dtypes=dtypes)


def fingerprint(card: dict, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a card (but its own 'sha256') and of tensors with their names and shapes, in hexadecimal."""
    parts: list[bytes | memoryview] = [
        json.dumps({k: v for k, v in card.items() if k != 'sha256'}, sort_keys=True).encode()
    ]
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].detach().cpu().numpy())
        parts += [f'{name} {array.dtype.str} {array.shape}'.encode(), array.data]
    return digest(*parts)


def tensors_of(gaussians: Gaussians) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU, from Gaussians."""
    tensors = {
        'means': gaussians.means,
        'quats': gaussians.quats,
        'log_scales': gaussians.scales.clamp(SMALLEST, LARGEST).log(),
        'opacities': gaussians.opacities,
        'colors': gaussians.colors,
        'codes': gaussians.codes,
    }
    return {name: tensor.detach().to(DTYPES[name]).contiguous() for name, tensor in tensors.items()}


def gaussians_of(tensors: Mapping[str, Tensor], frame: str) -> Gaussians:
    """The Gaussians of a checked file, on the CPU."""
    values = {name: tensors[name].float() for name in DTYPES}
    return Gaussians(
        values['means'],
        torch.nn.functional.normalize(values['quats'], dim=1),
        values['log_scales'].exp(),
        values['opacities'],
        values['colors'],
        values['codes'],
        frame,
    )


def write(
    path: Path,
    kind: Kind,
    card: dict,
    tensors: Mapping[str, Tensor],
    space: CodeSpace,
    beside: Callable[[], None] = lambda: None,
) -> None:
    """Write card and tensors to `path`, then call `beside`, which may write more.

    Raises ValueError for what `read` would refuse, for a folder in the place of the file, and when the disk
    is full or the folder not writable; earlier files then stay.
    """
    card = {'version': kind.version, **card, **{name: getattr(space, name) for name in SPACE}}
    problem = misshapen(tensors, kind) or wrong(card, tensors, kind)
    if problem:
        raise ValueError(f'cannot write the {kind.name} {path}: {problem}')
    if path.is_dir():
        raise ValueError(f'cannot write the {kind.name} {path}: it is a folder; give another name')
    text = json.dumps({**card, 'sha256': fingerprint(card, tensors)})
    try:
        with write_whole(path) as part:
            write_tensor_file(part, tensors, {kind.key: text})
            beside()  # once this one is written: a full disk leaves both files as they were
    except OSError as error:
        raise ValueError(
            f'cannot write the {kind.name} {path} ({error.strerror or error}): is there space, and may this '
            'user write there?'
        ) from None


def read(path: Path, kind: Kind) -> tuple[dict, dict[str, Tensor]]:
    """Card and tensors of the file at `path`, checked.

    A file of an earlier version lacks the tensors that came later. Raises ValueError, in one line, for a file
    that is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise ValueError(f'no {kind.name} at {path}: give a file that {kind.maker} wrote')
    try:
        file = read_tensor_file(path)
        card = json.loads(file.metadata[kind.key])
    except (KeyError, ValueError, RecursionError) as error:
        reason = 'no card of it' if isinstance(error, KeyError) else f'{error}'.partition('\n')[0]
        raise ValueError(
            f'{path} is no {kind.name}, or only a part of one ({reason}): give a file that {kind.maker} wrote'
        ) from None
    version = card.get('version') if isinstance(card, dict) else None
    if type(version) is not int or not 1 <= version <= kind.version:
        raise ValueError(
            f'{path} is a {kind.name} of version {repr(version)[:20]}, wanted {kind.version} at most: use '
            'the release that wrote it'
        )
    kind = kind.of_version(version)
    problem, tensors = misshapen(file.tensors, kind), {}
    try:
        tensors = {} if problem else file.read()
    except ValueError as error:
        problem = str(error)
    problem = problem or wrong(card, tensors, kind)
    if not problem and card.get('sha256') != fingerprint(card, tensors):
        problem = 'its contents are not those that were saved'
    if problem:
        raise ValueError(f'{path} is damaged: {problem}; write it again with {kind.maker}')
    return card, tensors


def check_space(path: Path, theirs: CodeSpace, ours: CodeSpace, cure: str) -> None:
    """Raises ValueError, ending in `cure`, for codes of other decoders or another text encoder."""
    if (theirs.text_encoder, theirs.decoders) != (ours.text_encoder, ours.decoders):
        raise ValueError(
            f'{path} was made with a {theirs.weights} ({theirs.text_encoder}) of other decoders than the '
            f'{ours.weights} in use ({ours.text_encoder}): {cure}'
        )
    if theirs.code_dim not in (0, ours.code_dim):
        raise ValueError(
            f'{path} is damaged: a code has {theirs.code_dim} channels, and {ours.weights} reads '
            f'{ours.code_dim}: {cure}'
        )


def misshapen(tensors: Mapping[str, Tensor] | Mapping[str, StoredTensor], kind: Kind) -> str:
    """The first tensor whose type or shape is not that of `kind`, in words; '' for none. Reads no values."""
    if tensors.keys() != kind.dtypes.keys():
        return f'its tensors are {sorted(tensors)}, wanted {sorted(kind.dtypes)}'[:400]
    means = tensors['means']
    count = means.shape[0] if means.shape else 0
    for name, tensor in tensors.items():
        of_each = kind.shapes[name]
        shape = (math.prod(tensor.shape),) if of_each is None else (count, *of_each)
        fits = len(tensor.shape) == len(shape) and all(
            side in (found, ANY) for found, side in zip(tensor.shape, shape)
        )
        if tensor.dtype != kind.dtypes[name] or not fits:
            return f'{name} is {tensor.dtype} {tuple(tensor.shape)}, wanted {kind.dtypes[name]} {shape}'
    return ''


def wrong(card: dict, tensors: Mapping[str, Tensor], kind: Kind) -> str:
    """What is wrong with a card and its tensors, whose shapes are right, in words; '' for nothing."""
    for name, of in {**kind.entries, **dict.fromkeys(SPACE, str)}.items():
        if type(card.get(name)) is not of:
            return f'its card lacks {name}'
        value: Any = card[name]
        if of is str and not plain(value):
            return f'{name} of its card is no short text in one line'
        if of is float and not math.isfinite(value):
            return f'{name} of its card is not finite'
        if of is int and abs(value) >= 2**63:
            return f'{name} of its card is too large'
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f'{name} holds numbers that are not finite'
    small, large = math.log(SMALLEST), math.log(LARGEST)
    ranges = {
        'means': (-LARGEST, LARGEST),
        'log_scales': (small * 1.001, large * 1.001),  # the margin is that of half precision
        'opacities': (0.0, 1.0),
    }
    for name, (low, high) in ranges.items():
        if len(tensors[name]) and not (tensors[name].min() >= low and tensors[name].max() <= high):
            return f'{name} are out of their range, {low:.4g} to {high:.4g}'
    if len(tensors['quats']) and (tensors['quats'].float().norm(dim=1) - 1).abs().max() > 0.01:
        return 'quats are not of unit length'
    return kind.defect(card, tensors)


def plain(text: str) -> bool:
    """Whether `text` is one short line of printable characters: it goes into messages and to the log."""
    return len(text) <= LONGEST_TEXT and text.isprintable()
