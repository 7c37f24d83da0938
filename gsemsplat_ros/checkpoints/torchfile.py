"""Tensors and plain containers of a file written by `torch.save`, without running code in it.

Both formats are read: the zip archive (since torch 1.6: `data.pkl` and one stored record per
storage) and the older stream (pickles followed by raw storages). The pickle goes through
`inert_pickle`; tensors stay in the mapped file until `LazyTensor.read`, so of a checkpoint with
optimiser states only the tensors in use are read.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsemsplat_ros.checkpoints.inert_pickle import MAX_BYTES, Known, Machine, Placeholder, printable

_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_START = b'\x80\x02\x8a\n' + _STREAM_MAGIC.to_bytes(10, 'little') + b'.'  # that number, pickled
_STREAM_VERSION = 1001
_STORAGE_DTYPES = {
    'FloatStorage': torch.float32,
    'DoubleStorage': torch.float64,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexFloatStorage': torch.complex64,
    'ComplexDoubleStorage': torch.complex128,
}
_LARGEST = 1 << 62  # of any size, stride or number of elements


@dataclass(frozen=True, eq=False)
class _StorageType(Placeholder):
    dtype: torch.dtype


@dataclass(eq=False)
class _Storage:
    """`numel` elements of `dtype` at byte `start` of the file; `crc`: the archive's checksum, if any."""

    data: mmap.mmap = field(repr=False)
    dtype: torch.dtype
    numel: int
    start: int | None = None  # in the older stream known only after the pickle
    crc: int | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def read(self) -> Tensor:
        assert self.start is not None
        if self.numel == 0:
            return torch.empty(0, dtype=self.dtype)
        _check_crc(self.data, self.start, self.nbytes, self.crc, 'a tensor')
        self.crc = None  # once is enough for tensors that share it
        raw = torch.frombuffer(self.data, dtype=torch.uint8, count=self.nbytes, offset=self.start)
        return (raw.clone() if self.start % self.dtype.itemsize else raw).view(self.dtype)


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor that is still in the file; its bounds are checked. shape, stride, offset: in elements."""

    storage: _Storage = field(repr=False)
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    def read(self) -> Tensor:
        """The tensor on the CPU; a view of the mapped file, where alignment allows.

        Raises ValueError when the bytes do not match the archive's checksum.
        """
        return self.storage.read().as_strided(self.shape, self.stride, self.offset)


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
        with open(path, 'rb') as file:  # a private mapping: torch wants writable memory; nothing writes to it
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise ValueError(f'{path} cannot be read: {error.strerror}') from None
    try:
        if data[:4] == b'PK\x03\x04':
            return _read_zip(data)
        if data[: len(_STREAM_START)] == _STREAM_START:
            return _read_stream(data)
        if data[257:262] == b'ustar':
            raise ValueError('the tar format of torch before 0.1.10 is not read; save it with a newer torch')
        raise ValueError('not a torch file (neither the zip archive nor the older stream of torch.save)')
    except ValueError as error:
        raise ValueError(f'{path}: {printable(str(error))}') from None


def _read_zip(data: mmap.mmap) -> TorchFile:
    try:
        with zipfile.ZipFile(data) as archive:  # type: ignore[call-overload]  # an mmap reads as a file does
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
        head = data[entry.header_offset : entry.header_offset + 30]
        if len(head) < 30 or head[:4] != b'PK\x03\x04':
            raise ValueError(f'record {name!r} is damaged')
        if entry.flag_bits & 1 or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f'record {name!r} is compressed or encrypted, which torch.save never does')
        start = entry.header_offset + 30 + sum(struct.unpack('<2H', head[26:30]))
        if entry.compress_size != entry.file_size or start + entry.file_size > len(data):
            raise ValueError(f'record {name!r} is damaged or truncated')
        return start, entry.file_size, entry.CRC

    def small(name: str) -> bytes:
        start, size, crc = locate(name)
        if size > MAX_BYTES:
            raise ValueError(f'record {name!r} has {size} bytes, more than {MAX_BYTES}')
        _check_crc(data, start, size, crc, f'record {name!r}')
        return data[start : start + size]

    def storage(key: str, dtype: torch.dtype, numel: int) -> _Storage:
        start, size, crc = locate(f'data/{key}')
        if size != numel * dtype.itemsize:
            raise ValueError(f'storage {key!r} has {size} bytes; {numel} elements of {dtype} were announced')
        return _Storage(data, dtype, numel, start, crc)

    if root + 'byteorder' in records and small('byteorder') != b'little':
        raise ValueError('written on a big-endian machine, which is not read')
    machine = Machine(BytesIO(small('data.pkl')), _KNOWN, _storage_reader(storage))
    return TorchFile(machine.run(), tuple(sorted(machine.names)))


def _read_stream(data: mmap.mmap) -> TorchFile:
    """Five pickles (magic, version, machine, object, storage keys), then each storage: numel, bytes."""
    stream = BytesIO(data[:MAX_BYTES])
    storages: dict[str, _Storage] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> _Storage:
        found = storages.setdefault(key, _Storage(data, dtype, numel))
        if (found.dtype, found.numel) != (dtype, numel):
            raise ValueError(f'storage {key!r} is announced twice, differently')
        return found

    def following() -> Machine:
        return Machine(stream, _KNOWN, _storage_reader(storage))

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
        if end > len(data) or int.from_bytes(data[position : position + 8], 'little') != found.numel:
            raise ValueError(f'storage {key!r} is truncated or not as long as announced')
        found.start, position = position + 8, end
    return TorchFile(tree, tuple(sorted(machine.names)))


def _check_crc(data: mmap.mmap, start: int, size: int, crc: int | None, what: str) -> None:
    # torch writes 0 if it computes no checksums
    if crc and zlib.crc32(memoryview(data)[start : start + size]) != crc:
        raise ValueError(f'{what} is damaged: its checksum differs')


def _storage_reader(storage: Callable[[str, torch.dtype, int], _Storage]) -> Callable[[Any], _Storage]:
    """The reader of torch's persistent ids: ('storage', type, key, device, numel[, None])."""

    def persistent(value: Any) -> _Storage:
        match value:
            case ('storage', _StorageType(dtype=dtype), str(key), _, int(numel), *view) if numel >= 0:
                if view in ([], [None]):
                    return storage(key, dtype, numel)
        raise ValueError('a reference to a storage has an unknown form')

    return persistent


