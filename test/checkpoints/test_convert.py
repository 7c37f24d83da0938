"""Public files become our safetensors key by key; what is missing, left over or wrong is named."""

import argparse
import hashlib
import json
import os
import sys
import types
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints import convert as module
from gsemsplat_ros.checkpoints.convert import LICENCE, LINEAGE, convert
from gsemsplat_ros.checkpoints.licences import stated, united
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat

LARGE = NetworkConfig.large
DECODER_WIDTHS = (16, 32, 64, 512)


def tiny(kind='gsemsplat'):
    return LARGE(kind).replace(
        enc_dim=16,
        enc_depth=1,
        enc_heads=2,
        dec_dim=8,
        dec_depth=4,
        dec_heads=2,
        layer_dims=(4, 4, 8, 8),
        dpt_dim=4,
        last_dim=4,
    )


@pytest.fixture
def tiny_large(monkeypatch):
    """`NetworkConfig.large` with the public heads but a few channels."""
    monkeypatch.setattr(NetworkConfig, 'large', staticmethod(tiny))


def network(config):
    """Random weights, with the duplicates that the public modules list."""
    torch.manual_seed(1)
    state = GSemSplat(config).state_dict()
    for key in list(state):
        state[key] = torch.randn(state[key].shape)
    for key in list(state):
        if '.scratch.layer' in key:
            level = int(key.split('.scratch.layer')[1][0])
            state[key.replace(f'layer{level}_rn', f'layer_rn.{level - 1}')] = state[key]
    return state


def decoders(widths=DECODER_WIDTHS):
    tensors = {}
    for prefix in ('language_decoder_sam.', 'language_decoder_patch.'):
        for i, (before, after) in enumerate(pairwise(widths)):
            tensors[f'{prefix}{2 * i}.weight'] = torch.randn(after, before, 1, 1)
            tensors[f'{prefix}{2 * i}.bias'] = torch.randn(after)
    return tensors


def lightning(state, **more):
    """A Lightning file as the public ones: prefix, training loss, foreign objects, optimizer states."""
    entries = {f'encoder.{key}': value for key, value in state.items()}
    entries['lpips_criterion.lin0.model.1.weight'] = torch.ones(1, 64, 1, 1)
    return {
        'epoch': 19,
        'state_dict': entries | more,
        'hyper_parameters': argparse.Namespace(lr=1e-5),
        'optimizer_states': [{'state': {0: {'m': torch.ones(5)}}}],
    }


def duplicates(state):
    return tuple(sorted(key for key in state if '.scratch.layer_rn.' in key))


def error_of(source, target):
    with pytest.raises(ValueError) as error:
        convert(source, target)
    assert '\n' not in str(error.value) and str(source) in str(error.value) and not target.exists()
    assert os.listdir(target.parent) == [source.name]
    return str(error.value)


def test_gsemsplat(tmp_path, tiny_large):
    state, semantic = network(tiny()), decoders()
    extra = {'benchmarker.time': torch.ones(1), 'decoder.note': 'text'}
    source, target = tmp_path / 'epoch=11.ckpt', tmp_path / 'out.safetensors'
    torch.save(lightning(state, **semantic, **extra, **{'encoder.other': torch.ones(2)}), source)
    report = convert(source, target)
    assert report.kind == 'gsemsplat' and report.missing == ()
    assert report.placeholders == ('argparse.Namespace',)
    assert report.left_over == ('benchmarker.time', 'decoder.note', 'encoder.other')
    assert len(duplicates(state)) == 24
    assert report.dropped == tuple(
        sorted(['lpips_criterion.lin0.model.1.weight', *(f'encoder.{key}' for key in duplicates(state))])
    )
    checkpoint = weights.load(target)
    loaded = checkpoint.model.state_dict()
    assert report.written == tuple(sorted((*loaded, *semantic)))
    assert loaded.keys() == state.keys() - duplicates(state)
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
    assert checkpoint.decoders.keys() == semantic.keys()
    assert all(torch.equal(checkpoint.decoders[key], semantic[key]) for key in semantic)
    assert checkpoint.card == {
        'config': json.loads(json.dumps(tiny().to_json())),
        'kind': 'gsemsplat',
        'text_encoder': 'openclip:ViT-B-16',
        'licence': LICENCE,
        'licences': united(stated(*LINEAGE['gsemsplat'])),
        'source': {'file': 'epoch=11.ckpt', 'sha256': hashlib.sha256(source.read_bytes()).hexdigest()},
    }


