"""Tensors and plain containers out of a PyTorch file, without running anything that the file names.

A torch file is a pickle (a small program) plus raw storages. Python's unpickler imports and calls whatever the program
names; here the program is decoded with `pickletools.genops`, which executes nothing, and interpreted by `_Machine`, which
knows containers, numbers, text and tensors, and turns every other class, function and object into an inert `Placeholder`.
Tensors stay in the file, mapped, until `LazyTensor.read`. Both formats of `torch.save` are read: the zip archive (since
1.6) and the older stream. The limits below stop files that are small on disk but unfold in memory or never end.
"""
import mmap
import pickletools
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

MAX_PICKLE_BYTES = 64 << 20   # the public checkpoints need about 1 MB
MAX_OPCODES = 2_000_000       # the public checkpoints, optimizer states included, need about 200 000
MAX_KEY_LENGTH = 4096         # dictionary keys: long ones make every comparison slow
MAX_ODD_KEYS = 10_000         # keys whose hash a file can choose (tuples, floats, large integers)
MAX_NAMES = 1000              # distinct placeholders

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'   # that number, pickled with protocol 2
_STORAGE_DTYPES = {
    'FloatStorage': torch.float32, 'DoubleStorage': torch.float64, 'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16, 'LongStorage': torch.int64, 'IntStorage': torch.int32,
    'ShortStorage': torch.int16, 'CharStorage': torch.int8, 'ByteStorage': torch.uint8, 'BoolStorage': torch.bool,
    'ComplexFloatStorage': torch.complex64, 'ComplexDoubleStorage': torch.complex128,
}
_DTYPES = (*_STORAGE_DTYPES.values(),)
_OLD_MODULES = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}   # Python 2 names, as protocol 2 writes them
_ARGUMENT_IS_VALUE = frozenset((
    'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
    'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8', 'UNICODE', 'SHORT_BINUNICODE',
    'BINUNICODE', 'BINUNICODE8'))
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_EMPTY = {'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': set}


@dataclass(frozen=True, eq=False)
class Placeholder:
    """Stands for a class, a function or an object that is neither tensor nor plain container. Does nothing."""

    name: str


@dataclass(frozen=True)
class _StorageType:
    dtype: torch.dtype


@dataclass(eq=False)
class _Storage:
    """`numel` elements of `dtype` at byte `start` of the mapped file; `crc` is the archive's checksum, if it has one."""

    data: mmap.mmap
    dtype: torch.dtype
    numel: int
    start: int | None = None   # the older format tells it only after the object
    crc: int | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def read(self) -> torch.Tensor:
        assert self.start is not None
        if self.numel == 0:
            return torch.empty(0, dtype=self.dtype)
        if self.crc is not None:
            _check_crc(self.data, self.start, self.nbytes, self.crc, 'a tensor')
            self.crc = None   # once is enough for tensors that share it
        raw = torch.frombuffer(self.data, dtype=torch.uint8, count=self.nbytes, offset=self.start)
        return (raw.clone() if self.start % self.dtype.itemsize else raw).view(self.dtype)


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor that is still in the file. `shape` and `stride` in elements; bounds were checked when it was made."""

    storage: _Storage = field(repr=False)
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    def read(self) -> torch.Tensor:
        """Returns the tensor on the CPU, as a view of the mapped file where alignment allows.

        Raises: ValueError when the bytes do not match the archive's checksum.
        """
        return self.storage.read().as_strided(self.shape, self.stride, self.offset)


@dataclass(frozen=True)
class TorchFile:
    """`tree`: dicts, lists, tuples, numbers, text, `LazyTensor`, `Placeholder`. `placeholders`: their names, sorted."""

    tree: Any
    placeholders: tuple[str, ...]


def read_torch_file(path: str | Path) -> TorchFile:
    """Reads what `torch.save` wrote; no code from the file runs and no tensor is copied yet.

    Raises: ValueError, in one line, for anything else: foreign, truncated, damaged or hostile files.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'{path}: no such file')
    try:
        if path.stat().st_size == 0:
            raise ValueError('the file is empty')
        with open(path, 'rb') as file:
            # A private writable mapping, because torch wants writable memory; nothing is ever written to it.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start = data[:512]
        if start.startswith(b'PK\x03\x04'):
            return _read_zip(data)
        if start.startswith(_LEGACY_START):
            return _read_stream(data)
        if start[257:262] == b'ustar' or tarfile.is_tarfile(path):
            raise ValueError('the tar format of torch before 0.1.10 is not read: load and save it with a newer torch')
        raise ValueError('not a torch file (neither the zip archive nor the older stream of torch.save)')
    except (ValueError, OSError) as error:
        raise ValueError(f'{path}: {_printable(str(error))}') from None


