"""Torch files are read value for value; foreign, truncated and damaged ones are one-line errors."""

import argparse
import os
import pickle
import random
import sys
import types
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
import torch.utils.serialization  # its options are not loaded with torch

from gsemsplat_ros.checkpoints.inert_pickle import Placeholder
from gsemsplat_ros.checkpoints.torch_tensors import LazyTensor
from gsemsplat_ros.checkpoints.torchfile import read_torch_file

WEIGHTS = torch.arange(6, dtype=torch.float32).view(2, 3)
BOTH = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'stream'])


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """The program of {'w': WEIGHTS}."""
    path = tmp_path_factory.mktemp('good') / 'x'
    torch.save({'w': WEIGHTS}, path)
    with zipfile.ZipFile(path) as file:
        return file.read('x/data.pkl')


def archive(path, program, record=WEIGHTS.numpy().tobytes(), **options):
    with zipfile.ZipFile(path, 'w', **options) as file:
        file.writestr('x/data.pkl', program)
        file.writestr('x/data/0', record)
    return path


def error_of(path):
    with pytest.raises(ValueError) as error:
        read_torch_file(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 400 + len(str(path))
    return str(error.value)


def tensors_of(tree):
    """Every tensor of a tree that may share and contain itself."""
    found, seen, waiting = [], set(), [tree]
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, LazyTensor):
                found.append(value)
            elif isinstance(value, dict):
                waiting += value.values()
            elif isinstance(value, (list, tuple)):
                waiting += value
    return found


@BOTH
def test_tensors_equal_those_of_torch_load(tmp_path, zipped):
    torch.manual_seed(1)
    base = torch.randn(4, 5, 6)
    saved = {
        str(dtype): (base * 9).to(dtype)
        for dtype in (
            torch.float64,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int32,
            torch.int16,
            torch.int8,
            torch.bool,
            torch.complex64,
        )
    }
    saved |= {
        'bytes': torch.arange(9, dtype=torch.uint8),
        'whole': base,
        'part': base[1:3, ::2, 3],
        'turned': base.permute(2, 0, 1),
        'flat': base.flatten()[7:11],
        'wide': torch.ones(1).expand(1000, 1000),
        'scalar': torch.tensor(2.5),
        'nothing': torch.zeros(0, 3),
        'nowhere': base[4:],
        'parameter': torch.nn.Parameter(base[0]),
        3: [base.sum(), (base.mean(), None, 1.5, 1 << 70, 'ü')],
    }
    saved['ordered'] = OrderedDict(a=base.mT, b=OrderedDict(c=True))
    torch.save(saved, tmp_path / 'file', _use_new_zipfile_serialization=zipped)
    file = read_torch_file(tmp_path / 'file')
    assert file.placeholders == ()
    wanted = torch.load(tmp_path / 'file', weights_only=True)

    def compare(got, want):
        if isinstance(want, torch.Tensor):
            assert isinstance(got, LazyTensor) and got.shape == tuple(want.shape) and got.dtype == want.dtype
            value = got.read()
            assert value.stride() == want.stride() and value.dtype == want.dtype
            torch.testing.assert_close(value, want.detach(), rtol=0, atol=0)
        elif isinstance(want, (dict, list, tuple)):
            assert type(got) is type(want) and len(got) == len(want)
            pairs = zip(got.values(), want.values()) if isinstance(want, dict) else zip(got, want)
            assert not isinstance(want, dict) or list(got) == list(want)
            for pair in pairs:
                compare(*pair)
        else:
            assert type(got) is type(want) and got == want

    compare(file.tree, wanted)
    assert (tmp_path / 'file').stat().st_size < 60_000  # the wide tensor is one number


def test_plain_values_of_torch_and_python(tmp_path):
    saved = {
        'size': torch.Size([2, 3]),
        'device': torch.device('cuda:1'),
        'dtype': torch.bfloat16,
        'set': {1, 'a'},
        'bytes': b'\x00\xff',
        'bytearray': bytearray(b'ab'),
        'tuple': (),
        'big': 1 << 80,
        'key': {(1, 'a'): 2},
    }
    torch.save(saved, tmp_path / 'file')
    assert read_torch_file(tmp_path / 'file').tree == saved | {'device': 'cuda:1', 'bytearray': b'ab'}


def test_unaligned_records_are_copied(tmp_path, good):
    shifts = set()
    for shift in range(4):  # bytes after the end of the program are not read
        found = read_torch_file(archive(tmp_path / 'file', good + b'\0' * shift)).tree['w']
        assert torch.equal(found.read(), WEIGHTS) and found.read().data_ptr() % 4 == 0
        shifts.add(found.storage.start % 4)
    assert shifts == {0, 1, 2, 3}