def test_splatt3r(tmp_path, tiny_large):
    state = network(tiny('splatt3r'))
    torch.save(lightning(state), tmp_path / 'in')
    report = convert(tmp_path / 'in', tmp_path / 'out')
    assert report.kind == 'splatt3r' and report.left_over == ()
    assert len(report.missing) == 2 * 64 and all('.gaussian_language.dpt.' in key for key in report.missing)
    checkpoint = weights.load(tmp_path / 'out')
    assert checkpoint.card['text_encoder'] is None and not checkpoint.decoders
    assert all(torch.equal(value, state[key]) for key, value in checkpoint.model.state_dict().items())


@pytest.mark.parametrize('form', ['model', 'bare', 'safetensors', 'stream'])
def test_mast3r_without_its_second_decoder(tmp_path, tiny_large, form):
    """In every form that such a file may have; the second decoder becomes a copy of the first."""
    state = network(tiny('mast3r'))
    state = {key: value for key, value in state.items() if not key.startswith('dec_blocks2')}
    source = tmp_path / ('in.safetensors' if form == 'safetensors' else 'in.pth')
    if form == 'safetensors':
        save_file({key: value.clone() for key, value in state.items()}, source)
    else:
        saved = state if form == 'bare' else {'model': state, 'args': argparse.Namespace(model='x')}
        torch.save(saved, source, _use_new_zipfile_serialization=form != 'stream')
    report = convert(source, tmp_path / 'out')
    assert report.kind == 'mast3r' and report.left_over == () and report.dropped == duplicates(state)
    assert report.placeholders == (('argparse.Namespace',) if form in ('model', 'stream') else ())
    assert {key.split('.')[1] for key in report.missing} == {'gaussian_dpt', 'gaussian_language'}
    loaded = weights.load(tmp_path / 'out').model.state_dict()
    for key, value in loaded.items():
        assert torch.equal(value, state[key.replace('dec_blocks2', 'dec_blocks')]), key


def test_decoders_of_another_kind_are_left_over(tmp_path, tiny_large):
    torch.save(lightning(network(tiny('splatt3r')), **decoders()), tmp_path / 'in')
    assert convert(tmp_path / 'in', tmp_path / 'out').left_over == tuple(sorted(decoders()))


def test_half_precision_and_shared_tensors(tmp_path, tiny_large):
    state = {key: value.half() for key, value in network(tiny('mast3r')).items()}
    twins = [key for key in state if key.startswith('dec_blocks.') and key.endswith('.weight')]
    for key in twins:
        state[key.replace('dec_blocks', 'dec_blocks2', 1)] = state[key]
    state['mask_token'] = state['mask_token'].mT.contiguous().mT
    torch.save({'model': state}, tmp_path / 'in')
    convert(tmp_path / 'in', tmp_path / 'out')
    loaded = load_file(tmp_path / 'out')
    assert twins and all(value.dtype == torch.float16 for value in loaded.values())
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize('kind', ['mast3r', 'splatt3r', 'gsemsplat'])
def test_the_real_sizes(tmp_path, monkeypatch, kind):
    """All names and shapes of the public networks, with tensors of one number each; no 3 GB are written."""
    one = torch.ones(1)
    state = {key: one.expand(shape) for key, shape in weights.expected_shapes(LARGE(kind)).items()}
    torch.save(lightning(state, **(decoders() if kind == 'gsemsplat' else {})), tmp_path / 'in')
    assert (tmp_path / 'in').stat().st_size < 2e6
    written = {}
    monkeypatch.setattr(module, '_read', lambda source, tensors: {k: t.read() for k, t in tensors.items()})
    monkeypatch.setattr(weights, 'save', lambda path, tensors, card: written.update(tensors))
    report = convert(tmp_path / 'in', tmp_path / 'out')
    assert report.kind == kind
    numbers = sum(value.numel() for key, value in written.items() if not key.startswith('language'))
    assert numbers == {'mast3r': 688_638_856, 'splatt3r': 729_044_772, 'gsemsplat': 769_455_590}[kind]
    assert len(report.missing) == {'mast3r': 256, 'splatt3r': 128, 'gsemsplat': 0}[kind]


