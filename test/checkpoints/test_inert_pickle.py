"""No pickled program runs anything, whatever it names and however it goes about it."""

import argparse
import copyreg
import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict

import pytest
import torch

from gsemsplat_ros.checkpoints import inert_pickle
from gsemsplat_ros.checkpoints.inert_pickle import Placeholder
from gsemsplat_ros.checkpoints.torchfile import read_torch_file

WEIGHTS = torch.arange(6, dtype=torch.float32).view(2, 3)
BOTH = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'stream'])


# A pickle assembler of one-line helpers.
def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def name(module, attribute):
    return f'c{module}\n{attribute}\n'.encode()


def call(function, *arguments):
    return function + b'(' + b''.join(arguments) + b'tR'


def number(value):
    return b'\x8a\x08' + struct.pack('<q', value)


def storage(kind=None, key=None, numel=6):
    kind = name('torch', 'FloatStorage') if kind is None else kind
    key = text('0') if key is None else key
    return b'(' + text('storage') + kind + key + text('cpu') + number(numel) + b'tQ'


def tensor(source=None, offset=0, shape=(2, 3), stride=(3, 1), hooks=b'}'):
    sizes = [b'(' + b''.join(map(number, values)) + b't' for values in (shape, stride)]
    source = storage() if source is None else source
    return call(name('torch._utils', '_rebuild_tensor_v2'), source, number(offset), *sizes, b'\x89', hooks)


def archive(path, program, record=WEIGHTS.numpy().tobytes(), **options):
    with zipfile.ZipFile(path, 'w', **options) as file:
        file.writestr('x/data.pkl', program)
        file.writestr('x/data/0', record)
    return path


def with_weights(evil):
    """A file's program: {'evil': evil, 'w': WEIGHTS}."""
    return b'\x80\x02}(' + text('evil') + evil + text('w') + tensor() + b'u.'


