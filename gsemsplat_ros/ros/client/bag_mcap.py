"""MCAP files (mcap.dev/spec), with or without an index: ROS 2 messages beside those of others."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from gsemsplat_ros.ros.client.bag_decompress import LARGEST, ZSTD_MAGIC, decompress
from gsemsplat_ros.ros.client.bag_storage import Topics

MAGIC = b'\x89MCAP0\r\n'
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = range(1, 8)  # kinds of records
NO_CHUNK = -1
MESSAGE_HEAD = struct.Struct('<HIQQ')  # channel, number, time of recording, time of sending


class _Chunk(NamedTuple):
    """Where the compressed messages of a chunk stand in the file."""

    at: int
    size: int
    compression: str


class McapFile:
    """One MCAP file. All records are visited once, those in chunks only where no index tells of them."""

    def __init__(self, path: Path):
        """Raises ValueError, struct.error and others for a damaged file."""
        self._file = open(path, 'rb')  # noqa: SIM115  # closed by close()
        self._schemas: dict[int, str] = {0: ''}
        self._channels: dict[int, tuple[int, str, str]] = {}  # schema, topic, encoding
        self._chunks: list[_Chunk] = []
        self._found: dict[int, list[np.ndarray]] = defaultdict(list)  # channel -> (N, 3) time, chunk, offset
        self._opened: dict[int, bytes] = {}  # the last chunks that were decompressed
        try:
            self._scan()
            self.topics, self._rows = self._gathered()
        except BaseException:
            self._file.close()
            raise
        times = [rows[:, 0] for rows in self._rows.values()]
        self.span_ns = (
            (int(min(t.min() for t in times)), int(max(t.max() for t in times))) if times else (0, 0)
        )

    def close(self) -> None:
        """As `Storage.close`."""
        self._opened.clear()
        self._file.close()

    def messages(self, names: Collection[str], start_ns: int = 0) -> Iterator[tuple[str, int, bytes]]:
        """As `Storage.messages`."""
        wanted = [
            np.column_stack((rows, np.full(len(rows), number)))
            for number, rows in self._rows.items()
            if self._channels[number][1] in names
        ]
        rows = np.concatenate(wanted or [np.empty((0, 4), np.int64)])
        rows = rows[rows[:, 0] >= start_ns]
        for row in rows[np.argsort(rows[:, 0], kind='stable')]:
            time, chunk, offset, number = row.tolist()
            yield self._channels[number][1], time, self._message(chunk, offset, number)

    def _scan(self) -> None:
        """Visit the records of the file."""
        file, size = self._file, self._file.seek(0, 2)
        file.seek(0)
        if _exactly(file, 8) != MAGIC:
            raise ValueError('it is no MCAP file')
        singles: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        indexed: set[int] = set()
        kind = 0
        while kind != FOOTER:
            at = file.tell()
            kind, length = struct.unpack('<BQ', _exactly(file, 9))
            if at + 9 + length > size:
                raise ValueError('it ends early')
            if kind in (SCHEMA, CHANNEL):
                self._declare(kind, _exactly(file, length))
            elif kind == MESSAGE:
                number, _, time, _ = MESSAGE_HEAD.unpack(_exactly(file, MESSAGE_HEAD.size))
                singles[number].append((time, NO_CHUNK, at))
            elif kind == CHUNK:
                (letters,) = struct.unpack('<28xI', _exactly(file, 32))
                if letters > 100:
                    raise ValueError('a chunk is damaged')
                compression = _exactly(file, letters).decode()
                (packed,) = struct.unpack('<Q', _exactly(file, 8))
                self._chunks.append(_Chunk(file.tell(), packed, compression))
            elif kind == MESSAGE_INDEX and self._chunks:
                number, _ = struct.unpack('<HI', _exactly(file, 6))
                pairs = np.frombuffer(_exactly(file, length - 6), '<u8').reshape(-1, 2)
                self._note(number, len(self._chunks) - 1, pairs)
                indexed.add(len(self._chunks) - 1)
            file.seek(at + 9 + length)
        for number, entries in singles.items():
            self._found[number].append(np.array(entries, np.int64))
        self._walk(set(range(len(self._chunks))) - indexed, messages=True)
        if set(self._found) - set(self._channels):  # a file without a summary
            self._walk(indexed, messages=False)

    def _walk(self, chunks: Collection[int], messages: bool) -> None:
        """Visit the records of chunks: what they declare, and on demand their messages."""
        for number in sorted(chunks):
            data, at = self._chunk(number), 0
            entries: dict[int, list[tuple[int, int]]] = defaultdict(list)
            while at < len(data):
                kind, length = struct.unpack_from('<BQ', data, at)
                if at + 9 + length > len(data):
                    raise ValueError('a chunk ends early')
                if kind == MESSAGE and messages:
                    channel, _, time, _ = MESSAGE_HEAD.unpack_from(data, at + 9)
                    entries[channel].append((time, at))
                elif kind in (SCHEMA, CHANNEL):
                    self._declare(kind, data[at + 9 : at + 9 + length])
                at += 9 + length
            for channel, pairs in entries.items():
                self._note(channel, number, np.array(pairs, np.uint64))

    def _note(self, channel: int, chunk: int, pairs: np.ndarray) -> None:
        """Messages of a chunk: time and offset (N, 2) uint64."""
        if len(pairs):
            rows = np.empty((len(pairs), 3), np.int64)
            rows[:, 0], rows[:, 1], rows[:, 2] = pairs[:, 0], chunk, pairs[:, 1]
            self._found[channel].append(rows)

    def _declare(self, kind: int, record: bytes) -> None:
        if kind == SCHEMA:
            (number,) = struct.unpack_from('<H', record)
            self._schemas[number] = _text(record, 2)[0]
        else:
            number, schema = struct.unpack_from('<HH', record)
            topic, at = _text(record, 4)
            self._channels[number] = schema, topic, _text(record, at)[0]

    def _gathered(self) -> tuple[Topics, dict[int, np.ndarray]]:
        """The topics, and the messages of each channel that can be read."""
        topics, rows = Topics(), {}
        for number, (schema, topic, encoding) in self._channels.items():
            found = self._found.get(number, [])
            kind = self._schemas.get(schema, '')
            if topics.add(topic, kind, encoding, sum(map(len, found))) and found:
                rows[number] = np.concatenate(found)
        return topics, rows

    def _message(self, chunk: int, offset: int, channel: int) -> bytes:
        """The message whose record begins there."""
        if chunk == NO_CHUNK:
            self._file.seek(offset)
            kind, length = struct.unpack('<BQ', _exactly(self._file, 9))
            record = _exactly(self._file, length)
        else:
            data = self._chunk(chunk)
            kind, length = struct.unpack_from('<BQ', data, offset)
            record = data[offset + 9 : offset + 9 + length]
        if kind != MESSAGE or len(record) != length or MESSAGE_HEAD.unpack_from(record)[0] != channel:
            raise ValueError('its index points at no message')
        message = record[MESSAGE_HEAD.size :]
        # by `ros2 bag record --compression-mode message`; CDR never begins so
        return decompress(message, 'zstd') if message.startswith(ZSTD_MAGIC) else message

    def _chunk(self, number: int) -> bytes:
        """The records of a chunk, decompressed."""
        if number not in self._opened:
            chunk = self._chunks[number]
            self._file.seek(chunk.at)
            data = decompress(_exactly(self._file, chunk.size), chunk.compression)
            if len(self._opened) > 1:  # two that overlap in time may be read in turn
                del self._opened[next(iter(self._opened))]
            self._opened[number] = data
        return self._opened[number]


def _exactly(file: BinaryIO, size: int) -> bytes:
    if not 0 <= size <= LARGEST:
        raise ValueError(f'a record of it has {size:,} bytes: wanted at most {LARGEST >> 20} MiB')
    data = file.read(size)
    if len(data) != size:
        raise ValueError('it ends early')
    return data


def _text(record: bytes, at: int) -> tuple[str, int]:
    """A text with its length before it, and where it ends."""
    (length,) = struct.unpack_from('<I', record, at)
    end = at + 4 + length
    if end > len(record):
        raise ValueError('a name in it ends early')
    return record[at + 4 : end].decode('utf-8', 'replace'), end
