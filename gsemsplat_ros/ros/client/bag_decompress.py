"""Compressed parts of a bag: bounded, since a few kilobytes can hold gigabytes of zeros."""

from __future__ import annotations

import bz2
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Protocol

LARGEST = 1 << 28  # bytes of a message, or of the messages that are compressed together
MAX_RATIO = 100  # of a compressed file, where it is larger than that
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


class Decompressor(Protocol):
    """As in the module bz2."""

    @property
    def eof(self) -> bool:
        """Whether the end of the frame was reached."""

    @property
    def unused_data(self) -> bytes:
        """What follows on it."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most so many bytes; the rest comes with the next calls."""


def _zstd() -> ModuleType:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _lz4() -> Decompressor:
    from lz4.frame import LZ4FrameDecompressor

    return LZ4FrameDecompressor()


KINDS: dict[str, Callable[[], Decompressor]] = {
    'zstd': lambda: _zstd().ZstdDecompressor(),
    'lz4': _lz4,
    'bz2': lambda: bz2.BZ2Decompressor(),
}


def decompress(data: bytes, kind: str) -> bytes:
    """`data` of a kind of KINDS, or as it is for '' and 'none'. Raises ValueError for more than LARGEST
    bytes, another kind and data that ends early, and what the libraries raise for damaged data."""
    if kind in ('', 'none'):
        return data
    if kind not in KINDS:
        raise ValueError(f'compression {kind[:40]!r} is not known: wanted one of {", ".join(KINDS)}')
    parts, size = [], 0
    while data:  # one frame after the other
        decompressor = KINDS[kind]()
        part = decompressor.decompress(data, LARGEST + 1 - size)
        size += len(part)
        if size > LARGEST:
            raise ValueError(f'a part of {len(data):,} bytes holds more than {LARGEST >> 20} MiB')
        if not decompressor.eof:
            raise ValueError('compressed data ends early')
        parts.append(part)
        data = decompressor.unused_data or b''
    return b''.join(parts)


def decompress_file(path: Path, to: BinaryIO) -> None:
    """Write what a Zstandard file holds. Raises ValueError for more than MAX_RATIO times its size, and what
    the library raises for damaged data."""
    most, written = max(LARGEST, MAX_RATIO * path.stat().st_size), 0
    with open(path, 'rb') as packed, _zstd().open(packed, 'rb') as file:
        while block := file.read(1 << 20):
            written += to.write(block)
            if written > most:
                raise ValueError(f'the file holds more than {most >> 20} MiB')
