"""GLB files, the binary container of glTF 2.0 (Khronos): a JSON document, then one block of bytes, of which
the document names columns of numbers (accessors).

Only what a file of splats needs is read: columns that lie in the file itself. Nothing of a document is
believed: each number, name and size is compared with what it may be before anything is reserved.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gsemsplat_ros.files import FileBytes, write_whole

MAGIC, VERSION = b'glTF', 2
JSON_CHUNK, BYTES_CHUNK = b'JSON', b'BIN\0'
MAX_DOCUMENT = 1 << 22  # bytes; ours have 20 kB
MAX_BYTES = 2**32 - 1  # of a file: its header has 32 bits for that
MAX_STRIDE = 252  # bytes from one item of a shared column to the next
WIDTHS = {'SCALAR': 1, 'VEC2': 2, 'VEC3': 3, 'VEC4': 4}  # numbers of an item
KINDS = {5120: 'i1', 5121: 'u1', 5122: '<i2', 5123: '<u2', 5125: '<u4', 5126: '<f4'}  # by componentType
NUMBERS = {kind: number for number, kind in KINDS.items()}


def write_glb_file(path: Path, document: Mapping[str, Any], blocks: Iterable[np.ndarray], size: int) -> None:
    """Write `document` and the `size` bytes of `blocks`, both multiples of four, one block at a time in
    memory.

    Raises ValueError for what a GLB cannot hold, OSError.
    """
    text = json.dumps(document, separators=(',', ':'), allow_nan=False).encode('ascii')
    text += b' ' * (-len(text) % 4)
    whole = 12 + 8 + len(text) + 8 + size
    if whole > MAX_BYTES:
        raise ValueError(
            f'cannot write {path}: it would have {whole / 1e9:.1f} GB, and a GLB has 4.3 at most; export less'
        )
    with write_whole(path) as new, open(new, 'wb') as file:
        file.write(struct.pack('<4sII', MAGIC, VERSION, whole))
        file.write(struct.pack('<I4s', len(text), JSON_CHUNK) + text)
        file.write(struct.pack('<I4s', size, BYTES_CHUNK))
        for block in blocks:
            file.write(block.data)
        assert file.tell() == whole, (file.tell(), whole)


@dataclass(frozen=True, eq=False)
class GlbFile:
    """A file with its document, whose entries are not checked, and where its block of bytes lies."""

    document: dict[str, Any]
    file: FileBytes
    start: int
    size: int
    _kept: list[Any] = field(default_factory=list, repr=False)

    @classmethod
    def open(cls, path: Path) -> GlbFile:
        """Raises ValueError, in words that follow the name of the file, for what is no GLB."""
        try:
            file = FileBytes(path)
        except OSError as error:
            raise ValueError(f'cannot be read ({error.strerror})') from None
        if file.size < 20:
            raise ValueError('is no GLB')
        magic, version, whole, length, kind = struct.unpack('<4sIII4s', file.read(0, 20))
        if magic != MAGIC or kind != JSON_CHUNK:
            raise ValueError('is no GLB')
        if version != VERSION or whole != file.size or not 0 < length <= MAX_DOCUMENT:
            raise ValueError(f'is a damaged GLB, or only a part of one ({file.size} bytes)')
        try:
            document = json.loads(file.read(20, length))
        except (ValueError, RecursionError):
            raise ValueError('is a GLB whose document cannot be read') from None
        if not isinstance(document, dict):
            raise ValueError('is a GLB without a document')
        if file.size < 28 + length:
            return cls(document, file, file.size, 0)
        size, kind = struct.unpack('<I4s', file.read(20 + length, 8))
        if kind != BYTES_CHUNK or 28 + length + size > file.size:
            raise ValueError(f'is a damaged GLB, or only a part of one ({file.size} bytes)')
        return cls(document, file, 28 + length, size)

    def column(self, number: object, what: str, width: int) -> np.ndarray:
        """(N, width) float32 of accessor `number`; integers that are normalised become -1 to 1 or 0 to 1.

        Raises ValueError, naming `what` it is of, for one that is not there or of another width.
        """
        accessor = entry(self.document, 'accessors', number, what)
        view = entry(self.document, 'bufferViews', accessor.get('bufferView'), what)
        kind, count = (
            KINDS.get(whole_number(accessor, 'componentType', what)),
            whole_number(accessor, 'count', what),
        )
        if kind is None or accessor.get('type') not in WIDTHS or 'sparse' in accessor:
            raise ValueError(f'holds {what} in a form that is not read')
        if WIDTHS[accessor['type']] != width:
            raise ValueError(f'holds {what} of {WIDTHS[accessor["type"]]} numbers, wanted {width}')
        if entry(self.document, 'buffers', view.get('buffer'), what).get('uri') is not None:
            raise ValueError(f'holds {what} in another file')
        item = width * np.dtype(kind).itemsize
        stride = whole_number(view, 'byteStride', what, item)
        first, last = whole_number(accessor, 'byteOffset', what, 0), whole_number(view, 'byteLength', what)
        offset = whole_number(view, 'byteOffset', what, 0)
        needed = first + (count - 1) * stride + item if count else 0
        if not (item <= stride <= max(item, MAX_STRIDE)) or needed > last or offset + last > self.size:
            raise ValueError(f'holds {what} beyond its end')
        data = self._bytes(offset, last)[first:]
        rows = np.lib.stride_tricks.as_strided(data, (count, item), (stride, 1), writeable=False)
        values = np.ascontiguousarray(rows).view(kind).reshape(count, width)
        if accessor.get('normalized') is not True or kind == '<f4':
            return values.astype(np.float32)
        return np.maximum(values / np.float32(np.iinfo(values.dtype).max), np.float32(-1))

    def _bytes(self, offset: int, count: int) -> np.ndarray:
        """(count,) uint8 of the block; those of the last call are kept, since columns may share them."""
        if self._kept[:1] != [(offset, count)]:
            self._kept[:] = (offset, count), self.file.read(self.start + offset, count)
        return np.frombuffer(self._kept[1], np.uint8)


def entry(document: Mapping[str, Any], name: str, number: object, what: str) -> dict[str, Any]:
    """Item `number` of the list `name` of a document. Raises ValueError where it is not there."""
    items = document.get(name)
    if not isinstance(items, list) or type(number) is not int or not 0 <= number < len(items):
        raise ValueError(f'does not hold {what}')
    if not isinstance(items[number], dict):
        raise ValueError(f'does not hold {what}')
    return items[number]


def whole_number(item: Mapping[str, Any], name: str, what: str, default: int | None = None) -> int:
    """A size of an item, from 0. Raises ValueError for another value, or where there is no default."""
    value = item.get(name, default)
    if type(value) is not int or not 0 <= value <= MAX_BYTES:
        raise ValueError(f'holds {what} with a {name} that is no size')
    return value