@pytest.mark.parametrize(
    'change, wanted',
    [
        (
            lambda s: [s.pop(k) for k in list(s) if 'enc_blocks' in k],
            'enc_blocks.0.norm1.weight is missing; ',
        ),
        (
            lambda s: s.update(mask_token=torch.ones(1, 2, 8)),
            'mask_token has shape (1, 2, 8), wanted (1, 1, 8)',
        ),
        (
            lambda s: s.update(mask_token=torch.ones(1, 1, 8, dtype=torch.int64)),
            'mask_token holds torch.int64',
        ),
        (lambda s: s.update(mask_token=None), 'mask_token is missing'),
        (lambda s: s.update(mask_token=argparse.Namespace()), 'mask_token is missing'),
        (
            lambda s: [s.pop(k) for k in list(s) if 'head_local_features' in k],
            'features.fc1.weight is missing',
        ),
    ],
)
def test_missing_and_wrong_keys_are_errors(tmp_path, tiny_large, change, wanted):
    state = network(tiny('splatt3r'))
    change(state)
    torch.save(lightning(state), tmp_path / 'in')
    error = error_of(tmp_path / 'in', tmp_path / 'out')
    assert 'is no whole splatt3r network' in error and wanted in error and len(error) < 500


@pytest.mark.parametrize(
    'semantic, wanted',
    [
        ({}, 'language_decoder_sam.* is missing; language_decoder_patch.* is missing'),
        (decoders((16, 64, 256)), 'wanted 16 to 512 channels'),
        (decoders((32, 512)), 'wanted 16 to 512 channels'),
        (decoders() | {'language_decoder_patch.2.weight': torch.ones(64, 31, 1, 1)}, 'patch.* leads through'),
        (decoders() | {'language_decoder_sam.1.weight': torch.ones(1).expand(1 << 40)}, 'wanted at most'),
    ],
)
def test_wrong_decoders_are_errors(tmp_path, tiny_large, semantic, wanted):
    torch.save(lightning(network(tiny()), **semantic), tmp_path / 'in')
    assert wanted in error_of(tmp_path / 'in', tmp_path / 'out')


def test_decoders_with_more_than_nine_layers_are_read_in_order(tmp_path, tiny_large):
    widths = (16, 20, 24, 28, 32, 36, 40, 512)  # layers 0, 2 ... 12: sorted as text, 10 would precede 2
    torch.save(lightning(network(tiny()), **decoders(widths)), tmp_path / 'in')
    assert convert(tmp_path / 'in', tmp_path / 'out').kind == 'gsemsplat'


@pytest.mark.parametrize(
    'saved, wanted',
    [
        ({'epoch': 1}, 'no state dict'),
        ([torch.ones(1)], 'no state dict'),
        (torch.ones(1), 'no state dict'),
        ({'state_dict': argparse.Namespace()}, 'no state dict'),
        ({'conv1.weight': torch.ones(3)}, 'no state dict of a MASt3R'),
        (torch.nn.Linear(2, 2), 'the Python object torch.nn.modules.linear.Linear: save its state_dict()'),
        ({'patch_embed.proj.weight': torch.ones(3)}, 'holds no MASt3R, Splatt3R or GSemSplat network'),
    ],
)
def test_foreign_files_are_errors(tmp_path, saved, wanted):
    torch.save(saved, tmp_path / 'in')
    assert wanted in error_of(tmp_path / 'in', tmp_path / 'out')


