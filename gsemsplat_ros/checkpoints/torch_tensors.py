"""Tensors in the pickle of a torch file: storages, the calls that make tensors of them, the names of both.

A type of storage or tensor that is not known makes a `Placeholder`: it does no harm until someone wants it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gsemsplat_ros.checkpoints.inert_pickle import Known, Machine, Placeholder
from gsemsplat_ros.checkpoints.tensor_file import bytes_of
from gsemsplat_ros.files import BLOCK, FileBytes

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
# of tensors whose storage has no type of its own
_DTYPES = (
    *_STORAGE_DTYPES.values(),
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)
_LARGEST = 1 << 62  # of any size, stride or number of elements


@dataclass(frozen=True, eq=False)
class _StorageType(Placeholder):
    dtype: torch.dtype


@dataclass(eq=False)
class Storage:
    """`numel` elements of `dtype` at byte `start` of the file; `crc`: the archive's checksum, if any."""

    file: FileBytes = field(repr=False)
    dtype: torch.dtype
    numel: int
    start: int | None = None  # in the older stream known only after the pickle
    crc: int | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def read(self, first: int, count: int) -> Tensor:
        """(count,) uint8 from its byte `first`."""
        assert self.start is not None
        check_crc(self.file, self.start, self.nbytes, self.crc, 'a tensor')
        self.crc = None  # once is enough for tensors that share it
        return bytes_of(self.file, self.start + first, count)


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor that is still in the file; its bounds are checked. shape, stride, offset: in elements."""

    storage: Storage = field(repr=False)
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """Elements from its first to its last, in the order of the storage."""
        return _spanned(self.shape, self.stride)

    def read(self) -> Tensor:
        """The tensor on the CPU, in memory of its own.

        Raises ValueError when the bytes do not match the archive's checksum.
        """
        size = self.dtype.itemsize
        data = self.storage.read(self.offset * size, self.count * size)
        return data.view(self.dtype).as_strided(self.shape, self.stride)


def _spanned(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    return 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, stride))


def check_crc(file: FileBytes, start: int, size: int, crc: int | None, what: str) -> None:
    if not crc:  # torch writes 0 if it computes no checksums
        return
    found = 0
    for first in range(start, start + size, BLOCK):
        found = zlib.crc32(file.read(first, min(BLOCK, start + size - first)), found)
    if found != crc:
        raise ValueError(f'{what} is damaged: its checksum differs')


def storage_reader(
    storage: Callable[[str, torch.dtype, int], Storage],
) -> Callable[[Any], Storage | Placeholder]:
    """The reader of torch's persistent ids: ('storage', type, key, device, numel[, None]). A storage of an
    unknown type is a placeholder, as are the tensors in it."""

    def persistent(value: Any) -> Storage | Placeholder:
        match value:
            case ('storage', Placeholder() as kind, str(key), _, int(numel), *view) if numel >= 0:
                if view in ([], [None]):
                    return storage(key, kind.dtype, numel) if isinstance(kind, _StorageType) else kind
        raise ValueError('a reference to a storage has an unknown form')

    return persistent


def _tensor(_: Machine, arguments: tuple) -> LazyTensor | Placeholder:
    match arguments:  # v2 adds requires_grad, hooks and sometimes flags (conjugated or negated views)
        case (Storage() as storage, offset, tuple(shape), tuple(stride), *rest) if rest[2:] in (
            [],
            [None],
            [{}],
        ):
            return _lazy(storage, storage.dtype, offset, shape, stride)
        case (Placeholder() as unknown, *_):
            return unknown
    raise ValueError('a tensor is made from unsuitable arguments')


def _tensor_v3(_: Machine, arguments: tuple) -> LazyTensor | Placeholder:
    match arguments:  # of a storage without a type: requires_grad, hooks, the type and perhaps flags
        case (Storage() as storage, offset, tuple(shape), tuple(stride), _, _, dtype, *flags) if flags in (
            [],
            [None],
            [{}],
        ):
            if isinstance(dtype, torch.dtype):
                return _lazy(storage, dtype, offset, shape, stride)
            if isinstance(dtype, Placeholder):
                return dtype
        case (Placeholder() as unknown, *_):
            return unknown
    raise ValueError('a tensor is made from unsuitable arguments')


def _lazy(storage: Storage, dtype: torch.dtype, offset: Any, shape: tuple, stride: tuple) -> LazyTensor:
    numbers = (offset, *shape, *stride)
    if (
        len(shape) != len(stride)
        or len(shape) > 64
        or any(type(n) is not int or not 0 <= n < _LARGEST for n in numbers)
    ):
        raise ValueError('a tensor has an unsuitable shape or stride')
    end = (offset + _spanned(shape, stride)) * dtype.itemsize
    if math.prod(n for n in shape if n) >= _LARGEST or end > storage.nbytes:
        raise ValueError(f'a tensor of shape {shape[:8]} reaches beyond its storage')
    return LazyTensor(storage, dtype, shape, stride, offset)


def _parameter(_: Machine, arguments: tuple) -> LazyTensor | Placeholder:
    match arguments:
        case (LazyTensor() | Placeholder() as tensor, *_):
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
KNOWN = {
    **{
        (module, name): Known(f'{module}.{name}', function)
        for module, name, function in (
            ('torch._utils', '_rebuild_tensor', _tensor),
            ('torch._utils', '_rebuild_tensor_v2', _tensor),
            ('torch._utils', '_rebuild_tensor_v3', _tensor_v3),
            ('torch._utils', '_rebuild_parameter', _parameter),
            ('torch', 'Size', _size),
            ('torch', 'device', _device),
        )
    },
    **{('torch', name): _StorageType(f'torch.{name}', dtype) for name, dtype in _STORAGE_DTYPES.items()},
    ('torch.storage', 'UntypedStorage'): _StorageType('torch.storage.UntypedStorage', torch.uint8),
    **{('torch', str(dtype).removeprefix('torch.')): dtype for dtype in _DTYPES},
}
