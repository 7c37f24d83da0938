"""Files: written atomically, read by position, and identified by their digest."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BLOCK = 1 << 20  # bytes read at once
PART = re.compile(r'\..+\.[0-9a-f]{8}\.part')  # the name of a file that is being written


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Yields the path of a new file in the same folder: after the `with` it is the file at `path`.

    A reader sees the old file or the whole new one, also after a power cut and when several processes write
    the same path. After an error nothing is left of the new one. The folder must exist.
    """
    path = Path(path)
    remove_abandoned(path.parent)
    part = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.part')
    lock = _locked(part)
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)  # the name itself
    finally:
        part.unlink(missing_ok=True)
        os.close(lock)


def remove_abandoned(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`: files of `write_whole` that no process locks."""
    with suppress(OSError):  # the writer says what is wrong with the folder
        for entry in os.scandir(folder):
            if PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):  # locked, or gone already
                    handle = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(entry.path)
                    finally:
                        os.close(handle)


def _locked(part: Path) -> int:
    """Make the file `part`, and lock it until the returned handle is closed, as it is when the process ends.

    Raises OSError.
    """
    while True:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks: nothing is removed there either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if part.exists():  # else another process removed it before it was locked
            return handle
        os.close(handle)


class FileBytes:
    """The bytes of a file, read by position and never mapped: what was read stays, whatever becomes of the
    file. size: when it was opened."""

    def __init__(self, path: str | Path) -> None:
        """Raises OSError."""
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._handle).st_size

    def __del__(self) -> None:
        if hasattr(self, '_handle'):
            os.close(self._handle)

    def read_into(self, memory: memoryview, start: int) -> None:
        """Fill `memory` with what begins at byte `start`. Raises ValueError when the file ends before, or
        cannot be read."""
        memory = memory.cast('B') if memory.nbytes else memory
        filled = 0
        while filled < memory.nbytes:
            try:
                count = os.preadv(self._handle, [memory[filled:]], start + filled)
            except OSError as error:
                raise ValueError(f'it cannot be read: {error.strerror}') from None
            if not count:
                raise ValueError(f'the file ends before byte {start + memory.nbytes}')
            filled += count

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from byte `start`. Raises ValueError when the file ends before; nothing is reserved
        then."""
        if start + count > self.size:
            raise ValueError(f'the file ends before byte {start + count}')
        data = bytearray(count)
        self.read_into(memoryview(data), start)
        return bytes(data)


def digest(*parts: Path | bytes | memoryview) -> str:
    """SHA-256 of the parts one after the other, in hexadecimal; of a Path the contents of its file."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with open(part, 'rb') as file:
                while block := file.read(BLOCK):
                    sha.update(block)
        else:
            sha.update(part)
    return sha.hexdigest()


def _sync(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
