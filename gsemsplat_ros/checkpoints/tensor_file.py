"""The one reader and writer of safetensors files: a header of JSON, then the bytes of the tensors.

Nothing is mapped: a mapped file that another program shortens ends this process by SIGBUS, and one that it
overwrites changes values in use. Each tensor is read into memory of its own, so a file of any size takes its
own size once; what the header says is compared with the size of the file before anything is reserved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.files import BLOCK, FileBytes, digest

DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'F8_E4M3': torch.float8_e4m3fn,
    'F8_E5M2': torch.float8_e5m2,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U64': torch.uint64,
    'U32': torch.uint32,
    'U16': torch.uint16,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}
KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
HEADER_FROM = 8  # bytes that hold the length of the header
MAX_HEADER = 1 << 24  # bytes; the largest network here has a header of 200 kB
MAX_SIDES = 8
METADATA = '__metadata__'


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is still in its file, whose bounds are checked. kind: its type as the file names it;
    start: its first byte."""

    file: FileBytes = field(repr=False)
    kind: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def dtype(self) -> torch.dtype | None:
        """None for a type that is not read."""
        return DTYPES.get(self.kind)

    def read(self) -> Tensor:
        """The tensor on the CPU, in memory of its own. Raises ValueError when the file is shorter by now, and
        for a type that is not read."""
        if self.dtype is None:
            raise ValueError(f'a tensor of type {self.kind[:20]!r} is not read')
        return bytes_of(self.file, self.start, self.nbytes).view(self.dtype).reshape(self.shape)

    def rows(self, first: int, stop: int) -> Tensor:
        """Those rows of the tensor alone, as `read`."""
        assert 0 <= first <= stop <= self.shape[0], (first, stop, self.shape)
        size = self.nbytes // max(self.shape[0], 1)
        shape = stop - first, *self.shape[1:]
        return replace(
            self, shape=shape, start=self.start + first * size, nbytes=(stop - first) * size
        ).read()

    def parts(self) -> Iterator[Tensor]:
        """Its bytes, a block at a time."""
        for start in range(self.start, self.start + self.nbytes, BLOCK):
            yield bytes_of(self.file, start, min(BLOCK, self.start + self.nbytes - start))


@dataclass(frozen=True, eq=False)
class PartedTensor:
    """A tensor to be written that is never whole in memory. parts: makes those along its first side, one
    after the other."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[Tensor]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class TensorFile:
    """A safetensors file whose header is read. metadata: texts by name; tensors: by name, in the order of
    the file."""

    metadata: dict[str, str]
    tensors: dict[str, StoredTensor]

    def read(self) -> dict[str, Tensor]:
        """All tensors. Raises ValueError as `StoredTensor.read`, with the name."""
        return read_all(self.tensors)

    def digest(self) -> str:
        """SHA-256 of the tensors with their names, types and shapes; whatever the metadata say."""
        parts: list[bytes | memoryview] = []
        for name, each in sorted(self.tensors.items()):
            data = bytes_of(each.file, each.start, each.nbytes).numpy().data
            parts += [f'{name} {each.kind} {each.shape}'.encode(), data]
        return digest(*parts)


def read_all(tensors: dict[str, StoredTensor]) -> dict[str, Tensor]:
    """Tensors by name from their file. Raises ValueError that names the one that cannot be read."""
    out = {}
    for name, each in tensors.items():
        try:
            out[name] = each.read()
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from None
    return out


def bytes_of(file: FileBytes, start: int, count: int) -> Tensor:
    """(count,) uint8 from byte `start` of the file. Raises ValueError when it ends before."""
    out = torch.empty(count, dtype=torch.uint8)
    file.read_into(out.numpy().data, start)
    return out


def parts_of(tensor: Tensor | StoredTensor | PartedTensor) -> Iterable[np.ndarray]:
    """Its numbers on the host, or its bytes, a part at a time."""
    parts = (tensor,) if isinstance(tensor, Tensor) else tensor.parts()
    for part in parts:
        yield part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def write_tensor_file(
    path: str | Path,
    tensors: Mapping[str, Tensor] | Mapping[str, Tensor | PartedTensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `tensors`, of any device, and texts into the file at `path`, one after the other: no further copy
    of all is made. Raises OSError."""
    # as the format wants it: the header ends at a multiple of 8 bytes, and large types come first
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        entry = {'shape': list(tensors[name].shape), 'data_offsets': [start, end]}
        header[name] = {'dtype': KINDS[tensors[name].dtype], **entry}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % HEADER_FROM)
    with open(path, 'wb') as file:
        file.write(len(text).to_bytes(HEADER_FROM, 'little') + text)
        for name in order:
            for part in parts_of(tensors[name]):
                file.write(part.data)


def not_finite(tensor: Tensor) -> int:
    """How many numbers of a floating-point tensor are NaN or infinite. A finite sum tells that none is, in a
    tenth of the time."""
    if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
        return int((~torch.isfinite(tensor)).sum())
    return 0


def check_finite(name: str, tensor: Tensor) -> None:
    """Raises ValueError, with the name and how many, for a tensor with numbers that are not finite."""
    count = not_finite(tensor)
    if count:
        raise ValueError(
            f'{count} of the {tensor.numel()} numbers of {name} are not finite: the file is damaged, or its '
            'training diverged'
        )


def is_tensor_file(path: str | Path) -> bool:
    """Whether the file begins as a safetensors file does, whatever its name."""
    with open(path, 'rb') as file:
        head = file.read(HEADER_FROM + 1)
    return head[HEADER_FROM:] == b'{' and int.from_bytes(head[:HEADER_FROM], 'little') <= MAX_HEADER


def read_tensor_file(path: str | Path) -> TensorFile:
    """The header of the file at `path`; no tensor is read yet.

    Raises ValueError with the reason alone for any other file, and for a damaged one.
    """
    try:
        file = FileBytes(path)
        length = int.from_bytes(file.read(0, HEADER_FROM), 'little')
        if length > MAX_HEADER:
            raise ValueError('not a safetensors file')
        header = json.loads(file.read(HEADER_FROM, length))
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError('its header is no JSON') from None
    if not isinstance(header, dict):
        raise ValueError('its header is no JSON object')
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError('its metadata are no texts')
    first = HEADER_FROM + length
    tensors = {name: _stored(file, name, entry, first) for name, entry in header.items()}
    end = first
    for each in sorted(tensors.values(), key=lambda each: (each.start, each.nbytes)):
        if each.start != end:
            raise ValueError('its tensors overlap or leave gaps')
        end += each.nbytes
    if end != file.size:
        raise ValueError(f'it has {file.size} bytes, its header announces {end}')
    return TensorFile(metadata, tensors)


def _stored(file: FileBytes, name: str, entry: object, first: int) -> StoredTensor:
    """The tensor of an entry of the header, whose offsets count from byte `first`."""
    match entry:
        case {'dtype': str(kind), 'shape': list(shape), 'data_offsets': [int(start), int(stop)]} if (
            len(shape) <= MAX_SIDES
            and all(type(side) is int and side >= 0 for side in shape)
            and 0 <= start <= stop <= file.size
        ):
            dtype = DTYPES.get(kind)
            if dtype is None or math.prod(shape) * dtype.itemsize == stop - start:
                return StoredTensor(file, kind, tuple(shape), first + start, stop - start)
    raise ValueError(f'its entry {name[:80]!r} makes no sense')
