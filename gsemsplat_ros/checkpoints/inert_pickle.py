"""A pickle interpreter that runs no code: plain containers, numbers and text; placeholders for the rest.

A pickle is a small program, and Python's unpickler imports and calls whatever it names. Here the program is
decoded by `pickletools.genops`, which executes nothing, and interpreted by `Machine`: only exact names in a
table are resolved, to functions of ours; every other class, function and object becomes a `Placeholder` that
does nothing, whatever the program does to it. The limits stop small programs that unfold in memory or run for
ever; an ordinary checkpoint stays far below them.
"""

from __future__ import annotations

import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from types import NoneType
from typing import Any

MAX_BYTES = 64 << 20  # of a pickle, and of what its calls copy
MAX_OPCODES = 2_000_000
MAX_KEY_LENGTH = 4096  # dictionary keys: long ones make every comparison slow
MAX_ODD_KEYS = 10_000  # keys whose hash a file can choose: many that collide take a quadratic time
MAX_NAMES = 1000  # distinct placeholders

_OLD_MODULES = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}  # Python 2's names, in protocols 0 to 2
_VALUE_OPCODES = frozenset(
    (
        'INT',
        'BININT',
        'BININT1',
        'BININT2',
        'LONG',
        'LONG1',
        'LONG4',
        'FLOAT',
        'BINFLOAT',
        'STRING',
        'BINSTRING',
        'SHORT_BINSTRING',
        'BINBYTES',
        'SHORT_BINBYTES',
        'BINBYTES8',
        'BYTEARRAY8',
        'UNICODE',
        'SHORT_BINUNICODE',
        'BINUNICODE',
        'BINUNICODE8',
    )
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}


@dataclass(frozen=True, eq=False)
class Placeholder:
    """In place of a class, a function or an object other than a plain container. Does nothing."""

    name: str


@dataclass(frozen=True, eq=False)
class Known(Placeholder):
    """A name that a pickle may call: `function`, ours, takes the machine and the argument tuple."""

    function: Callable[[Machine, tuple], Any] = field(repr=False)


