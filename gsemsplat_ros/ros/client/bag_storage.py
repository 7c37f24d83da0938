"""What all files of a bag are read as, and how they are opened: MCAP, SQLite, ROS 1, compressed, folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

WANTED = 'give an .mcap, .db3 or .bag file, or the folder that `ros2 bag record` made'


@dataclass
class Topics:
    """kinds: topic -> 'package/msg/Name'; counts: topic -> messages; foreign: topic -> the encoding of its
    messages, which is not that of ROS 2 (protobuf, json), so that they are passed over."""

    kinds: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, kind: str, encoding: str, count: int) -> bool:
        """Note a topic, which may be there already; whether its messages can be read."""
        parts = kind.split('/')
        kind = '/msg/'.join(parts) if len(parts) == 2 else kind
        if encoding != 'cdr' or self.kinds.get(name, kind) != kind:
            self.foreign[name] = encoding
            return False
        self.kinds[name] = kind
        self.counts[name] = self.counts.get(name, 0) + count
        return True


class Storage(Protocol):
    """A bag that is open. span_ns: when its first and its last message were recorded."""

    topics: Topics
    span_ns: tuple[int, int]

    def messages(self, names: Collection[str], start_ns: int = 0) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time of recording [ns], message in CDR) of these topics from then on, in order. May raise
        anything for a damaged bag."""

    def close(self) -> None:
        """Nothing is read any more."""


def open_storage(path: Path) -> Storage:
    """Raises ValueError for a path that is no bag, and anything for a damaged one."""
    return Folder(path) if path.is_dir() else _open_file(path)


def _open_file(path: Path) -> Storage:
    if path.suffix == '.mcap':
        from gsemsplat_ros.ros.client.bag_mcap import McapFile

        return McapFile(path)
    if path.suffix == '.db3':
        from gsemsplat_ros.ros.client.bag_sqlite import SqliteFile

        return SqliteFile(path)
    if path.suffix == '.bag':
        from gsemsplat_ros.ros.client.bag_ros1 import Ros1File

        return Ros1File(path)
    if path.suffix == '.zstd':
        return CompressedFile(path)
    raise ValueError(f'its name does not end like that of one: {WANTED}')


class CompressedFile:
    """A file that `ros2 bag record --compression-mode file` compressed."""

    def __init__(self, path: Path):
        from gsemsplat_ros.ros.client.bag_decompress import decompress_file

        with ExitStack() as opened:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix='gsemsplat-')))
            plain = folder / f'bag{Path(path.stem).suffix}'
            with open(plain, 'wb') as file:
                decompress_file(path, file)
            self._file = _open_file(plain)
            opened.callback(self._file.close)
            self._opened = opened.pop_all()
        self.topics, self.span_ns, self.messages = self._file.topics, self._file.span_ns, self._file.messages

    def close(self) -> None:
        """Close and remove the decompressed file."""
        self._opened.close()


class Folder:
    """The files that a recording was split into; its metadata.yaml is not needed."""

    def __init__(self, path: Path):
        with ExitStack() as opened:
            files = []
            for part in _parts(path):
                files.append(_open_file(part))
                opened.callback(files[-1].close)
            self._files = sorted(files, key=lambda file: file.span_ns)
            self._opened = opened.pop_all()
        self.topics = Topics()
        for file in self._files:
            for name, kind in file.topics.kinds.items():
                self.topics.add(name, kind, 'cdr', file.topics.counts[name])
            self.topics.foreign.update(file.topics.foreign)
        filled = [file.span_ns for file in self._files if file.topics.counts] or [(0, 0)]
        self.span_ns = min(start for start, _ in filled), max(end for _, end in filled)

    def messages(self, names: Collection[str], start_ns: int = 0) -> Iterator[tuple[str, int, bytes]]:
        """As `Storage.messages`."""
        for file in self._files:
            yield from file.messages(names, start_ns)

    def close(self) -> None:
        """Close all files."""
        self._opened.close()


def _parts(folder: Path) -> list[Path]:
    """The files of the one recording in `folder`. Raises ValueError for none and for several."""
    for kind in '.mcap', '.db3':
        files = sorted(p for p in folder.iterdir() if kind in (p.suffix, Path(p.stem).suffix) and p.is_file())
        files = [p for p in files if p.suffix in (kind, '.zstd')]
        recordings = {re.sub(r'(_\d+)?\..*', '', p.name) for p in files}
        if len(recordings) > 1:
            raise ValueError(f'it holds {len(recordings)} recordings: give one file, such as {files[0].name}')
        if files:
            return files
    raise ValueError(f'it holds no .mcap and no .db3 file: {WANTED}')