@pytest.mark.parametrize('suffix', ['.ckpt', '.safetensors'])
def test_damaged_files_are_errors_and_leave_nothing(tmp_path, tiny_large, suffix):
    source, state = tmp_path / f'in{suffix}', network(tiny('mast3r'))
    if suffix == '.ckpt':
        torch.save({'model': state}, source)
    else:
        save_file({key: value.clone() for key, value in state.items()}, source)
    data = source.read_bytes()
    for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
        source.write_bytes(data[:cut])
        error_of(source, tmp_path / 'out')
    if suffix == '.ckpt':  # one bit of one weight: the archive's checksum tells
        at = data.index(state['enc_norm.weight'].numpy().tobytes())
        source.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert 'enc_norm.weight' in error_of(source, tmp_path / 'out')


def test_a_folder_is_no_target(tmp_path):
    (tmp_path / 'in').write_text('never read')
    with pytest.raises(ValueError, match='is a folder: give the name of the .safetensors file'):
        convert(tmp_path / 'in', tmp_path)


def test_no_file_and_the_same_file(tmp_path, tiny_large):
    for name in ('absent.ckpt', 'absent.safetensors'):
        with pytest.raises(ValueError, match='no file at'):
            convert(tmp_path / name, tmp_path / 'out')
    torch.save({'model': network(tiny('mast3r'))}, tmp_path / 'in')
    with pytest.raises(ValueError, match='another name'):
        convert(tmp_path / 'in', tmp_path / 'in')


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_would_run_a_command_runs_nothing(tmp_path, tiny_large, monkeypatch):
    canary = tmp_path / 'canary'
    package = types.ModuleType('omegaconf.dictconfig')
    package.DictConfig = type('DictConfig', (), {'__module__': 'omegaconf.dictconfig'})
    monkeypatch.setitem(sys.modules, 'omegaconf', types.ModuleType('omegaconf'))
    monkeypatch.setitem(sys.modules, 'omegaconf.dictconfig', package)
    saved = lightning(network(tiny()), **decoders())
    saved['hyper_parameters'] = {'config': package.DictConfig(), 'run': Command(f'touch {canary}')}
    saved['state_dict']['encoder.run'] = Command(f'touch {canary}')
    torch.save(saved, tmp_path / 'in')
    torch.load(tmp_path / 'in', weights_only=False)
    assert canary.exists(), 'the payload is no payload'
    canary.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(NetworkConfig, 'large', staticmethod(tiny))
    report = convert(tmp_path / 'in', tmp_path / 'out')
    assert not canary.exists()
    assert report.placeholders == ('omegaconf.dictconfig.DictConfig', 'posix.system')
    assert report.left_over == ('encoder.run',)


WRAPPED = {
    'plain': ('', lambda state: state),
    'lightning': ('state_dict.', lambda state: {'state_dict': state}),
    'data parallel': ('state_dict.module.', lambda state: {'state_dict': begun(state, 'module.')}),
    'compiled': ('_orig_mod.', lambda state: begun(state, '_orig_mod.')),
    'both': ('model._orig_mod.module.', lambda state: {'model': begun(state, '_orig_mod.module.')}),
    'an attribute': ('model.', lambda state: begun(state, 'model.')),
    'any attribute': ('trainer.my_net.', lambda state: begun(state, 'trainer.my_net.')),
    'net': ('net.', lambda state: {'net': state, 'epoch': 3}),
    'average alone': ('model_ema.', lambda state: {'model_ema': state, 'epoch': 3}),
    'nested': ('state_dict.model.', lambda state: {'state_dict': {'model': state}}),
    'deep': ('a.b.c.d.', lambda state: {'a': {'b': {'c': {'d': state}}}}),
}