class Machine:
    """Interprets one pickle from `stream` and leaves the stream at the pickle's end.

    known: values of exact (module, name) pairs, besides the containers of Python. persistent: makes a value
    from a persistent id. `names` afterwards holds the name of every placeholder.
    """

    def __init__(
        self, stream: BytesIO, known: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any]
    ):
        self.stream, self.known, self.persistent = stream, {**known, **_CONTAINERS}, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open MARK
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()
        self.odd_keys = self.copied = 0

    def run(self) -> Any:
        """Returns the pickled value; raises ValueError, in one line, for a damaged or unsuitable pickle."""
        try:
            with warnings.catch_warnings():  # odd escapes in text opcodes only warn
                warnings.simplefilter('ignore')
                for count, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
                    if opcode.name == 'STOP':
                        return self.stack.pop()
                    if count >= MAX_OPCODES:
                        raise ValueError(f'the pickle has more than {MAX_OPCODES} steps')
                    self.step(opcode.name, argument)
        except (IndexError, KeyError):  # the pickle reads an empty stack or memo
            pass
        raise ValueError('truncated or damaged pickle')

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case 'PUT' | 'BINPUT' | 'LONG_BINPUT':
                self.memo[argument] = stack[-1]
            case 'MEMOIZE':
                self.memo[len(self.memo)] = stack[-1]
            case 'GET' | 'BINGET' | 'LONG_BINGET':
                stack.append(self.memo[argument])
            case _ if opcode in _VALUE_OPCODES:
                stack.append(argument)
            case _ if opcode in _CONSTANTS:
                stack.append(_CONSTANTS[opcode])
            case 'EMPTY_DICT':
                stack.append({})
            case 'EMPTY_LIST':
                stack.append([])
            case 'EMPTY_SET':
                stack.append(set())
            case 'MARK':
                self.below.append(stack)
                self.stack = []
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                stack.append(self.pop(int(opcode[-1])))
            case 'TUPLE':
                self.push(tuple(self.pop_mark()))
            case 'LIST':
                self.push(self.pop_mark())
            case 'DICT':
                items = self.pop_mark()
                self.push({})
                self.set_items(items)
            case 'FROZENSET':
                self.push(self.make_set((self.pop_mark(),)))
            case 'SETITEM':
                self.set_items(self.pop(2))
            case 'SETITEMS':
                self.set_items(self.pop_mark())
            case 'APPEND':
                self.append(self.pop(1), list)
            case 'APPENDS':
                self.append(self.pop_mark(), list)
            case 'ADDITEMS':
                self.append([self.key(item) for item in self.pop_mark()], set)
            case 'GLOBAL':
                stack.append(self.find(*argument.split(' ', 1)))
            case 'STACK_GLOBAL':
                stack.append(self.find(*self.pop(2)))
            case 'BINPERSID':
                stack.append(self.persistent(stack.pop()))
            case 'REDUCE' | 'NEWOBJ':
                stack.append(self.call(*self.pop(2)))
            case 'NEWOBJ_EX':
                stack.append(self.call(*self.pop(3)))
            case 'OBJ':
                items = self.pop_mark()
                self.push(self.call(items[0], tuple(items[1:])))
            case 'INST':
                self.push(self.call(self.find(*argument.split(' ', 1)), tuple(self.pop_mark())))
            case 'BUILD':  # the state of an object, the metadata of a state dict: not needed
                self.pop(1)
                stack[-1]
            case 'POP' if stack:
                stack.pop()
            case 'POP' | 'POP_MARK':
                self.pop_mark()
            case 'DUP':
                stack.append(stack[-1])
            case 'PROTO' | 'FRAME':
                pass
            case _:  # EXT* (a registry of this process), PERSID and *_BUFFER, which torch does not write
                raise ValueError(f'the pickle uses {opcode}, which has no place in a torch file')

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> tuple:
        if len(self.stack) < count:
            raise IndexError
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.below.pop()
        return items

    def set_items(self, items: list | tuple) -> None:
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, (dict, Placeholder)):
            raise ValueError('the pickle sets items of something that is no dictionary')
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2]):
                target[self.key(key)] = value

    def append(self, items: list | tuple, kind: type) -> None:
        target = self.stack[-1]
        if kind is list and isinstance(target, list):
            target.extend(items)
        elif kind is set and isinstance(target, set):
            target.update(items)
        elif not isinstance(target, Placeholder):
            raise ValueError(f'the pickle adds items to something that is no {kind.__name__}')

    def key(self, value: Any) -> Any:
        """`value`, if hashing and comparing it is cheap however many there are; else raises ValueError."""
        kind = type(value)
        if (kind is int and abs(value) < 1 << 31) or (
            kind is not int and kind is not float and _is_atom(value)
        ):
            return value
        if isinstance(value, Placeholder):
            return value
        self.odd_keys += 1
        odd = _is_atom(value) or (kind is tuple and len(value) <= 16 and all(map(_is_atom, value)))
        if not odd or self.odd_keys > MAX_ODD_KEYS:
            raise ValueError(f'the pickle uses an unsuitable {kind.__name__} as a key, or too many of them')
        return value

    def find(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise ValueError('the pickle names a class by something that is no text')
        module = _OLD_MODULES.get(module, module)
        if (module, name) in self.known:
            return self.known[module, name]
        label = printable(f'{module}.{name}')
        self.names.add(label)
        if len(self.names) > MAX_NAMES:
            raise ValueError(f'the pickle names more than {MAX_NAMES} classes')
        return Placeholder(label)

    def call(self, function: Any, arguments: Any, keywords: Any = None) -> Any:
        if isinstance(function, Known):
            if type(arguments) is not tuple or keywords:
                raise ValueError(f'{function.name} is called with unsuitable arguments')
            return function.function(self, arguments)
        if isinstance(function, Placeholder):
            return Placeholder(function.name)
        raise ValueError('the pickle calls something that is no function')

    def spend(self, size: int) -> None:
        """Counts bytes that calls copy: with memo references a small file can repeat a copy without end."""
        self.copied += size
        if self.copied > MAX_BYTES:
            raise ValueError('the pickle unfolds to more than it should')

    def make_ordered_dict(self, arguments: tuple) -> OrderedDict:
        match arguments:
            case ():
                return OrderedDict()
            case (list(pairs),) if all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
                self.spend(128 * len(pairs))
                return OrderedDict((self.key(key), value) for key, value in pairs)
        raise ValueError('OrderedDict is called with unsuitable arguments')

    def make_set(self, arguments: tuple) -> set:
        match arguments:
            case ():
                return set()
            case ([*items],):  # a list or a tuple
                self.spend(64 * len(items))
                return {self.key(item) for item in items}
        raise ValueError('set is called with unsuitable arguments')

    def make_bytes(self, arguments: tuple) -> bytes:
        """Protocol 2 writes bytes as `_codecs.encode(text, 'latin1')` and makes byte arrays from these."""
        match arguments:
            case ():
                return b''
            case (bytes(value),):
                return value
            case (str(text), 'latin1' | 'latin-1'):
                self.spend(len(text))
                return text.encode('latin-1')
        raise ValueError('bytes are made from unsuitable arguments')


def printable(text: str) -> str:
    """One short line of ASCII: names and keys come from the file and go to a terminal."""
    text = text[:200].encode('unicode_escape').decode()
    return text if len(text) < 200 else text[:197] + '...'


def _is_atom(value: Any) -> bool:
    if type(value) in (str, bytes):
        return len(value) <= MAX_KEY_LENGTH
    return type(value) in (bool, float, NoneType) or (type(value) is int and value.bit_length() <= 64)


_CONTAINERS = {
    (module, name): Known(f'{module}.{name}', function)
    for module, name, function in (
        ('collections', 'OrderedDict', Machine.make_ordered_dict),
        ('builtins', 'set', Machine.make_set),
        ('builtins', 'frozenset', Machine.make_set),
        ('builtins', 'bytes', Machine.make_bytes),
        ('builtins', 'bytearray', Machine.make_bytes),
        ('_codecs', 'encode', Machine.make_bytes),
    )
}
