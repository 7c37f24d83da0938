"""The common part of maps (map_file.py) and scenes (scene_file.py) on disk: Gaussians with codes, a JSON
card that names their decoders, and a digest of the whole, in one safetensors file that appears whole or not
at all.

The digest tells damage, not who wrote the file: whoever knows the format can make one. So each number and
text of a file is compared with what it may be, on reading and on writing, before anything is made of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gsemsplat_ros.checkpoints.tensor_file import (
    PartedTensor,
    StoredTensor,
    parts_of,
    read_all,
    read_tensor_file,
    write_tensor_file,
)
from gsemsplat_ros.files import write_whole
from gsemsplat_ros.scene.gaussian_columns import ANY, out_of_range

LONGEST_TEXT = 256  # characters of a frame or another text of a card
SPACE = 'weights', 'text_encoder', 'decoders'  # entries of every card: of which decoders the codes are
AnyTensor = Tensor | StoredTensor | PartedTensor
Part = TypeVar('Part')
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
    def of(cls, weights: str, text_encoder: str, decoders: Mapping[str, Tensor], code_dim: int) -> CodeSpace:
        """`decoders`: the tensors of both semantic decoders, by name; `code_dim`: what they read."""
        floats = {name: tensor.float() for name, tensor in decoders.items()}
        return cls(weights, text_encoder, fingerprint({}, floats), code_dim)


@dataclass(frozen=True)
class Kind:
    """A kind of file. name: 'map' or 'scene'; key: of its card; maker: command or service that writes it;
    dtypes, shapes: of its tensors, of each Gaussian (None: any number of values); entries: of its card, with
    the type of each; defect, row_defect: what else is wrong with a card and its tensors, with a card and
    those of some Gaussians, in words, '' for nothing; since: tensors that came after the first version, with
    the version that brought each; older files lack them.
    """

    name: str
    key: str
    version: int
    maker: str
    dtypes: Mapping[str, torch.dtype]
    shapes: Mapping[str, tuple[int, ...] | None]
    entries: Mapping[str, type]
    defect: Callable[[dict, Mapping[str, Tensor]], str]
    row_defect: Callable[[dict, Mapping[str, Tensor]], str] = lambda card, rows: ''
    since: Mapping[str, int] = field(default_factory=dict)

    def of_version(self, version: int) -> Kind:
        """The kind as that earlier version wrote it."""
        dtypes = {name: of for name, of in self.dtypes.items() if self.since.get(name, 1) <= version}
        return replace(self, version=version, dtypes=dtypes)


def fingerprint(card: dict, tensors: Mapping[str, AnyTensor]) -> str:
    """SHA-256 of a card (but its own 'sha256') and of tensors with their names and shapes, in hexadecimal."""
    text = json.dumps({k: v for k, v in card.items() if k != 'sha256'}, sort_keys=True)
    sha = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype.str
        sha.update(f'{name} {kind} {tuple(tensor.shape)}'.encode())
        for part in parts_of(tensor):
            sha.update(part.data)
    return sha.hexdigest()


def write(
    path: Path,
    kind: Kind,
    card: dict,
    tensors: Mapping[str, Tensor],
    parts: Sequence[Part],
    columns: Mapping[str, Callable[[Part], Tensor]],
    space: CodeSpace,
    beside: Callable[[], None] = lambda: None,
) -> None:
    """Write card, tensors and Gaussians to `path`, then call `beside`, which may write more.

    The Gaussians come in `parts`, at least one, of each of which `columns` make the tensors of the file by
    name; those of one part at a time are in memory.

    Raises ValueError for what `read` would refuse, for a folder in the place of the file, and when the disk
    is full or the folder not writable; earlier files then stay.
    """
    card = {'version': kind.version, **card, **{name: getattr(space, name) for name in SPACE}}
    rows = {name: parted(partial(map, make, parts), kind.dtypes[name]) for name, make in columns.items()}
    problem = misshapen({**tensors, **rows}, kind) or wrong(card, tensors, kind)
    for part in parts:
        problem = problem or wrong_rows(card, {name: make(part) for name, make in columns.items()}, kind)
    if problem:
        raise ValueError(f'cannot write the {kind.name} {path}: {problem}')
    if path.is_dir():
        raise ValueError(f'cannot write the {kind.name} {path}: it is a folder; give another name')
    everything: dict[str, Tensor | PartedTensor] = {**tensors, **rows}
    text = json.dumps({**card, 'sha256': fingerprint(card, everything)})
    try:
        with write_whole(path) as new:
            write_tensor_file(new, everything, {kind.key: text})
            beside()  # once this one is written: a full disk leaves both files as they were
    except OSError as error:
        raise ValueError(
            f'cannot write the {kind.name} {path} ({error.strerror or error}): is there space, and may this '
            'user write there?'
        ) from None


def parted(parts: Callable[[], Iterable[Tensor]], dtype: torch.dtype) -> PartedTensor:
    """Parts of one width, at least one, as one tensor."""
    shapes = [part.shape for part in parts()]
    return PartedTensor(dtype, (sum(shape[0] for shape in shapes), *shapes[0][1:]), parts)


@dataclass(frozen=True, eq=False)
class CodedFile:
    """A file whose digest is right. card and tensors: checked; stored: those of its Gaussians, by name, which
    are read and checked by `rows`."""

    path: Path
    kind: Kind
    card: dict
    tensors: dict[str, Tensor]
    stored: dict[str, StoredTensor]

    @property
    def count(self) -> int:
        """Number of Gaussians."""
        return self.stored['means'].shape[0]

    def rows(self, first: int, stop: int) -> dict[str, Tensor]:
        """The tensors of these Gaussians. Raises ValueError for a damaged file."""
        try:
            rows = {name: tensor.rows(first, stop) for name, tensor in self.stored.items()}
        except ValueError as error:
            raise damaged(self.path, self.kind, str(error)) from None
        problem = wrong_rows(self.card, rows, self.kind)
        if problem:
            raise damaged(self.path, self.kind, problem)
        return rows

    @property
    def space(self) -> CodeSpace:
        """That of its codes."""
        weights, text_encoder, decoders = (self.card[name] for name in SPACE)
        return CodeSpace(weights, text_encoder, decoders, self.stored['codes'].shape[1])


def damaged(path: Path, kind: Kind, problem: str) -> ValueError:
    """The error for a file with this problem."""
    return ValueError(f'{path} is damaged: {problem}; write it again with {kind.maker}')


def read(path: Path, kind: Kind) -> CodedFile:
    """The file at `path`, checked but for its Gaussians.

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
    of_gaussians = {name for name, shape in kind.shapes.items() if shape is not None}
    stored = {name: tensor for name, tensor in file.tensors.items() if name in of_gaussians}
    problem, tensors = misshapen(file.tensors, kind), {}
    try:
        if not problem:
            tensors = read_all({name: file.tensors[name] for name in file.tensors.keys() - of_gaussians})
            problem = wrong(card, tensors, kind)
        if not problem and card.get('sha256') != fingerprint(card, file.tensors):
            problem = 'its contents are not those that were saved'
    except ValueError as error:
        problem = str(error)
    if problem:
        raise damaged(path, kind, problem)
    return CodedFile(path, kind, card, tensors, stored)


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


def misshapen(tensors: Mapping[str, AnyTensor], kind: Kind) -> str:
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
    """What is wrong with a card and the tensors that are not of Gaussians, whose shapes are right, in words;
    '' for nothing."""
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
    return not_finite(tensors) or kind.defect(card, tensors)


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which of the tensors holds numbers that are not finite, in words; '' for none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f'{name} holds numbers that are not finite'
    return ''


def wrong_rows(card: dict, rows: Mapping[str, Tensor], kind: Kind) -> str:
    """What is wrong with the tensors of some Gaussians, in words; '' for nothing."""
    return not_finite(rows) or out_of_range(rows) or kind.row_defect(card, rows)


def plain(text: str) -> bool:
    """Whether `text` is one short line of printable characters: it goes into messages and to the log."""
    return len(text) <= LONGEST_TEXT and text.isprintable()