def error_of(path):
    with pytest.raises(ValueError) as error:
        read_torch_file(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 400 + len(str(path))
    return str(error.value)


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
def test_every_pickle_protocol(tmp_path, protocol):
    saved = {
        'a': [1, -1, 300, 1 << 40, -(1 << 90), 0.5],
        'b': {'ü\n', b'\x80' * 300},
        'c': OrderedDict(x=(1, 2, 3, 4)),
        'd': frozenset((1, 2)),
        'e': bytearray(b'xy'),
        'f': argparse.Namespace(lr=1.0),
        'g': (1,),
        'h': (1, 2),
    }
    saved['i'] = saved['a']
    file = read_torch_file(archive(tmp_path / 'file', pickle.dumps(saved, protocol)))
    assert isinstance(file.tree.pop('f'), Placeholder) and 'argparse.Namespace' in file.placeholders
    del saved['f']
    assert file.tree == saved and file.tree['i'] is file.tree['a']


class Evil:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def canary(tmp_path):
    """A path that every payload tries to create."""
    path = tmp_path / 'canary'
    yield path
    assert not path.exists()


@BOTH
@pytest.mark.parametrize('kind', ['system', 'eval', 'exec'])
def test_reduce_runs_nothing(tmp_path, canary, zipped, kind):
    code = f'open({str(canary)!r}, "w")'
    evil = {'system': Evil(os.system, f'touch {canary}'), 'eval': Evil(eval, code), 'exec': Evil(exec, code)}[
        kind
    ]
    path = tmp_path / 'file'
    torch.save({'w': WEIGHTS, 'evil': evil}, path, _use_new_zipfile_serialization=zipped)
    torch.load(path, weights_only=False)
    assert canary.exists(), 'the payload is no payload'
    canary.unlink()
    file = read_torch_file(path)
    assert file.placeholders == ({'system': 'posix.system'}.get(kind, f'builtins.{kind}'),)
    assert torch.equal(file.tree['w'].read(), WEIGHTS) and isinstance(file.tree['evil'], Placeholder)


def payloads(canary):
    """Programs around one command: name -> (program of a value, wanted names)."""
    touch, system = text(f'touch {canary}'), name('posix', 'system')
    run = call(system, touch)
    stacked = text('posix') + text('system') + b'\x93'
    attribute = name('builtins', 'getattr')
    reconstruct = call(
        name('copyreg', '_reconstructor'), name('argparse', 'Namespace'), name('builtins', 'object'), b'N'
    )
    return {
        'hooks': (tensor(hooks=run), {'posix.system'}),
        'stack global': (call(stacked, touch), {'posix.system'}),
        'dotted': (call(text('torch') + text('os.system') + b'\x93', touch), {'torch.os.system'}),
        'dotted known': (
            call(text('torch._utils') + text('_rebuild_tensor_v2.__globals__') + b'\x93', touch),
            {'torch._utils._rebuild_tensor_v2.__globals__'},
        ),
        'getattr': (
            call(call(attribute, name('posix', 'environ'), text('system')), touch),
            {'builtins.getattr', 'posix.environ'},
        ),
        'old name': (
            call(name('__builtin__', 'eval'), text(f'open({str(canary)!r}, "w")')),
            {'builtins.eval'},
        ),
        'inst': (b'(' + touch + b'iposix\nsystem\n', {'posix.system'}),
        'obj': (b'(' + system + touch + b'o', {'posix.system'}),
        'newobj': (system + touch + b'\x85\x81', {'posix.system'}),
        'newobj_ex': (system + touch + b'\x85}' + text('a') + b'Ns\x92', {'posix.system'}),
        'odd arguments': (system + touch + b'R', {'posix.system'}),
        'setstate': (
            reconstruct + b'}' + text('__setstate__') + system + b'sb' + touch + b'b',
            {'copyreg._reconstructor', 'argparse.Namespace', 'builtins.object', 'posix.system'},
        ),
        'slots': (
            reconstruct + b'N}' + text('__class__') + run + b's\x86b',
            {'copyreg._reconstructor', 'argparse.Namespace', 'builtins.object', 'posix.system'},
        ),
        'state of a dict': (b'}}' + text('__class__') + system + b'sb', {'posix.system'}),
        'append': (name('logging', 'x') + b'(' + run + b'e' + run + b'a', {'logging.x', 'posix.system'}),
        'items': (
            name('logging', 'x') + b'(' + run + run + b'u' + run + b'Ns',
            {'logging.x', 'posix.system'},
        ),
        'key': (b'}' + run + b'Ns', {'posix.system'}),
        'key of a set': (b'\x8f(' + run + b'\x90', {'posix.system'}),
        'dtype': (name('torch', 'float32'), set()),
        'known is not called': (call(name('torch', 'FloatStorage'), number(1 << 60)), set()),
        'result is called': (call(call(system, touch), touch), {'posix.system'}),
        'control characters': (name('os\x1b[2J', 'system'), {'os\\x1b[2J.system'}),
    }


@pytest.mark.parametrize('kind', payloads(''))
def test_every_way_to_a_function_ends_at_a_placeholder(tmp_path, canary, kind):
    evil, names = payloads(canary)[kind]
    file = read_torch_file(archive(tmp_path / 'file', with_weights(evil)))
    assert set(file.placeholders) == names and list(file.placeholders) == sorted(names)
    assert torch.equal(file.tree['w'].read(), WEIGHTS)


@pytest.mark.parametrize(
    'kind, evil',
    {
        'storage type': tensor(storage(kind=text('FloatStorage'))),
        'storage key': tensor(storage(key=name('posix', 'system'))),
        'other storage': tensor(storage(key=text('../data.pkl'))),
        'storage too long': tensor(storage(numel=7)),
        'huge storage': tensor(storage(numel=1 << 61)),
        'negative storage': tensor(storage(numel=-6)),
        'persistent id': b'(' + text('module') + b'NNtQ',
        'persistent number': b'K\x01Q',
        'text persistent id': b'P0\n',
        'no storage': tensor(b'N'),
        'out of bounds': tensor(shape=(2, 4)),
        'offset': tensor(offset=1),
        'negative offset': tensor(offset=-1),
        'negative stride': tensor(offset=5, stride=(-3, -1)),
        'stride': tensor(stride=(4, 1)),
        'more strides': tensor(stride=(3, 1, 1)),
        'overflow': tensor(shape=(1 << 40, 1 << 40), stride=(0, 0)),
        'empty overflow': tensor(shape=(0, 1 << 40, 1 << 40), stride=(0, 0, 0)),
        'few arguments': call(name('torch._utils', '_rebuild_tensor_v2'), storage()),
        'extension': b'\x82\xc8',
        'extension 2': b'\x83\xc8\x00',
        'buffer': b'\x97',
        'huge bytearray': call(name('builtins', 'bytearray'), number(1 << 40)),
        'huge bytes': call(name('builtins', 'bytes'), number(1 << 40)),
        'keywords': name('builtins', 'set') + b')}' + text('a') + b'Ns\x92',
        'endless set': call(name('builtins', 'set'), name('itertools', 'count')),
        'key that is a list': b'}]Ns',
        'key that holds a list': b'}]\x85Ns',
        'huge key': b'}\x8b' + struct.pack('<I', 1000) + b'\x01' * 1000 + b'Ns',
        'number of a name': number(1) + number(2) + b'\x93',
        'call of a number': call(number(1)),
        'items of a number': number(1) + b'NNs',
        'append to a tuple': b')Na',
        'empty stack': b'0' * 50,
        'memo': b'h\x05',
        'long digits': b'I' + b'9' * 100_000 + b'\n',
        'bytes8': b'\x8e' + struct.pack('<Q', 1 << 62),
    }.items(),
)
def test_unsuitable_programs_are_one_line_errors(tmp_path, monkeypatch, kind, evil):
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension('posix', 'system', 200)
    try:
        error_of(archive(tmp_path / 'file', with_weights(evil)))
    finally:
        copyreg.remove_extension('posix', 'system', 200)
    assert os.listdir(tmp_path) == ['file']


@pytest.mark.parametrize(
    'kind, program, limits, wanted',
    [
        ('marks', b'(' * 30_000, {'MAX_OPCODES': 20_000}, 'more than 20000 steps'),
        ('dictionaries', b'}' * 30_000, {'MAX_OPCODES': 20_000}, 'more than 20000 steps'),
        ('memo index', b'Nr\xff\xff\xff\xff' + b'p99999999999999\nh\x00', {}, 'truncated or damaged'),
        ('names', b''.join(name('a', str(i)) for i in range(1100)), {}, 'more than 1000 classes'),
        (
            'copies',
            text('a' * (1 << 20))
            + b'q\x00'
            + name('_codecs', 'encode')
            + b'q\x01'
            + (b'h\x01h\x00' + text('latin1') + b'\x86R') * 300,
            {'MAX_BYTES': 9 << 20},
            'unfolds',
        ),
        (
            'sets',
            b']('
            + b'K\x01' * 20_000
            + b'eq\x00'
            + name('builtins', 'set')
            + b'q\x01'
            + b'h\x01h\x00\x85R' * 300,
            {'MAX_BYTES': 9 << 20},
            'unfolds',
        ),
        (
            'ordered dictionaries',
            b']('
            + b'NN\x86' * 10_000
            + b'eq\x00'
            + name('collections', 'OrderedDict')
            + b'q\x01'
            + b'h\x01h\x00\x85R' * 300,
            {'MAX_BYTES': 9 << 20},
            'unfolds',
        ),
        (
            'keys that may collide',
            b'}(' + b''.join(number(i) + b'\x85N' for i in range(10_001)) + b'u',
            {},
            'as a key',
        ),
        ('long keys', b'}' + text('k' * 5_000) + b'Ns', {}, 'as a key'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_programs_that_unfold_are_stopped(tmp_path, monkeypatch, kind, program, limits, wanted):
    for key, value in limits.items():
        monkeypatch.setattr(inert_pickle, key, value)
    path = archive(tmp_path / 'file', b'\x80\x02' + program + b'.')
    tracemalloc.start()
    start = time.monotonic()
    try:
        assert wanted in error_of(path)
        assert tracemalloc.get_traced_memory()[1] < 250e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 20


def test_deep_and_cyclic_programs_are_values(tmp_path):
    depth = 100_000
    file = read_torch_file(archive(tmp_path / 'deep', b'\x80\x02)' + b'\x85' * depth + b'.'))
    value, count = file.tree, 0
    while value:
        value, count = value[0], count + 1
    assert count == depth
    error_of(archive(tmp_path / 'key', b'\x80\x02})' + b'\x85' * depth + b'Ns.'))  # hashing it would recurse
    cyclic = read_torch_file(archive(tmp_path / 'cyclic', b'\x80\x02]q\x00h\x00ah\x00a.')).tree
    assert cyclic[0] is cyclic and len(cyclic) == 2


def test_random_programs_are_values_or_errors(tmp_path):
    """Random opcodes with sensible arguments reach combinations that no writer makes."""
    rng = random.Random(3)
    parts = [bytes([opcode]) for opcode in b'()}]N012aesutldRboQ\x8f\x85\x86\x87\x81\x92\x90\x91\x93\x94']
    parts += [
        b'K\x01',
        text('a'),
        text('latin1'),
        b'q\x00',
        b'h\x00',
        b'q\x01',
        b'h\x01',
        storage(),
        tensor(),
        b'G\x7f\xf8' + b'\0' * 6,
        name('posix', 'system'),
        name('torch', 'FloatStorage'),
        name('collections', 'OrderedDict'),
        name('builtins', 'set'),
        name('_codecs', 'encode'),
        name('torch', 'Size'),
        name('torch', 'device'),
        name('torch._utils', '_rebuild_tensor_v2'),
        name('torch._utils', '_rebuild_parameter'),
    ]
    outcomes = []
    for _ in range(600):
        program = b'\x80\x04}q\x00]q\x01' + b''.join(rng.choices(parts, k=rng.randrange(1, 30))) + b'.'
        path = archive(tmp_path / 'file', program)
        try:
            read_torch_file(path)
            outcomes.append('value')
        except ValueError:
            outcomes.append(error_of(path) and 'error')
    assert outcomes.count('value') > 20 and outcomes.count('error') > 20
