"""Weights in 8 bits: exact on themselves, close to what they stand for, refused without their scale."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints.checkpoint import (
    HALF,
    SHIPPED,
    SMALL,
    from_8_bits,
    in_8_bits,
    load,
    save,
    stored,
)
from gsemsplat_ros.network.model import GSemSplat


def weights():
    generator = torch.Generator().manual_seed(0)
    conv = (
        torch.randn(6, 512, 3, 3, generator=generator)
        * torch.tensor([1e-3, 1, 50, 0.2, 0, 7])[:, None, None, None]
    )
    depthwise = torch.randn(8, 1, 3, 3, generator=generator)
    return {
        'conv.weight': conv,
        'conv.bias': torch.randn(6, generator=generator),
        'norm': torch.tensor(3.0),
        'depthwise.weight': depthwise,
    }


def test_a_weight_is_within_half_a_step_of_its_channel():
    before = weights()
    small = in_8_bits(before)
    assert small['conv.weight'].dtype == torch.int8 and small['conv.weight'].abs().max() == 127
    assert small['depthwise.weight'].dtype == torch.float16  # small, and hurt most by 8 bits
    assert small['conv.bias'].dtype == torch.float16 and set(small) == {*before, 'conv.weight.scale'}
    after = from_8_bits(small)
    assert set(after) == set(before) and all(tensor.dtype == torch.float32 for tensor in after.values())
    for channel in range(6):
        there, here = before['conv.weight'][channel], after['conv.weight'][channel]
        step = float(there.abs().max()) / 127
        np.testing.assert_allclose(here, there, atol=0.5001 * step, rtol=0)
        assert here.abs().max().item() == pytest.approx(there.abs().max().item(), rel=1e-6)
    np.testing.assert_allclose(after['conv.bias'], before['conv.bias'], rtol=1e-3)


def test_in_8_bits_twice_is_in_8_bits_once():
    small = in_8_bits(weights())
    again = in_8_bits(from_8_bits(small))
    assert torch.equal(again['conv.weight'], small['conv.weight'])
    torch.testing.assert_close(again['conv.weight.scale'], small['conv.weight.scale'], rtol=1e-6, atol=0)
    assert torch.equal(again['conv.bias'], small['conv.bias'])


def test_large_weights_are_stored_in_8_bits_but_codes_and_decoders():
    names = 'context.classifier.', 'enc_blocks.0.', 'context.code.', 'language_decoder_sam.'
    tensors = {name + 'weight': torch.randn(128, 128, 1, 1) for name in names}
    found = {name: tensor.dtype for name, tensor in stored(tensors).items()}
    assert found == {
        'context.classifier.weight': torch.int8,
        'context.classifier.weight.scale': torch.float32,
        'enc_blocks.0.weight': torch.int8,
        'enc_blocks.0.weight.scale': torch.float32,
        'context.code.weight': torch.float16,
        'language_decoder_sam.weight': torch.float16,
    }


def test_the_shipped_file_is_stored_again_as_it_is():
    with safe_open(SHIPPED, 'pt') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    kinds = {name: tensor.dtype for name, tensor in tensors.items()}
    large = [
        name for name, tensor in tensors.items() if tensor.numel() >= SMALL and not name.startswith(HALF)
    ]
    assert len(large) > 100 and all(kinds[name] == torch.int8 for name in large)
    checkpoint = load()
    again = stored({**checkpoint.model.state_dict(), **checkpoint.decoders})
    for name, tensor in again.items():
        if tensor.dtype == torch.int8:
            assert torch.equal(tensor, tensors[name]), name
    assert SHIPPED.stat().st_size <= 36e6


@pytest.mark.parametrize('scale', [None, torch.ones(5)])
def test_a_weight_without_its_scale_is_refused_in_one_line(tmp_path, scale):
    small = in_8_bits(weights())
    del small['conv.weight.scale']
    if scale is not None:
        small['conv.weight.scale'] = scale
    with pytest.raises(ValueError, match=r'conv\.weight is stored in 8 bits without conv\.weight\.scale'):
        from_8_bits(small)
    state = GSemSplat(TINY).state_dict() | {'mask_token': torch.ones(1, 1, 32, dtype=torch.int8)}
    if scale is not None:
        state['mask_token.scale'] = scale
    save(tmp_path / 'cut.safetensors', state, {'config': TINY.to_json()})
    with pytest.raises(ValueError, match=r'cut\.safetensors: mask_token is stored') as error:
        load(tmp_path / 'cut.safetensors')
    assert '\n' not in str(error.value)