def begun(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize('kind', WRAPPED)
def test_a_network_is_found_whatever_it_lies_in(tmp_path, tiny_large, kind):
    state, semantic = network(tiny()), decoders()
    prefix, wrap = WRAPPED[kind]
    torch.save(wrap({**begun(state, 'encoder.'), **semantic}), tmp_path / 'in')
    report = convert(tmp_path / 'in', tmp_path / 'out')
    assert report.prefix == f'{prefix}encoder.' and report.wrappers == () and report.left_over == ()
    checkpoint = weights.load(tmp_path / 'out')
    loaded = checkpoint.model.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
    assert all(torch.equal(checkpoint.decoders[key], semantic[key]) for key in semantic)


def test_wrappers_inside_of_names_are_left_out_and_named(tmp_path, tiny_large):
    """torch.compile of the encoder alone, of single blocks, and of the decoders."""
    state = begun(network(tiny()), 'encoder._orig_mod.')
    state = {name.replace('dec_blocks.2.', 'dec_blocks.2._orig_mod.'): t for name, t in state.items()}
    semantic = {name.replace('sam.', 'sam._orig_mod.'): t for name, t in decoders().items()}
    torch.save({'state_dict': {**state, **semantic}}, tmp_path / 'in')
    report = convert(tmp_path / 'in', tmp_path / 'out')
    assert report.prefix == 'state_dict.encoder._orig_mod.' and report.wrappers == ('_orig_mod',)
    assert report.left_over == () and len(weights.load(tmp_path / 'out').decoders) == len(decoders())


@pytest.mark.parametrize(
    'wrap, prefix, passed_over',
    [
        (lambda a, b: {'model_ema': a, 'model': b}, 'model.', ('model_ema.',)),
        (lambda a, b: {'model': b, 'model_ema': a}, 'model.', ('model_ema.',)),
        (
            lambda a, b: {'state_dict': {**begun(a, 'ema.'), **begun(b, 'net.')}},
            'state_dict.net.',
            ('state_dict.ema.',),
        ),
        (lambda a, b: {'model': b, 'best': a}, 'model.', ('best.',)),
    ],
)
def test_of_several_networks_one_is_taken_and_the_others_are_named(
    tmp_path, tiny_large, wrap, prefix, passed_over
):
    """The weights before their average, as loaders of public files do; else the first."""
    other, state = network(tiny('mast3r')), network(tiny('mast3r'))
    other = {name: tensor + 1 for name, tensor in other.items()}
    torch.save(wrap(other, state), tmp_path / 'in')
    report = convert(tmp_path / 'in', tmp_path / 'out')
    assert (report.prefix, report.passed_over) == (prefix, passed_over)
    loaded = weights.load(tmp_path / 'out').model.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)


def test_a_name_with_and_without_a_wrapper_is_no_choice(tmp_path, tiny_large):
    state = network(tiny('mast3r'))
    state['enc_blocks.0.module.norm1.weight'] = torch.zeros(16)
    torch.save(state, tmp_path / 'in')
    assert 'enc_blocks.0.norm1.weight is there twice' in error_of(tmp_path / 'in', tmp_path / 'out')


