"""The common part of maps (map_file.py) and scenes (scene_file.py) on disk: Gaussians
with codes, a JSON card that names their decoders, and a digest of the whole, in one
safetensors file that appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

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
SHAPES = {'means': (3,), 'quats': (4,), 'log_scales': (3,), 'opacities': (), 'colors': (3,), 'codes': (ANY,)}


@dataclass(frozen=True)
class CodeSpace:
    """The space of a file's codes: the checkpoint's file name, its text encoder, a digest of its decoders."""

    weights: str
    text_encoder: str
    decoders: str

    @classmethod
    def of_card(cls, card: Mapping[str, object]) -> CodeSpace:
        """That of a file; entries missing from its card are empty."""
        return cls(*(str(card.get(name, '')) for name in ('weights', 'text_encoder', 'decoders')))

    @classmethod
    def of(cls, weights: str, text_encoder: str, decoders: Mapping[str, Tensor]) -> CodeSpace:
        """`decoders`: the tensors of both semantic decoders, by name."""
        return cls(
            weights,
            text_encoder,
            fingerprint({}, {name: tensor.float() for name, tensor in decoders.items()}),
        )


@dataclass(frozen=True)
class Kind:
    """A kind of file. name: 'map' or 'scene'; key: of its card; maker: command or service that writes it."""

    name: str
    key: str
    version: int
    maker: str


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
        'log_scales': gaussians.scales.clamp(min=torch.finfo(torch.float32).tiny).log(),
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
    """Write card and tensors to `path`, then call `beside`, which may write more. Raises ValueError when the
    disk is full or the folder not writable; earlier files then stay.
    """
    card = {'version': kind.version, **card, **asdict(space)}
    data = save(dict(tensors), {kind.key: json.dumps({**card, 'sha256': fingerprint(card, tensors)})})
    try:
        with write_whole(path) as part:
            part.write_bytes(data)
            beside()  # once this one is written: a full disk leaves both files as they were
    except OSError as error:
        raise ValueError(
            f'cannot write the {kind.name} {path} ({error.strerror or error}): is there space, and may this '
            'user write there?'
        ) from None


def read(
    path: Path, kind: Kind, defect: Callable[[dict, dict[str, Tensor]], str]
) -> tuple[dict, dict[str, Tensor]]:
    """Card and tensors of the file at `path`. `defect` returns what is wrong with them, '' for nothing.

    Raises ValueError, in one line, for a file that is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise ValueError(f'no {kind.name} at {path}: give a file that {kind.maker} wrote')
    try:
        with safe_open(path, 'pt') as file:
            card = json.loads((file.metadata() or {})[kind.key])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, KeyError, OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f'{path} is no {kind.name}, or only a part of one ({type(error).__name__}): give a file that '
            f'{kind.maker} wrote'
        ) from None
    if not isinstance(card, dict) or card.get('version') != kind.version:
        version = card.get('version') if isinstance(card, dict) else None
        raise ValueError(
            f'{path} is a {kind.name} of version {version}, wanted {kind.version}: use the release that '
            'wrote it'
        )
    problem = defect(card, tensors)
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


def missing(card: dict, kinds: Mapping[str, type]) -> str:
    """The first entry of a card that is missing or of another type, in words; '' for none."""
    wrong = [name for name, kind in kinds.items() if not isinstance(card.get(name), kind)]
    return f'its card lacks {wrong[0]}' if wrong else ''


def misshapen(
    tensors: Mapping[str, Tensor],
    dtypes: Mapping[str, torch.dtype],
    shapes: Mapping[str, tuple[int, ...] | None],
) -> str:
    """The first tensor whose type or shape differs from `dtypes` and `shapes` (of each Gaussian; None: any
    number of bytes), or with values that are not finite, in words; '' for none.
    """
    if tensors.keys() != dtypes.keys():
        return f'its tensors are {sorted(tensors)}, wanted {sorted(dtypes)}'
    count = len(tensors['means']) if tensors['means'].ndim else 0
    for name, tensor in tensors.items():
        of_each = shapes[name]
        shape = (tensor.numel(),) if of_each is None else (count, *of_each)
        fits = len(tensor.shape) == len(shape) and all(
            side in (found, ANY) for found, side in zip(tensor.shape, shape)
        )
        if tensor.dtype != dtypes[name] or not fits:
            return f'{name} is {tensor.dtype} {tuple(tensor.shape)}, wanted {dtypes[name]} {shape}'
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f'{name} holds numbers that are not finite'
    return ''