def _read_zip(data: mmap.mmap) -> TorchFile:
    try:
        with zipfile.ZipFile(data) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, OverflowError) as error:
        raise ValueError(f'truncated or damaged archive ({error})') from None
    records = {entry.filename: entry for entry in entries}
    roots = [name.removesuffix('data.pkl') for name in records if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(records) != len(entries) or len(roots) != 1:
        raise ValueError('not a torch file (a zip archive without exactly one data.pkl, or with a name twice)')
    if roots[0] + 'constants.pkl' in records:
        raise ValueError('a TorchScript archive, which holds a program: a file with a state_dict is wanted')

    def locate(name: str) -> tuple[int, int, int]:
        entry = records.get(roots[0] + name)
        if entry is None:
            raise ValueError(f'the archive lacks its record {name!r}')
        head = data[entry.header_offset:entry.header_offset + 30]
        if len(head) < 30 or head[:4] != b'PK\x03\x04' or entry.flag_bits & 1 or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f'record {name!r} is damaged, compressed or encrypted; torch.save stores plainly')
        start = entry.header_offset + 30 + sum(struct.unpack('<2H', head[26:30]))
        if entry.compress_size != entry.file_size or start + entry.file_size > len(data):
            raise ValueError(f'record {name!r} reaches beyond the end of the file')
        return start, entry.file_size, entry.CRC

    def small(name: str) -> bytes:
        start, size, crc = locate(name)
        if size > MAX_PICKLE_BYTES:
            raise ValueError(f'record {name!r} has {size} bytes; at most {MAX_PICKLE_BYTES} are read')
        _check_crc(data, start, size, crc, f'record {name!r}')
        return data[start:start + size]

    def storage(key: str, dtype: torch.dtype, numel: int) -> _Storage:
        start, size, crc = locate(f'data/{key}')
        if size != numel * dtype.itemsize:
            raise ValueError(f'storage {key!r} has {size} bytes, {numel} elements of {dtype} were announced')
        return _Storage(data, dtype, numel, start, crc)

    if roots[0] + 'byteorder' in records and small('byteorder') != b'little':
        raise ValueError('written on a big-endian machine, which is not read')
    machine = _Machine(BytesIO(small('data.pkl')), storage)
    return TorchFile(machine.run(), machine.placeholders)


def _read_stream(data: mmap.mmap) -> TorchFile:
    """Five pickles (magic, version, system, object, storage keys), then per storage its numel (int64) and bytes."""
    stream = BytesIO(data[:MAX_PICKLE_BYTES])
    storages: dict[str, _Storage] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> _Storage:
        found = storages.setdefault(key, _Storage(data, dtype, numel))
        if (found.dtype, found.numel) != (dtype, numel):
            raise ValueError(f'storage {key!r} is announced twice, differently')
        return found

    header = [_Machine(stream, storage).run() for _ in range(3)]
    if header[:2] != [_LEGACY_MAGIC, 1001] or type(header[2]) is not dict or header[2].get('little_endian') is not True:
        raise ValueError('a torch stream of an unknown version or of a big-endian machine')
    machine = _Machine(stream, storage)
    tree = machine.run()
    keys = _Machine(stream, storage).run()
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError('the list of storages does not match the tensors')
    position = stream.tell()
    for key in keys:
        found = storages[key]
        end = position + 8 + found.nbytes
        if end > len(data) or data[position:position + 8] != struct.pack('<q', found.numel):
            raise ValueError(f'storage {key!r} is truncated or not as long as announced')
        found.start, position = position + 8, end
    return TorchFile(tree, machine.placeholders)


class _Machine:
    """Interprets one pickle from `stream`; `storage(key, dtype, numel)` finds raw data. See the module docstring."""

    def __init__(self, stream: BytesIO, storage: Callable[[str, torch.dtype, int], _Storage]):
        self.stream, self.storage = stream, storage
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []   # the stacks below each MARK
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()
        self.odd_keys = self.copied = 0
        # Exact names that mean something here. The values are ours: nothing is imported or looked up.
        self.known: dict[tuple[str, str], Any] = {
            ('collections', 'OrderedDict'): self.ordered_dict,
            ('torch._utils', '_rebuild_tensor'): self.tensor,
            ('torch._utils', '_rebuild_tensor_v2'): self.tensor,
            ('torch._utils', '_rebuild_parameter'): self.parameter,
            ('torch', 'Size'): self.size,
            ('torch', 'device'): self.device,
            ('_codecs', 'encode'): self.encode,
            ('builtins', 'bytearray'): self.byte_array,
            ('builtins', 'set'): self.make_set,
            ('builtins', 'frozenset'): self.make_set,
            **{('torch', name): _StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
            **{('torch', str(dtype).removeprefix('torch.')): dtype for dtype in _DTYPES},
        }
        self.handlers = {handler for handler in self.known.values() if callable(handler)
                         and not isinstance(handler, torch.dtype)}

    @property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(sorted(self.names))

    def run(self) -> Any:
        try:
            with warnings.catch_warnings():   # text opcodes with odd escapes only warn
                warnings.simplefilter('ignore')
                for count, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
                    if count >= MAX_OPCODES:
                        raise ValueError(f'the pickle has more than {MAX_OPCODES} steps')
                    if opcode.name == 'STOP':
                        return self.stack.pop()
                    self.step(opcode.name, argument)
        except (IndexError, KeyError, OverflowError, struct.error):   # stack or memo used before it was filled
            pass
        raise ValueError('truncated or damaged pickle')
