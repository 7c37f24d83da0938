"""The state dict of a network in a file of others, whatever it lies in and whatever its names begin with.

Trainers save `{'model': ...}`, `{'net': ...}`, `{'state_dict': {'model': ...}}` or the bare dictionary, and
wrappers add to the names: `module.` (data parallel), `_orig_mod.` (torch.compile), `encoder.` (the attribute
of another module). So dictionaries are joined with dots, and a name begins at the first component that a
network's names begin with; all before it is its prefix. The prefix with most tensors is the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gsemsplat_ros.checkpoints.inert_pickle import Placeholder, printable
from gsemsplat_ros.checkpoints.tensor_file import check_finite
from gsemsplat_ros.checkpoints.weight_files import LazyWeight, read_weight_file

WRAPPERS = '_orig_mod', 'module', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'
AVERAGES = {'ema', 'swa', 'averaged'}  # words in the prefix of a moving average of the weights
DEEPEST = 6  # dictionaries in one another


@dataclass(frozen=True)
class Entry:
    """One entry of a file. at: names of the dictionaries that it lies in; name: there; value: a tensor, or
    something else."""

    at: tuple[str, ...]
    name: str
    value: Any

    @property
    def path(self) -> tuple[str, ...]:
        """The components of the whole name."""
        return *self.at, *self.name.split('.')

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.value, LazyWeight)


@dataclass(frozen=True)
class Found:
    """A network in a file.

    prefix: what its names begin with, dictionaries included, such as 'state_dict.module.'; wrappers: further
    names of wrappers inside; tensors: its entries by their names without either; beside: the other entries of
    the file; passed_over: prefixes of further networks of the kind, which were not taken.
    """

    prefix: str
    wrappers: tuple[str, ...]
    tensors: dict[str, Entry]
    beside: list[Entry]
    passed_over: tuple[str, ...]

    @property
    def at(self) -> tuple[str, ...]:
        """Names of the dictionaries that the network lies in."""
        return next(iter(self.tensors.values())).at


def entries(tree: Any) -> Iterator[Entry]:
    """The entries of all dictionaries in `tree`, each dictionary once."""
    seen: set[int] = set()

    def walk(value: Any, at: tuple[str, ...]) -> Iterator[Entry]:
        if id(value) in seen:
            return
        seen.add(id(value))
        for key, item in value.items():
            name = key if isinstance(key, str) else repr(key)
            if isinstance(item, dict) and len(at) < DEEPEST:
                yield from walk(item, (*at, name))
            else:
                yield Entry(at, name, item)

    if isinstance(tree, dict):
        yield from walk(tree, ())


def split(path: tuple[str, ...], roots: set[str]) -> tuple[str, str] | None:
    """Prefix and name of an entry: the name begins at the first of `roots`, without wrappers. None: none."""
    start = next((i for i, part in enumerate(path) if part in roots), None)
    if start is None:
        return None
    prefix = ''.join(f'{part}.' for part in path[:start])
    return prefix, '.'.join(part for part in path[start:] if part not in WRAPPERS)


def find(tree: Any, roots: set[str]) -> Found | None:
    """The network whose names begin with one of `roots`; None if there is none.

    Of several, that with most tensors; a moving average only where the weights themselves are not there.
    Raises ValueError where a name is there twice.
    """
    every = list(entries(tree))
    groups: dict[str, dict[str, Entry]] = {}
    for entry in every:
        parts = split(entry.path, roots) if entry.is_tensor else None
        if parts is None:
            continue
        prefix, name = parts
        group = groups.setdefault(prefix, {})
        if name in group:
            raise ValueError(
                f'{printable(name)} is there twice, with a wrapper ({", ".join(WRAPPERS)}) and without'
            )
        group[name] = entry
    if not groups:
        return None
    most = max(map(len, groups.values()))
    whole = [prefix for prefix, group in groups.items() if 2 * len(group) > most]
    chosen = min(whole, key=lambda prefix: (is_average(prefix), -len(groups[prefix])))
    taken = groups[chosen]
    mine = set(map(id, taken.values()))
    wrappers = {
        part for entry in taken.values() for part in entry.path[chosen.count('.') :] if part in WRAPPERS
    }
    return Found(
        chosen,
        tuple(sorted(wrappers)),
        taken,
        [entry for entry in every if id(entry) not in mine],
        tuple(sorted(set(whole) - {chosen})),
    )


def is_average(prefix: str) -> bool:
    """Whether a prefix names a moving average: 'model_ema.'."""
    return not AVERAGES.isdisjoint(prefix.lower().replace('_', '.').split('.'))


def read_state_dict(path: str | Path, module: nn.Module, more: bool = False) -> dict[str, Tensor]:
    """The tensors of a file for `module`, by its names, found as `find` does. more: whether the file may hold
    tensors that the module does not know; these are left out.

    What the module has under several names may be in the file under one of them, as safetensors writes it.
    Raises ValueError, in one line, for a file that holds no network of the kind, and for names or shapes that
    do not fit.
    """
    own = module.state_dict(keep_vars=True)
    tree = read_weight_file(path).tree
    try:
        found = find(tree, {name.split('.')[0] for name in own})
        if found is None:
            raise ValueError(f'no state dict{objects_in(tree)}')
        stored = {id(own[name]): entry for name, entry in found.tensors.items() if name in own}
        lacking = [name for name, tensor in own.items() if id(tensor) not in stored]
        odd = [] if more else [name for name in found.tensors if name not in own]
        if lacking or odd:
            words = f'{lacking[0]} is missing' if lacking else f'{printable(odd[0])} is no part of it'
            count = len(lacking) + len(odd) - 1
            raise ValueError(words + (f' (and {count} more)' if count else ''))
        taken = {name: stored[id(tensor)] for name, tensor in own.items()}
        for name, entry in taken.items():
            if entry.value.shape != own[name].shape:
                raise ValueError(f'{name} has shape {entry.value.shape}, wanted {tuple(own[name].shape)}')
        tensors = {name: entry.value.read() for name, entry in taken.items()}
        for name, tensor in tensors.items():
            check_finite(name, tensor)
    except ValueError as error:
        raise ValueError(f'{path} does not hold this network: {error}') from None
    return tensors


def objects_in(tree: Any) -> str:
    """Words for a file whose network was saved as a Python object; '' for another."""
    values = tree.values() if isinstance(tree, Mapping) else [tree]
    names = [value.name for value in values if isinstance(value, Placeholder)]
    return f', but the Python object {names[0]}: save its state_dict() instead' if names else ''
