"""State dicts in files of others: found by their names, and one line for whatever does not fit."""

import io
import random
from collections import Counter

import pytest
import torch
from safetensors.torch import save

from gsemsplat_ros.checkpoints.state_dict import entries, find, is_average, read_state_dict, split

TRIALS = 1000


@pytest.fixture
def module():
    torch.manual_seed(0)
    return torch.nn.ModuleDict({'encoder': torch.nn.Linear(8, 8), 'head': torch.nn.Linear(8, 4)})


def torch_bytes(value, **options):
    data = io.BytesIO()
    torch.save(value, data, **options)
    return data.getvalue()


def written(path, data):
    path.write_bytes(data)
    return path


def test_a_name_begins_at_the_first_root():
    roots = {'encoder', 'head'}
    assert split(('model', 'module', 'encoder', '_orig_mod', 'weight'), roots) == (
        'model.module.',
        'encoder.weight',
    )
    assert split(('encoder', 'head', 'module', 'bias'), roots) == ('', 'encoder.head.bias')
    assert split(('optimizer', 'step'), roots) is None


def test_averages_are_known_by_a_word_of_their_name():
    assert all(map(is_average, ('model_ema.', 'ema.', 'state_dict.ema_model.module.', 'EMA.', 'swa_model.')))
    assert not any(map(is_average, ('', 'model.', 'schema.', 'hemanth.', 'cinema.net.')))


def test_a_tree_that_contains_itself_ends():
    tree = {'a': {'b': torch.zeros(1)}}
    tree['a']['again'] = tree
    assert [entry.path for entry in entries(tree)] == [('a', 'b')]
    deep = {}
    for _ in range(1000):
        deep = {'a': deep}
    assert len(list(entries(deep))) == 1
    assert list(entries([1, 2])) == [] and find(3, {'encoder'}) is None


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'model': state},
        lambda state: {'state_dict': {f'module.{name}': tensor for name, tensor in state.items()}},
        lambda state: {'net': {'a': {f'x.{name}': tensor for name, tensor in state.items()}}, 'epoch': 1},
    ],
)
def test_the_tensors_of_a_module(tmp_path, module, wrap):
    data = torch_bytes(wrap(module.state_dict()))
    found = read_state_dict(written(tmp_path / 'a', data), module)
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda state: state.pop('head.bias'), 'head.bias is missing$'),
        (lambda state: [state.pop('head.bias'), state.pop('head.weight')], r'is missing \(and 1 more\)$'),
        (lambda state: state.update({'head.more': torch.zeros(1)}), 'head.more is no part of it$'),
        (
            lambda state: state.update({'head.bias': torch.zeros(5)}),
            r'head.bias has shape \(5,\), wanted \(4,\)',
        ),
        (
            lambda state: state.update({'head.bias': torch.full((4,), torch.nan)}),
            '4 of the 4 numbers of head.bias',
        ),
        (lambda state: state.clear(), 'no state dict'),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, module, change, said):
    state = dict(module.state_dict())
    change(state)
    with pytest.raises(ValueError, match=said) as error:
        read_state_dict(written(tmp_path / 'a', torch_bytes(state)), module)
    assert '\n' not in str(error.value) and str(tmp_path / 'a') in str(error.value)


def test_a_tensor_of_several_names_may_be_there_once(tmp_path, module):
    module['again'] = module['head']
    state = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith('head.')}
    found = read_state_dict(written(tmp_path / 'a', save(state)), module)
    assert found.keys() == module.state_dict().keys()
    assert torch.equal(found['head.bias'], module['again'].bias)


def test_more_than_the_module_knows_is_left_out_on_request(tmp_path, module):
    data = save({**module.state_dict(), 'head.more': torch.zeros(1)})
    with pytest.raises(ValueError, match='head.more is no part of it'):
        read_state_dict(written(tmp_path / 'a', data), module)
    assert read_state_dict(tmp_path / 'a', module, more=True).keys() == module.state_dict().keys()


def test_damaged_files_are_the_tensors_or_one_line(tmp_path, module):
    state, rng, outcomes = module.state_dict(), random.Random(0), Counter()
    wrapped = {
        'state_dict': {f'module.{name}': tensor for name, tensor in state.items()},
        'optimizer': {0: torch.zeros(3, dtype=torch.uint32)},
    }
    good = torch_bytes(wrapped), torch_bytes(state, _use_new_zipfile_serialization=False), save(state)
    for whole in good:
        for trial in range(TRIALS):
            data = bytearray(whole)
            if trial % 4 == 0:
                del data[rng.randrange(len(data)) :]
            elif trial % 4 == 1:
                start = rng.randrange(len(data))
                data[start : start + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
            else:
                for _ in range(rng.randrange(1, 6)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                read_state_dict(written(tmp_path / 'a', data), module)
                outcomes['tensors'] += 1
            except ValueError as error:
                assert '\n' not in str(error)
                outcomes['line'] += 1
    assert outcomes['tensors'] > TRIALS / 10 and outcomes['line'] > TRIALS