def _tensor(_: Machine, arguments: tuple) -> LazyTensor:
    match arguments:  # v2 adds requires_grad, hooks and sometimes flags (conjugated or negated views)
        case (_Storage() as storage, offset, tuple(shape), tuple(stride), *rest):
            numbers = (offset, *shape, *stride)
            if (
                len(shape) != len(stride)
                or len(shape) > 64
                or rest[2:] not in ([], [None], [{}])
                or any(type(n) is not int or not 0 <= n < _LARGEST for n in numbers)
            ):
                raise ValueError('a tensor has an unsuitable shape or stride, or is a special view')
            last = -1 if 0 in shape else sum((n - 1) * step for n, step in zip(shape, stride))
            if math.prod(n for n in shape if n) >= _LARGEST or offset + last >= storage.numel:
                raise ValueError(f'a tensor of shape {shape[:8]} reaches beyond its storage')
            return LazyTensor(storage, shape, stride, offset)
    raise ValueError('a tensor is made from unsuitable arguments')


def _parameter(_: Machine, arguments: tuple) -> LazyTensor:
    match arguments:
        case (LazyTensor() as tensor, *_):
            return tensor
    raise ValueError('a parameter is made from something that is no tensor')


def _size(_: Machine, arguments: tuple) -> tuple:
    match arguments:
        case (tuple(shape),):
            return shape
    raise ValueError('torch.Size is made from unsuitable arguments')


def _device(_: Machine, arguments: tuple) -> str:
    match arguments:
        case (str(kind), *index) if len(kind) < 32 and all(type(i) is int and 0 <= i < 256 for i in index):
            return ':'.join((kind, *map(str, index)))
    raise ValueError('torch.device is made from unsuitable arguments')


# The only names resolved in a torch file, to functions and types of ours; nothing is imported by name.
_KNOWN = {
    **{
        (module, name): Known(f'{module}.{name}', function)
        for module, name, function in (
            ('torch._utils', '_rebuild_tensor', _tensor),
            ('torch._utils', '_rebuild_tensor_v2', _tensor),
            ('torch._utils', '_rebuild_parameter', _parameter),
            ('torch', 'Size', _size),
            ('torch', 'device', _device),
        )
    },
    **{('torch', name): _StorageType(f'torch.{name}', dtype) for name, dtype in _STORAGE_DTYPES.items()},
    **{('torch', str(dtype).removeprefix('torch.')): dtype for dtype in _STORAGE_DTYPES.values()},
}
