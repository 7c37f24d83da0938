"""Files of weights that others wrote: safetensors, torch files, and networks in several parts, by content.

No code in them is run (inert_pickle.py), and no tensor is read before someone asks for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gsemsplat_ros.checkpoints.inert_pickle import printable
from gsemsplat_ros.checkpoints.tensor_file import StoredTensor, is_tensor_file, read_tensor_file
from gsemsplat_ros.checkpoints.torch_tensors import LazyTensor
from gsemsplat_ros.checkpoints.torchfile import read_torch_file

LazyWeight: TypeAlias = StoredTensor | LazyTensor  # has dtype, shape and read()
INDEX = '.index.json'  # ends the name of a list of parts
PART = re.compile(r'(.+)-(\d+)-of-(\d+)\.(safetensors|bin|pth?)')  # as huggingface_hub names them
SUFFIXES = '.safetensors', '.pth', '.pt', '.ckpt', '.bin'
MAX_INDEX = 1 << 24  # bytes
HEADS = {  # of what is often downloaded in the place of a file
    rb'version https://git-lfs': 'a Git LFS pointer, not the file itself: fetch it with `git lfs pull`',
    rb'(?i)\s*<(!doctype|html|head|\?xml)': 'a web page, not the file itself: open its address in a browser, '
    'and download the file',
}


@dataclass(frozen=True)
class WeightFile:
    """The contents of a file. tree: as of TorchFile; of safetensors a dictionary of tensors by name; files:
    that were read, in their order; placeholders: as of TorchFile."""

    tree: Any
    files: tuple[Path, ...]
    placeholders: tuple[str, ...] = ()


def read_weight_file(path: str | Path) -> WeightFile:
    """Read a torch file, a safetensors file, the index of one in parts, or a folder with one of these.

    Raises ValueError, in one line, for anything else.
    """
    path = Path(path)
    if path.is_dir():
        path = _only_one(path)
    if not path.is_file():
        raise ValueError(f'no file at {path}')
    try:
        with open(path, 'rb') as file:
            head = file.read(64)
        for start, meaning in HEADS.items():
            if re.match(start, head):
                raise ValueError(f'{path} is {meaning}')
        if path.name.endswith(INDEX):
            return _read_parts(path)
        part = PART.fullmatch(path.name)
        if part and int(part[3]) > 1:
            index = f'{part[1]}.{part[4]}{INDEX}'
            raise ValueError(
                f'{path} is part {int(part[2])} of {int(part[3])} of a network: give {index}, or the folder '
                'with it and all parts'
            )
        return _read_one(path)
    except OSError as error:
        raise ValueError(f'{path} cannot be read: {error.strerror or error}') from None


def _only_one(folder: Path) -> Path:
    """The file of weights in a folder: its index, or the only one. Raises ValueError."""
    names = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in names if path.name.endswith(INDEX)]
    found = found or [path for path in names if path.suffix.lower() in SUFFIXES]
    if len(found) != 1:
        raise ValueError(
            f'{folder} is a folder with {len(found)} files of weights: wanted one, or an index of its parts '
            f'(NAME{INDEX}); give the file'
        )
    return found[0]


def _read_one(path: Path) -> WeightFile:
    if is_tensor_file(path) or path.suffix.lower() == '.safetensors':
        try:
            return WeightFile(read_tensor_file(path).tensors, (path,))
        except ValueError as error:
            raise ValueError(f'{path} is no whole safetensors file ({printable(str(error))})') from None
    file = read_torch_file(path)
    return WeightFile(file.tree, (path,), file.placeholders)


def _read_parts(index: Path) -> WeightFile:
    """The parts that an index names, together."""
    try:
        text = index.read_bytes()
        if len(text) > MAX_INDEX:
            raise ValueError
        names: dict[str, str] = json.loads(text)['weight_map']
        if not names or not all(isinstance(name, str) for name in names.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(
            f'{index} is no index of the parts of a network: wanted JSON with a weight_map'
        ) from None
    tree: dict[str, Any] = {}
    files, placeholders = [], set[str]()
    for part in sorted(set(names.values())):
        path = index.parent / part
        if Path(part).name != part or not path.is_file():
            raise ValueError(
                f'{index} names the part {printable(part)}, which is not beside it: download it too'
            )
        one = _read_one(path)
        if not isinstance(one.tree, Mapping):
            raise ValueError(f'{path} holds no dictionary of tensors')
        tree |= {name: one.tree[name] for name, of in names.items() if of == part and name in one.tree}
        files.append(path)
        placeholders.update(one.placeholders)
    lacking = sorted(names.keys() - tree.keys())
    if lacking:
        raise ValueError(
            f'{index} promises {printable(lacking[0])}, which {printable(names[lacking[0]])} lacks: download '
            'that part again'
        )
    return WeightFile(tree, tuple(files), tuple(sorted(placeholders)))
