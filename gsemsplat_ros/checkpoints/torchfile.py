"""Tensors and plain containers of a file written by `torch.save`, without running code in it.

Both formats are read: the zip archive (since torch 1.6: `data.pkl` and one stored record per
storage) and the older stream (pickles followed by raw storages). The pickle goes through
`inert_pickle`; tensors stay in the file until `LazyTensor.read`, so of a checkpoint with
optimiser states only the tensors in use are read, and types that nobody reads do no harm. Nothing
is mapped (tensor_file.py says why).
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from gsemsplat_ros.checkpoints.inert_pickle import MAX_BYTES, Machine, printable
from gsemsplat_ros.checkpoints.torch_tensors import KNOWN, Storage, check_crc, storage_reader
from gsemsplat_ros.files import FileBytes

_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_START = b'\x80\x02\x8a\n' + _STREAM_MAGIC.to_bytes(10, 'little') + b'.'  # that number, pickled
_STREAM_VERSION = 1001


@dataclass(frozen=True)
class TorchFile:
    """The contents of a file.

    tree: dicts, lists, tuples, sets, numbers, text, bytes, torch.dtype, `LazyTensor` and, for all the rest,
    `Placeholder`; it may contain itself. placeholders: their names, sorted.
    """

    tree: Any
    placeholders: tuple[str, ...]


def read_torch_file(path: str | Path) -> TorchFile:
    """Read what `torch.save` wrote; no code of the file runs and no tensor is copied yet.

    Raises ValueError, in one line, for anything else: a foreign, truncated, damaged or hostile file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no file at {path}')
    if path.stat().st_size == 0:
        raise ValueError(f'{path} is empty')
    try:
        file = FileBytes(path)
        head = file.read(0, min(file.size, 512))
        if head[:4] == b'PK\x03\x04':
            return _read_zip(path, file)
        if head[: len(_STREAM_START)] == _STREAM_START:
            return _read_stream(file)
        if head[257:262] == b'ustar':
            raise ValueError('the tar format of torch before 0.1.10 is not read; save it with a newer torch')
        raise ValueError('not a torch file (neither the zip archive nor the older stream of torch.save)')
    except OSError as error:
        raise ValueError(f'{path} cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise ValueError(f'{path}: {printable(str(error))}') from None


def _read_zip(path: Path, file: FileBytes) -> TorchFile:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise ValueError(f'a truncated or damaged archive ({error})') from None
    records = {entry.filename: entry for entry in entries}
    pickles = [name for name in records if name.endswith('/data.pkl') and name.count('/') == 1]
    if len(records) != len(entries) or len(pickles) != 1:
        raise ValueError('not a torch file (a zip archive without one data.pkl, or with a name twice)')
    root = pickles[0].removesuffix('data.pkl')
    if root + 'constants.pkl' in records:
        raise ValueError('a TorchScript archive, which holds a program; wanted a file with a state dict')

    def locate(name: str) -> tuple[int, int, int]:
        """First byte, size and checksum of a record."""
        entry = records.get(root + name)
        if entry is None:
            raise ValueError(f'the archive lacks the record {name!r}')
        if entry.header_offset < 0 or entry.header_offset + 30 > file.size:
            raise ValueError(f'record {name!r} is damaged')
        head = file.read(entry.header_offset, 30)
        if head[:4] != b'PK\x03\x04':
            raise ValueError(f'record {name!r} is damaged')
        if entry.flag_bits & 1 or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f'record {name!r} is compressed or encrypted, which torch.save never does')
        start = entry.header_offset + 30 + sum(struct.unpack('<2H', head[26:30]))
        if entry.compress_size != entry.file_size or start + entry.file_size > file.size:
            raise ValueError(f'record {name!r} is damaged or truncated')
        return start, entry.file_size, entry.CRC

    def small(name: str) -> bytes:
        start, size, crc = locate(name)
        if size > MAX_BYTES:
            raise ValueError(f'record {name!r} has {size} bytes, more than {MAX_BYTES}')
        check_crc(file, start, size, crc, f'record {name!r}')
        return file.read(start, size)

    def storage(key: str, dtype: torch.dtype, numel: int) -> Storage:
        start, size, crc = locate(f'data/{key}')
        if size != numel * dtype.itemsize:
            raise ValueError(f'storage {key!r} has {size} bytes; {numel} elements of {dtype} were announced')
        return Storage(file, dtype, numel, start, crc)

    if root + 'byteorder' in records and small('byteorder') != b'little':
        raise ValueError('written on a big-endian machine, which is not read')
    machine = Machine(BytesIO(small('data.pkl')), KNOWN, storage_reader(storage))
    return TorchFile(machine.run(), tuple(sorted(machine.names)))


def _read_stream(file: FileBytes) -> TorchFile:
    """Five pickles (magic, version, machine, object, storage keys), then each storage: numel, bytes."""
    stream = BytesIO(file.read(0, min(file.size, MAX_BYTES)))
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> Storage:
        found = storages.setdefault(key, Storage(file, dtype, numel))
        if (found.dtype, found.numel) != (dtype, numel):
            raise ValueError(f'storage {key!r} is announced twice, differently')
        return found

    def following() -> Machine:
        return Machine(stream, KNOWN, storage_reader(storage))

    _magic, version, system = (following().run() for _ in range(3))
    if type(version) is not int or version != _STREAM_VERSION:
        raise ValueError(f'a torch stream of an unknown version; wanted {_STREAM_VERSION}')
    if type(system) is not dict or system.get('little_endian') is not True:
        raise ValueError('written on a big-endian machine, which is not read')
    machine = following()
    tree = machine.run()
    keys = following().run()
    if (
        type(keys) is not list
        or not all(type(key) is str for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise ValueError('the list of storages does not match the tensors')
    position = stream.tell()
    for key in keys:
        found = storages[key]
        end = position + 8 + found.nbytes
        if end > file.size or int.from_bytes(file.read(position, 8), 'little') != found.numel:
            raise ValueError(f'storage {key!r} is truncated or not as long as announced')
        found.start, position = position + 8, end
    return TorchFile(tree, tuple(sorted(machine.names)))
