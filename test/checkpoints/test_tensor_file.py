"""The reader of safetensors files: values as saved, one line for anything else, and nothing stays mapped."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import gsemsplat_ros
from gsemsplat_ros.checkpoints.tensor_file import DTYPES, read_tensor_file, write_tensor_file
from gsemsplat_ros.files import write_whole

PACKAGE = Path(gsemsplat_ros.__file__).parent


def one_of_each() -> dict[str, torch.Tensor]:
    values = torch.arange(24).reshape(2, 3, 4) % 2
    tensors = {kind: values.to(dtype) for kind, dtype in DTYPES.items()}
    return {**tensors, 'none': torch.zeros(0, 5), 'scalar': torch.tensor(3.0)}


def test_values_types_and_texts_are_those_that_were_saved(tmp_path):
    saved = one_of_each()
    (tmp_path / 'a').write_bytes(save(saved, {'x': 'text'}))
    file = read_tensor_file(tmp_path / 'a')
    assert file.metadata == {'x': 'text'} and file.tensors.keys() == saved.keys()
    for name, tensor in file.read().items():
        assert tensor.dtype == saved[name].dtype == file.tensors[name].dtype, name
        assert tensor.shape == saved[name].shape == torch.Size(file.tensors[name].shape), name
        same = tensor.flatten().view(torch.uint8), saved[name].flatten().view(torch.uint8)
        assert torch.equal(*same), name


def test_what_is_written_is_what_the_library_reads(tmp_path):
    saved = {**one_of_each(), 'turned': torch.rand(3, 4).T, 'parameter': torch.nn.Parameter(torch.rand(2))}
    path = tmp_path / 'a'
    with write_whole(path) as part:
        inode = part.stat().st_ino
        write_tensor_file(part, saved, {'x': 'täxt'})
        assert part.stat().st_ino == inode  # the file that is locked, with the mode of any new file
    assert load(path.read_bytes()).keys() == saved.keys()
    for read in (load(path.read_bytes()), read_tensor_file(path).read()):
        for name, tensor in saved.items():
            assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape, name
            same = (each.detach().contiguous().flatten().view(torch.uint8) for each in (read[name], tensor))
            assert torch.equal(*same), name
    assert read_tensor_file(path).metadata == {'x': 'täxt'}
    write_tensor_file(path, {})
    assert load(path.read_bytes()) == read_tensor_file(path).read() == {}


def test_the_digest_is_of_the_tensors_alone(tmp_path):
    for name, metadata in (('a', {'x': '1'}), ('b', None)):
        (tmp_path / name).write_bytes(save(one_of_each(), metadata))
    (tmp_path / 'c').write_bytes(save({**one_of_each(), 'scalar': torch.tensor(3.5)}))
    a, b, c = (read_tensor_file(tmp_path / name).digest() for name in 'abc')
    assert a == b != c


def written(path, header, data=b''):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + data)
    return path


def entry(**changes):
    return {'t': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8], **changes}}


@pytest.mark.parametrize(
    'header, data, said',
    [
        (b'', b'', 'no JSON'),
        (b'[' * 100_000, b'', 'no JSON'),
        (b'\xff\xfe', b'', 'no JSON'),
        ([1], b'', 'no JSON object'),
        ({'__metadata__': {'a': 3}}, b'', 'metadata are no texts'),
        ({'__metadata__': 'a'}, b'', 'metadata are no texts'),
        ({'t': 3}, b'', 'makes no sense'),
        (entry(shape=[3]), bytes(8), 'makes no sense'),
        (entry(shape=[-1, -2]), bytes(8), 'makes no sense'),
        (entry(shape=[True, 2]), bytes(8), 'makes no sense'),
        (entry(shape=[2.0]), bytes(8), 'makes no sense'),
        (entry(shape=[1] * 70 + [2]), bytes(8), 'makes no sense'),
        (entry(shape=[1 << 40], data_offsets=[0, 4 << 40]), bytes(8), 'makes no sense'),
        (entry(data_offsets=[-8, 0]), bytes(8), 'makes no sense'),
        (entry(data_offsets=[8, 16]), bytes(16), 'overlap or leave gaps'),
        (entry() | {'u': entry()['t']}, bytes(8), 'overlap or leave gaps'),
        (entry(), bytes(7), 'makes no sense|announces'),
        (entry(), bytes(9), 'announces'),
    ],
)
def test_other_headers_are_refused(tmp_path, header, data, said):
    with pytest.raises(ValueError, match=said) as error:
        read_tensor_file(written(tmp_path / 'a', header, data))
    assert '\n' not in str(error.value)


def test_other_files_are_refused(tmp_path):
    for data in (b'', b'1234567', struct.pack('<Q', 1 << 62) + b'{}', struct.pack('<Q', 1 << 20) + b'{}'):
        (tmp_path / 'a').write_bytes(data)
        with pytest.raises(ValueError, match='ends before|not a safetensors'):
            read_tensor_file(tmp_path / 'a')
    for path in (tmp_path, tmp_path / 'missing'):
        with pytest.raises(ValueError, match='directory'):
            read_tensor_file(path)


def test_unknown_types_are_skipped_until_one_is_wanted(tmp_path):
    header = entry(dtype='F4_STRANGE') | {'u': {'dtype': 'F32', 'shape': [1], 'data_offsets': [8, 12]}}
    file = read_tensor_file(written(tmp_path / 'a', header, bytes(8) + np.float32(2).tobytes()))
    assert file.tensors['u'].read() == torch.tensor([2.0]) and file.tensors['t'].dtype is None
    with pytest.raises(ValueError, match="t: a tensor of type 'F4_STRANGE' is not read"):
        file.read()


def test_flipped_bytes_of_the_header_are_values_or_errors(tmp_path):
    data, rng = save(one_of_each(), {'x': 'text'}), np.random.default_rng(0)
    end = 8 + struct.unpack('<Q', data[:8])[0]
    for _ in range(2000):
        broken = bytearray(data)
        for place in rng.integers(0, end, rng.integers(1, 4)):
            broken[place] ^= rng.integers(1, 256)
        (tmp_path / 'a').write_bytes(broken)
        try:
            read_tensor_file(tmp_path / 'a').read()
        except ValueError as error:
            assert '\n' not in str(error)


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
    (tmp_path / 'a').write_bytes(save({'t': torch.ones(1000)}))
    file = read_tensor_file(tmp_path / 'a')
    with open(tmp_path / 'a', 'r+b') as changed:
        changed.truncate(500)
    with pytest.raises(ValueError, match='t: the file ends before'):
        file.read()


OVERWRITTEN = """
import sys
from pathlib import Path

