"""The state of a run: tensors and values in a folder of small files.

`index.json` names the files and is written last, so a crash between files leaves the previous state intact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gsemsplat_ros.checkpoints.tensor_file import read_tensor_file, write_tensor_file
from gsemsplat_ros.files import write_whole

LARGEST = 12 * 2**20  # bytes per file
ROOM = 2**20  # bytes of it reserved for the header
INDEX = 'index.json'


def shards(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors in order, flat, large ones split into pieces `name/number`, grouped by file."""
    shard: dict[str, Tensor] = {}
    size, largest = 0, LARGEST - ROOM
    for name, tensor in tensors.items():
        for number, piece in enumerate(
            tensor.detach().cpu().flatten().split(largest // tensor.element_size())
        ):
            if size + piece.nbytes > largest:
                yield shard
                shard, size = {}, 0
            shard[f'{name}/{number}'] = piece.clone()  # a view would save its whole tensor
            size += piece.nbytes
    yield shard


def save_state(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write the state of `step` and delete the files of older states. `facts`: JSON values."""
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX
    if index.exists() and json.loads(index.read_text())['step'] == step:
        return  # do not overwrite the files of the saved state
    files = []
    for number, shard in enumerate(shards(tensors)):
        files.append(f'{step:08d}-{number:03d}.safetensors')
        with write_whole(folder / files[-1]) as part:
            write_tensor_file(part, shard)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    with write_whole(index) as part:
        part.write_text(json.dumps({'step': step, 'facts': facts, 'files': files, 'shapes': shapes}))
    for path in folder.glob('*.safetensors'):
        if path.name not in files:
            path.unlink()


def load_state(folder: Path) -> tuple[int, dict[str, Tensor], dict] | None:
    """Step, tensors and facts; None if there is no state. Raises ValueError if it is incomplete."""
    path = folder / INDEX
    if not path.exists():
        return None
    try:
        index = json.loads(path.read_text())
        pieces = {}
        for name in index['files']:
            path = folder / name
            pieces.update(read_tensor_file(path).read())
        tensors: dict[str, list[Tensor]] = {}
        for name, piece in pieces.items():
            tensors.setdefault(name.rpartition('/')[0], []).append(piece)
        whole = {name: torch.cat(tensors[name]).reshape(shape) for name, shape in index['shapes'].items()}
        return index['step'], whole, index['facts']
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).partition('\n')[0] or type(error).__name__
        raise ValueError(
            f'{path} cannot be read ({reason}), and the state in {folder} needs it: bring '
            'the whole folder again, or delete it to start over'
        ) from None