@pytest.mark.parametrize('form', ['safetensors', 'bin'])
def test_a_network_in_parts(tmp_path, tiny_large, form):
    state = {name: tensor.clone() for name, tensor in network(tiny('mast3r')).items()}
    names = [name for name in state if '.scratch.layer_rn.' not in name]
    parts = {f'm-0000{i + 1}-of-00003.{form}': names[i::3] for i in range(3)}
    folder = tmp_path / 'parts'
    folder.mkdir()
    for file, inside in parts.items():
        write = save_file if form == 'safetensors' else torch.save
        write({name: state[name] for name in inside}, folder / file)
    index = folder / f'm.{form}.index.json'
    for part in parts:
        with pytest.raises(ValueError, match=f'is part . of 3 of a network: give m.{form}.index.json'):
            convert(folder / part, tmp_path / 'out')
    index.write_text(
        json.dumps({'weight_map': {name: file for file, some in parts.items() for name in some}})
    )
    for source in (index, folder):
        convert(source, tmp_path / 'out')
        loaded = weights.load(tmp_path / 'out')
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.model.state_dict().items())
        (tmp_path / 'out').unlink()
    inside = list(map(json.dumps, ({}, [], {'weight_map': 3}, {'weight_map': {}}, {'weight_map': {'a': 3}})))
    for text in ('{', '[' * 100_000, *inside):
        index.write_text(text)
        with pytest.raises(ValueError, match='is no index of the parts'):
            convert(index, tmp_path / 'out')
    for part in ('../secret', '/etc/passwd', 'missing.bin'):
        index.write_text(json.dumps({'weight_map': {'a': part}}))
        with pytest.raises(ValueError, match='which is not beside it'):
            convert(index, tmp_path / 'out')
    index.write_text(json.dumps({'weight_map': {'a': next(iter(parts))}}))
    with pytest.raises(ValueError, match='promises a, which .* lacks'):
        convert(index, tmp_path / 'out')
    index.unlink()
    with pytest.raises(ValueError, match='is a folder with 3 files of weights'):
        convert(folder, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['m.ckpt', 'M.SAFETENSORS', '3fa9c0', 'm.safetensors'])
def test_the_contents_tell_the_format_not_the_name(tmp_path, tiny_large, name):
    save_file({k: t.clone() for k, t in network(tiny('mast3r')).items()}, tmp_path / name)
    assert convert(tmp_path / name, tmp_path / 'out').kind == 'mast3r'


@pytest.mark.parametrize(
    'text, said',
    [
        ('version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n', 'is a Git LFS pointer'),
        ('<!DOCTYPE html><html>Google Drive - Virus scan warning</html>', 'is a web page'),
        ('\n  <html><head>', 'is a web page'),
    ],
)
@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors', 'a.index.json', 'a'])
def test_what_was_downloaded_in_the_place_of_a_file_is_named(tmp_path, text, said, name):
    (tmp_path / name).write_text(text)
    assert said in error_of(tmp_path / name, tmp_path / 'out')


def test_a_header_that_begins_as_a_web_page_does_is_no_web_page(tmp_path):
    """Its length, 0x3c20, is the text ' <'."""
    text = json.dumps({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}).encode().ljust(0x3C20)
    (tmp_path / 'a').write_bytes(len(text).to_bytes(8, 'little') + text + bytes(4))
    assert 'holds no state dict' in error_of(tmp_path / 'a', tmp_path / 'out')


@pytest.mark.parametrize('odd', [torch.zeros(3, dtype=torch.uint32), torch.zeros(3).to(torch.float8_e4m3fn)])
def test_odd_types_beside_the_network_do_no_harm(tmp_path, tiny_large, odd):
    torch.save({'model': network(tiny('mast3r')), 'optimizer': {'state': {0: {'m': odd}}}}, tmp_path / 'in')
    assert convert(tmp_path / 'in', tmp_path / 'out').left_over == ()


def test_an_odd_type_in_the_network_is_refused(tmp_path, tiny_large):
    state = network(tiny('mast3r')) | {'mask_token': torch.zeros(1, 1, 8, dtype=torch.uint32)}
    torch.save(state, tmp_path / 'in')
    assert 'mask_token holds torch.uint32' in error_of(tmp_path / 'in', tmp_path / 'out')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_refused_with_name_and_count(tmp_path, tiny_large, value, dtype):
    state = {name: tensor.to(dtype) for name, tensor in network(tiny('mast3r')).items()}
    state['enc_norm.weight'][3:5] = value
    torch.save({'model': state}, tmp_path / 'in')
    assert '2 of the 16 numbers of enc_norm.weight are not finite' in error_of(
        tmp_path / 'in', tmp_path / 'out'
    )