import numpy as np
import torch
{imports}
path = Path(sys.argv[1])
{load}
before = [tensor.clone() for tensor in tensors]
size = path.stat().st_size
for data in (bytes(4096), b'', bytes(size), np.random.default_rng(0).bytes(size)):
    path.write_bytes(data)  # in place, as cp and scp do
    assert all(torch.equal(a, b) for a, b in zip(before, tensors))
print('alive', sum(tensor.numel() for tensor in tensors))
"""
LOADS = {
    'checkpoint': (
        'from gsemsplat_ros.checkpoints.checkpoint import load',
        'loaded = load(path); tensors = [*loaded.model.state_dict().values(), *loaded.decoders.values()]',
    ),
    'map': (
        'from gsemsplat_ros.mapping.map_file import read_map',
        'm, _ = read_map(path); w = m.whole; g = w.gaussians; '
        'tensors = [w.keys, w.weights, w.counts, w.last_seen, '
        'g.means, g.quats, g.scales, g.opacities, g.colors, g.codes]',
    ),
    'torch file': (
        'from gsemsplat_ros.checkpoints.torchfile import read_torch_file',
        'tensors = [each.read() for each in read_torch_file(path).tree.values()]',
    ),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A file of each kind, in single precision, which needs no conversion on loading."""
    from support.tiny_network import TINY
    from support.word_maps import HERE, scene_cloud

    from gsemsplat_ros.checkpoints.checkpoint import save as save_checkpoint
    from gsemsplat_ros.mapping.map import Map
    from gsemsplat_ros.mapping.map_file import save_map
    from gsemsplat_ros.network.model import GSemSplat
    from gsemsplat_ros.scene.coded_file import CodeSpace

    folder = tmp_path_factory.mktemp('files')
    state = GSemSplat(TINY).state_dict()
    save_checkpoint(folder / 'checkpoint', state, {'config': TINY.to_json(), 'text_encoder': None})
    map_ = Map.empty('map', 0.05).merged(scene_cloud(0), HERE, 10**6, 'tf')
    save_map(folder / 'map', map_, CodeSpace('', '', '', 32))
    torch.save(state, folder / 'torch file')
    return folder


@pytest.mark.parametrize('kind', LOADS)
def test_a_loaded_file_may_be_overwritten_in_place(files, kind):
    """`cp` over a mapped file ends the process by SIGBUS, or changes the values in use."""
    imports, load = LOADS[kind]
    program = OVERWRITTEN.format(imports=imports, load=load)
    command = [sys.executable, '-c', program, files / kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stdout.startswith('alive'), done.stderr[-2000:]


def test_this_is_the_only_reader():
    others = re.compile(r'safetensors import|safetensors\.torch import|torch\.load\(|import mmap')
    found = [str(path) for path in PACKAGE.rglob('*.py') if others.search(path.read_text())]
    assert not found, f'read files by checkpoints/tensor_file.py or torchfile.py, which map nothing: {found}'