def test_only_what_is_asked_for_is_read(tmp_path):
    torch.save({'a': WEIGHTS, 'b': WEIGHTS + 1}, tmp_path / 'file')
    data = bytearray((tmp_path / 'file').read_bytes())
    data[data.index((WEIGHTS + 1).numpy().tobytes()) + 9] ^= 1
    (tmp_path / 'file').write_bytes(data)
    tree = read_torch_file(tmp_path / 'file').tree
    assert torch.equal(tree['a'].read(), WEIGHTS)
    with pytest.raises(ValueError, match='checksum'):
        tree['b'].read()


def test_archives_without_checksums(tmp_path):
    config = torch.utils.serialization.config
    with config.patch('save.compute_crc32', False):
        torch.save({'w': WEIGHTS}, tmp_path / 'file')
    assert torch.equal(read_torch_file(tmp_path / 'file').tree['w'].read(), WEIGHTS)


@BOTH
def test_a_lightning_file_with_objects_of_absent_packages(tmp_path, monkeypatch, zipped):
    module = types.ModuleType('omegaconf.dictconfig')
    module.DictConfig = type('DictConfig', (), {'__module__': 'omegaconf.dictconfig'})
    for key, value in (('omegaconf', types.ModuleType('omegaconf')), ('omegaconf.dictconfig', module)):
        monkeypatch.setitem(sys.modules, key, value)
    config = module.DictConfig()
    config.lr, config.again = 1e-5, config
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    saved = {
        'epoch': 3,
        'state_dict': layer.state_dict(),
        'hyper_parameters': {'config': config},
        'optimizer_states': [optimizer.state_dict()],
        'args': argparse.Namespace(model='x'),
        'callbacks': {module.DictConfig: {'best': WEIGHTS[0]}},
        config: 1,
    }
    torch.save(saved, tmp_path / 'file', _use_new_zipfile_serialization=zipped)
    monkeypatch.undo()
    assert 'omegaconf' not in sys.modules
    file = read_torch_file(tmp_path / 'file')
    assert 'omegaconf' not in sys.modules
    assert file.placeholders == ('argparse.Namespace', 'omegaconf.dictconfig.DictConfig')
    assert isinstance(file.tree['hyper_parameters']['config'], Placeholder) and file.tree['epoch'] == 3
    assert torch.equal(file.tree['state_dict']['weight'].read(), layer.weight)
    state = file.tree['optimizer_states'][0]['state'][0]
    assert torch.equal(state['exp_avg'].read(), optimizer.state_dict()['state'][0]['exp_avg'])


def test_other_archives(tmp_path, good):
    assert 'compressed' in error_of(archive(tmp_path / 'a', good, compression=zipfile.ZIP_DEFLATED))
    for size in (23, 25):
        assert 'announced' in error_of(archive(tmp_path / 'b', good, b'\0' * size))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with zipfile.ZipFile(archive(tmp_path / 'c', good), 'a') as file:
            file.writestr('x/data/0', b'\0' * 24)
    assert 'twice' in error_of(tmp_path / 'c')
    for entry, wanted in (
        ('x/constants.pkl', 'TorchScript'),
        ('y/data.pkl', 'without one'),
        ('x/byteorder', 'big-endian'),
    ):
        with zipfile.ZipFile(archive(tmp_path / 'd', good), 'a') as file:
            file.writestr(entry, b'big')
        assert wanted in error_of(tmp_path / 'd')
    with zipfile.ZipFile(tmp_path / 'e', 'w') as file:
        file.writestr('other', b'')
    assert 'not a torch file' in error_of(tmp_path / 'e')


def test_other_files(tmp_path):
    assert 'no file' in error_of(tmp_path / 'absent') and 'no file' in error_of(tmp_path)
    for content, wanted in (
        (b'', 'empty'),
        (b'<html>', 'not a torch file'),
        (b'PK\x03\x04', 'archive'),
        (pickle.dumps({}), 'not a torch file'),
        (b'\0' * 257 + b'ustar' + b'\0' * 900, 'tar format'),
    ):
        (tmp_path / 'file').write_bytes(content)
        assert wanted in error_of(tmp_path / 'file')
    os.mkfifo(tmp_path / 'fifo')
    assert 'no file' in error_of(tmp_path / 'fifo')


