"""Maps on disk: one safetensors file that answers words again without the images, and a PLY beside it for viewers.

The header's JSON card says what the file is and which decoders read its codes. A file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.ply import write_ply
from gsemsplat_ros.mapping.map import Map

CARD_KEY = 'gsemsplat_map'
VERSION = 1
# half precision keeps 3 digits: enough for all but positions, voxels and sums; the scales as logarithms
DTYPES = {'means': torch.float32, 'quats': torch.float16, 'log_scales': torch.float16, 'opacities': torch.float16,
          'colors': torch.float16, 'codes': torch.float16, 'keys': torch.int64, 'weights': torch.float32,
          'counts': torch.int32, 'last_seen': torch.int32}


@dataclass(frozen=True)
class CodeSpace:
    """What reads the codes of a map: the checkpoint's file name, its text encoder, and a digest of its decoders."""

    weights: str
    text_encoder: str
    decoders: str

    @classmethod
    def of(cls, weights: str, text_encoder: str, decoders: Mapping[str, Tensor]) -> CodeSpace:
        """`decoders`: the tensors of both semantic decoders, by name."""
        return cls(weights, text_encoder, fingerprint({}, {name: tensor.float() for name, tensor in decoders.items()}))


def fingerprint(card: dict, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a card (but its own 'sha256') and of tensors with their names and shapes, in hexadecimal."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in card.items() if k != 'sha256'}, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].detach().cpu().numpy())
        digest.update(f'{name} {array.dtype.str} {array.shape}'.encode())
        digest.update(array.data)
    return digest.hexdigest()


def save_map(path: str | Path, map_: Map, space: CodeSpace) -> None:
    """Write `map_` to `path`, and its Gaussians without codes to the same name with .ply.

    Raises ValueError when the folder cannot be written to or the disk is full; what was there before then stays.
    """
    path = Path(path)
    if path.suffix == '.ply':
        raise ValueError(f'{path}: the .ply is written beside the map; name the map, such as {path.stem}.safetensors')
    gaussians = map_.gaussians
    tensors = {'means': gaussians.means, 'quats': gaussians.quats,
               'log_scales': gaussians.scales.clamp(min=torch.finfo(torch.float32).tiny).log(),
               'opacities': gaussians.opacities, 'colors': gaussians.colors, 'codes': gaussians.codes,
               **{name: getattr(map_, name) for name in ('keys', 'weights', 'counts', 'last_seen')}}
    card = {'version': VERSION, 'frame': map_.frame, 'voxel_m': map_.voxel, 'scenes': map_.scenes,
            'scale_source': map_.scale_source, **asdict(space)}
    tensors = {name: tensor.to(DTYPES[name]).contiguous() for name, tensor in tensors.items()}
    data = save(tensors, {CARD_KEY: json.dumps({**card, 'sha256': fingerprint(card, tensors)})})
    try:
        write_whole(path, data,
                    lambda: write_ply(path.with_suffix('.ply'), replace(gaussians, codes=gaussians.codes[:, :0])))
    except OSError as error:
        raise ValueError(f'cannot write the map {path} ({error.strerror or error}): is there space, and may this user '
                         'write there?') from None


def load_map(path: str | Path, space: CodeSpace) -> Map:
    """Read the map at `path`, for the decoders of `space`.

    Raises ValueError, in one line, for a file that is missing, damaged or none of ours, and for a map whose codes other
    decoders or another text encoder read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no map at {path}: give a file that save_map wrote')
    try:
        with safe_open(path, 'pt') as file:
            card = json.loads((file.metadata() or {})[CARD_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no map, or only a part of one ({type(error).__name__}): give a file that save_map '
                         'wrote') from None
    if not isinstance(card, dict) or card.get('version') != VERSION:
        version = card.get('version') if isinstance(card, dict) else None
        raise ValueError(f'{path} is a map of version {version}, wanted {VERSION}: use the release that wrote it')
    problem = defect(card, tensors)
    if problem:
        raise ValueError(f'{path} is damaged: {problem}; save the map again')
    theirs = [card.get(name) for name in ('text_encoder', 'decoders')]
    if theirs != [space.text_encoder, space.decoders]:
        raise ValueError(f"{path} was made with {card.get('weights')} ({card.get('text_encoder')}), whose decoders are "
                         f'not those of {space.weights} ({space.text_encoder}): set weights to that checkpoint')
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    quats = torch.nn.functional.normalize(tensors['quats'], dim=1)
    gaussians = Gaussians(tensors['means'], quats, tensors['log_scales'].exp(), tensors['opacities'], tensors['colors'],
                          tensors['codes'], card['frame'])
    return Map(gaussians, tensors['keys'], tensors['weights'], tensors['counts'], tensors['last_seen'], card['scenes'],
               card['voxel_m'], card['scale_source'])


def defect(card: dict, tensors: dict[str, Tensor]) -> str:
    """What is wrong with a map's parts, in words; '' when nothing is."""
    kinds = {'frame': str, 'voxel_m': float, 'scenes': int, 'scale_source': str}
    wrong = [name for name, kind in kinds.items() if not isinstance(card.get(name), kind)]
    if wrong or not 0 < card['voxel_m'] < float('inf'):
        return f'its card lacks {wrong[0] if wrong else "a positive voxel_m"}'
    if tensors.keys() != DTYPES.keys():
        return f'its tensors are {sorted(tensors)}, wanted {sorted(DTYPES)}'
    count = len(tensors['keys']) if tensors['keys'].ndim else 0
    shapes = {'means': (count, 3), 'quats': (count, 4), 'log_scales': (count, 3), 'colors': (count, 3),
              'codes': (count, 32)}
    for name, tensor in tensors.items():
        if tensor.dtype != DTYPES[name] or tuple(tensor.shape) != shapes.get(name, (count,)):
            return f'{name} is {tensor.dtype} {tuple(tensor.shape)}, wanted {DTYPES[name]} {shapes.get(name, (count,))}'
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f'{name} holds numbers that are not finite'
    if not bool((tensors['keys'].diff() > 0).all()):
        return 'its voxels are not in order'
    if not bool(((tensors['opacities'] >= 0) & (tensors['opacities'] <= 1)).all() and (tensors['weights'] > 0).all()):
        return 'opacities or weights are out of their range'
    return '' if card.get('sha256') == fingerprint(card, tensors) else 'its contents are not those that were saved'


def write_whole(path: Path, data: bytes, beside: Callable[[], None] = lambda: None) -> None:
    """A reader sees the old file or the whole new one, also after a power cut. `beside()` writes a file beside it, once
    there was room for this one: a full disk leaves both as they were."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.part')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        beside()
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)                      # the name itself
        finally:
            os.close(folder)
    finally:
        Path(temporary).unlink(missing_ok=True)
