"""The state of a run as a folder of small files."""

import json
import os
from pathlib import Path

import pytest
import torch

from gsemsplat_ros.training import state
from gsemsplat_ros.training.state import load_state, save_state

FACTS = {'pairs': 12, 'hours': {'a machine': 0.5}}


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        'weights/conv.weight': torch.randn(6, 4, 3, 3, generator=generator).to(
            memory_format=torch.channels_last
        ),
        'weights/wide': torch.randn(3000, 2000, generator=generator),  # 24 MB: more than a file holds
        'optimizer/conv.weight/step': torch.tensor(7.0),
        'half': torch.randn(5, generator=generator).bfloat16(),
        'count': torch.tensor([2**40, -1]),
        'seen': torch.tensor([True, False]),
        'empty': torch.zeros(0, 3),
    }


def assert_same(loaded, step, expected):
    assert loaded[0] == step and loaded[2] == FACTS and loaded[1].keys() == expected.keys()
    for name, tensor in expected.items():
        assert loaded[1][name].dtype == tensor.dtype and torch.equal(loaded[1][name], tensor), name


def test_small_files_join_into_the_same_state(tmp_path):
    save_state(tmp_path / 'state', 5, tensors(), FACTS)
    sizes = [path.stat().st_size for path in (tmp_path / 'state').iterdir()]
    assert len(sizes) == 5 and max(sizes) <= 12 * 2**20 and sum(sizes) > 24e6
    carried = tmp_path / 'elsewhere'  # one by one, in whatever order
    carried.mkdir()
    for path in sorted((tmp_path / 'state').iterdir(), reverse=True):
        (carried / path.name).write_bytes(path.read_bytes())
    assert_same(load_state(carried), 5, tensors())
    assert load_state(tmp_path / 'absent') is None


def test_a_newer_state_takes_the_place_of_the_old_one(tmp_path):
    save_state(tmp_path, 5, tensors(), FACTS)
    save_state(tmp_path, 9, tensors(1), FACTS)
    assert_same(load_state(tmp_path), 9, tensors(1))
    assert {path.name[:8] for path in tmp_path.glob('*.safetensors')} == {'00000009'}


@pytest.mark.parametrize('writes', [0, 1, 2, 3])
def test_a_crash_between_files_leaves_the_previous_state(tmp_path, monkeypatch, writes):
    save_state(tmp_path, 5, tensors(), FACTS)
    left = [writes]

    def save(part, shard):
        left[0] -= 1
        if left[0] < 0:
            raise OSError('no space left on device')
        genuine(part, shard)

    def replace(source, target):
        if Path(target).name == state.INDEX:
            raise OSError('killed')
        rename(source, target)

    genuine, rename = state.write_tensor_file, os.replace
    monkeypatch.setattr(state, 'write_tensor_file', save)
    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(OSError):
        save_state(tmp_path, 9, tensors(1), FACTS)
    assert_same(load_state(tmp_path), 5, tensors())
    monkeypatch.undo()
    save_state(tmp_path, 10, tensors(1), FACTS)  # and the leftovers go
    assert_same(load_state(tmp_path), 10, tensors(1))
    assert {path.name[:8] for path in tmp_path.glob('*.safetensors')} == {'00000010'}


def test_the_files_in_use_are_never_written_again(tmp_path, monkeypatch):
    save_state(tmp_path, 5, tensors(), FACTS)
    monkeypatch.setattr(state, 'write_tensor_file', lambda *_: pytest.fail('wrote'))
    save_state(tmp_path, 5, tensors(), FACTS)


def test_a_state_that_is_not_whole_says_which_file(tmp_path):
    save_state(tmp_path, 5, tensors(), FACTS)
    cut = tmp_path / '00000005-001.safetensors'
    content = cut.read_bytes()
    for broken in (content[:-1], content[:3], b''):
        cut.write_bytes(broken)
        with pytest.raises(
            ValueError, match='00000005-001.safetensors cannot be read .*bring the whole folder again'
        ):
            load_state(tmp_path)
    cut.unlink()
    with pytest.raises(
        ValueError, match='00000005-001.safetensors cannot be read .No such file or directory'
    ):
        load_state(tmp_path)
    cut.write_bytes(content)
    assert_same(load_state(tmp_path), 5, tensors())
    for text in ('{', '[]', '{}', json.dumps({'step': 5, 'facts': {}, 'files': [], 'shapes': {'a': [1]}})):
        (tmp_path / 'index.json').write_text(text)
        with pytest.raises(ValueError, match='index.json cannot be read'):
            load_state(tmp_path)