def outcome(path):
    """Reads a damaged file and all its tensors; all but a value or a one-line ValueError fails the test."""
    try:
        for found in tensors_of(read_torch_file(path).tree):
            found.read()
        return 'value'
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) < 400 + len(str(path))
        return 'error'


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    """Both formats of one checkpoint, and the program of the zip archive."""
    folder = tmp_path_factory.mktemp('sample')
    saved = {
        'state_dict': OrderedDict((f'layer{i}.weight', torch.randn(3, i + 1)) for i in range(6)),
        'args': argparse.Namespace(lr=1e-3, betas=(0.9, 0.99)),
        'more': [{1, 2}, b'ab', torch.Size([1])],
        'epoch': 1.5,
    }
    torch.save(saved, folder / 'zip')
    torch.save(saved, folder / 'stream', _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / 'zip') as file:
        return {
            'zip': (folder / 'zip').read_bytes(),
            'stream': (folder / 'stream').read_bytes(),
            'program': file.read('zip/data.pkl'),
            'entries': {n: file.read(n) for n in file.namelist()},
        }


@pytest.mark.parametrize('kind', ['zip', 'stream'])
def test_truncated_files_are_errors(tmp_path, sample, kind):
    data = sample[kind]
    (tmp_path / 'file').write_bytes(data)
    assert outcome(tmp_path / 'file') == 'value'
    for cut in random.Random(1).sample(range(len(data)), 200):
        (tmp_path / 'file').write_bytes(data[:cut])
        assert outcome(tmp_path / 'file') == 'error', cut


def test_storages_of_the_stream_are_as_long_as_announced(tmp_path):
    torch.save({'w': WEIGHTS}, tmp_path / 'file', _use_new_zipfile_serialization=False)
    data = (tmp_path / 'file').read_bytes()
    assert data[-32:-24] == (6).to_bytes(8, 'little')
    for changed in (data[:-1], data[:-32] + (5).to_bytes(8, 'little') + data[-24:]):
        (tmp_path / 'file').write_bytes(changed)
        assert 'truncated or not as long' in error_of(tmp_path / 'file')


@pytest.mark.parametrize('kind', ['zip', 'stream', 'program'])
def test_flipped_bytes_are_values_or_errors(tmp_path, sample, kind):
    """In 'program' the archive around the flipped pickle is sound, so the interpreter sees it."""
    rng = random.Random(2)
    outcomes = []
    for _ in range(300):
        data = bytearray(sample[kind])
        for _ in range(rng.choice((1, 1, 3))):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        if kind == 'program':
            with zipfile.ZipFile(tmp_path / 'file', 'w') as file:
                for entry, content in sample['entries'].items():
                    file.writestr(entry, bytes(data) if entry == 'zip/data.pkl' else content)
        else:
            (tmp_path / 'file').write_bytes(data)
        outcomes.append(outcome(tmp_path / 'file'))
    assert {'value', 'error'} == set(outcomes)


@pytest.mark.parametrize(
    'odd',
    [
        torch.zeros(3, dtype=torch.uint32),
        torch.zeros(3).to(torch.float8_e4m3fn),
        torch.zeros(3, dtype=torch.uint64).reshape(3, 1),
        torch.nn.Parameter(torch.zeros(3)),
        torch.zeros(3).to_sparse(),
    ],
    ids=lambda odd: str(odd.dtype),
)
def test_odd_types_of_an_optimizer_do_no_harm(tmp_path, odd):
    torch.save({'model': {'w': WEIGHTS}, 'optimizer': {'state': {0: odd}}}, tmp_path / 'file')
    tree = read_torch_file(tmp_path / 'file').tree
    assert torch.equal(tree['model']['w'].read(), WEIGHTS)
    found = tree['optimizer']['state'][0]
    if isinstance(found, LazyTensor):
        assert torch.equal(found.read().view(torch.uint8), odd.detach().view(torch.uint8))
    else:
        assert isinstance(found, Placeholder)


def test_tensors_that_share_a_storage_take_their_own_part_of_it(tmp_path):
    whole = torch.arange(1000.0)
    torch.save(
        {'a': whole[10:20], 'b': whole[::100], 'c': whole[:1].expand(5), 'd': whole[3:3]}, tmp_path / 'f'
    )
    tree = read_torch_file(tmp_path / 'f').tree
    assert tree['a'].count == 10 and tree['c'].count == 1 and tree['d'].count == 0
    for name, expected in (('a', whole[10:20]), ('b', whole[::100]), ('c', torch.zeros(5)), ('d', whole[:0])):
        assert torch.equal(tree[name].read(), expected), name
