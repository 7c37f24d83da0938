"""The network: exact against the public one, its layers against plain twins, its names against the public
files.
"""

import ast
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.parity import check_parity, covariances_xyzw, read_fixture, rule_model
from gsemsplat_ros.network import heads
from gsemsplat_ros.network.config import SH_C0, NetworkConfig
from gsemsplat_ros.network.dpt import FusionBlock
from gsemsplat_ros.network.inference import Inference, has_bfloat16
from gsemsplat_ros.network.layers import CrossAttention, SelfAttention, attend, rope_table, rotate
from gsemsplat_ros.network.model import GSemSplat, hybrid_patches
from gsemsplat_ros.network.stem import DEEP_SPREAD, STEM_DIMS

DATA = Path(__file__).parents[1] / 'data'
KINDS = ('mast3r', 'splatt3r', 'gsemsplat')


@pytest.mark.parametrize(
    'kind',
    [
        pytest.param('mast3r', marks=pytest.mark.heavy),
        pytest.param('splatt3r', marks=pytest.mark.heavy),
        'gsemsplat',
    ],
)
def test_parity_with_the_public_network(kind):
    report = check_parity(DATA / f'{kind}_48x64.npz')
    assert report['passed'] and report['max_error'] <= 1e-4, report
    assert len(report['fields']) == {'mast3r': 12, 'splatt3r': 26, 'gsemsplat': 28}[kind]


@pytest.mark.parametrize('kind', KINDS)
def test_names_and_shapes_are_those_of_the_public_files(kind):
    lines = gzip.decompress((DATA / f'keys_{kind}.txt.gz').read_bytes()).decode().splitlines()
    public = {name: ast.literal_eval(shape) for name, shape in (line.split(' ', 1) for line in lines)}
    assert weights.expected_shapes(NetworkConfig.large(kind)) == public


def test_a_wrong_fixture_is_one_line(tmp_path):
    (tmp_path / 'cut.npz').write_bytes((DATA / 'mast3r_48x64.npz').read_bytes()[:5000])
    np.savez(tmp_path / 'other.npz', model='mast3r', height=48)
    for name in ('cut.npz', 'other.npz', 'absent.npz'):
        with pytest.raises(ValueError, match=name) as error:
            read_fixture(tmp_path / name)
        assert '\n' not in str(error.value)


def plain_rope(x, height, width):
    """Each pair of channels of each token of (B, H, N, D), one at a time."""
    out = x.clone()
    q = x.shape[-1] // 4
    for n in range(height * width):
        for axis, coordinate in enumerate((n // width, n % width)):
            for k in range(q):
                angle = coordinate * 100 ** (-k / q)
                u, v = x[:, :, n, axis * 2 * q + k], x[:, :, n, axis * 2 * q + q + k]
                out[:, :, n, axis * 2 * q + k] = u * math.cos(angle) - v * math.sin(angle)
                out[:, :, n, axis * 2 * q + q + k] = v * math.cos(angle) + u * math.sin(angle)
    return out


def plain_attention(q, k, v):
    weights_ = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
    return (weights_ @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize('height, width', [(1, 1), (3, 5), (4, 2)])
def test_attention_against_a_plain_twin(height, width):
    torch.manual_seed(0)
    table = rope_table(height, width, 8, torch.device('cpu'), torch.float32)
    x, y = torch.randn(2, 2, height * width, 16)
    own, cross = SelfAttention(16, 2), CrossAttention(16, 2)
    q, k, v = own.qkv(x).reshape(2, -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(rotate(q.transpose(1, 2), table).transpose(1, 2), plain_rope(q, height, width))
    expected = own.proj(plain_attention(plain_rope(q, height, width), plain_rope(k, height, width), v))
    torch.testing.assert_close(own(x, table), expected, atol=1e-5, rtol=1e-5)
    q, k, v = (
        f(t).reshape(2, -1, 2, 8).transpose(1, 2)
        for f, t in ((cross.projq, x), (cross.projk, y), (cross.projv, y))
    )
    expected = cross.proj(plain_attention(plain_rope(q, height, width), plain_rope(k, height, width), v))
    torch.testing.assert_close(cross(x, y, table), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('batch, heads_, queries, keys', [(1, 1, 7, 7), (2, 3, 40, 24)])
def test_attention_in_bfloat16_is_that_of_float32_within_its_rounding(batch, heads_, queries, keys):
    torch.manual_seed(0)
    inputs = [torch.randn(batch, n, heads_, 64).bfloat16().requires_grad_() for n in (queries, keys, keys)]
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    exact = plain_attention(*(x.transpose(1, 2) for x in doubles))
    with torch.inference_mode():
        fast = attend(*inputs)
    taught = attend(*inputs)
    assert fast.shape == (batch, queries, heads_ * 64) and fast.dtype == torch.bfloat16
    assert torch.equal(fast, taught)
    torch.testing.assert_close(fast.double(), exact, atol=0.02, rtol=0.02)
    grad = torch.randn(exact.shape).bfloat16()
    taught.backward(grad)
    exact.backward(grad.double())
    for got, wanted in zip(inputs, doubles):
        assert (got.grad - wanted.grad).norm() < 0.02 * wanted.grad.norm()


def test_hybrid_patches_hold_both_maps_of_the_stem():
    maps = {
        16: torch.randn(2, STEM_DIMS[16], 5, 6),
        32: torch.full((2, STEM_DIMS[32], 3, 3), 5.0),
    }  # an odd grid
    patches = hybrid_patches(maps)
    assert torch.equal(patches[:, : STEM_DIMS[16]], maps[16]) and patches.shape[2:] == (5, 6)
    assert (patches[:, STEM_DIMS[16] + 2 :] == 5.0 / DEEP_SPREAD).all()


def test_training_may_use_the_table_that_inference_made():
    rope_table.cache_clear()
    layer, x = SelfAttention(16, 2), torch.randn(1, 6, 16)
    with torch.inference_mode():
        layer(x, rope_table(2, 3, 8, torch.device('cpu'), torch.float32))
    layer(x, rope_table(2, 3, 8, torch.device('cpu'), torch.float32)).sum().backward()
    assert layer.qkv.weight.grad.abs().sum() > 0


def test_fusion_before_upsampling_equals_after():
    torch.manual_seed(0)
    fusion, x, level = FusionBlock(8), *torch.randn(2, 1, 8, 5, 7)
    plain = torch.nn.functional.interpolate(
        fusion.resConfUnit2(x + fusion.resConfUnit1(level)),
        scale_factor=2,
        mode='bilinear',
        align_corners=True,
    )
    torch.testing.assert_close(fusion(x, level), fusion.out_conv(plain), atol=1e-5, rtol=1e-5)


# what the small network has
HYBRID = {'stem': True, 'output_stride': 2, 'shared_trunk': True, 'language_channels': 16}


def tiny(**changes) -> GSemSplat:
    torch.manual_seed(0)
    config = TINY.replace(**changes)
    model = GSemSplat(config)
    model.init_weights()
    return model.eval()


@pytest.mark.parametrize(
    'changes, stride, desc_stride', [({}, 1, 1), (HYBRID | {'shared_trunk': False}, 2, 1), (HYBRID, 2, 4)]
)
def test_both_sizes_share_the_classes_and_keep_odd_grids(changes, stride, desc_stride):
    model = tiny(**changes)
    images = torch.rand(2, 3, 48, 80) * 2 - 1  # 3 x 5 tokens
    with torch.no_grad():
        prediction = model(images[:1], images[1:], descriptors=True)
        kept = model.encode(images[:1])
        again = model.forward_encoded(kept, model.encode(images[1:]))
    for view in (prediction.first, prediction.second):
        assert view.pts3d.shape == view.means.shape == (1, 48 // stride, 80 // stride, 3)
        assert view.codes.shape[-1] == (33 if stride == 1 else 32)
        assert view.conf.min() > 1 and view.opacities.min() > 0 and view.opacities.max() < 1
        torch.testing.assert_close(view.quats_xyzw.norm(dim=-1), torch.ones(1, 48 // stride, 80 // stride))
        torch.testing.assert_close(
            view.desc.norm(dim=-1), torch.ones(1, 48 // desc_stride, 80 // desc_stride)
        )
    torch.testing.assert_close(again.first.pts3d, prediction.first.pts3d, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(again.second.codes, prediction.second.codes, atol=1e-5, rtol=1e-4)


def pictures(count, height=48, width=80):
    return [
        np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
        for seed in range(count)
    ]


def test_a_kept_encoding_is_taken_again_bit_for_bit():
    model, calls = tiny(), []
    network = Inference(model, torch.device('cpu'), exact=True)
    encode = model.encode
    model.encode = lambda images, *rest: calls.append(len(images)) or encode(images, *rest)
    one, two, three = pictures(3)
    first, second = network.encode([one, two])
    _, again = network.encode([three, two])  # the keyframe goes on
    assert calls == [1, 1, 1] and again is second
    fresh = Inference(model, torch.device('cpu'), exact=True).encode([two])[0]
    assert torch.equal(fresh.tokens, again.tokens)
    network.encode([three, two.copy()])  # as like as it may be: another image
    assert len(calls) == 5
    network.encode([three[:32, :32]], [three])  # the same image at another size
    network.encode([one], [one])  # forgotten meanwhile
    assert len(calls) == 7
    with torch.no_grad():
        images = torch.cat([network.upload(image) for image in (one, two)])
        plain = model(images[:1], images[1:])
    fast = network.predict(first, second)
    torch.testing.assert_close(fast.first.pts3d, plain.first.pts3d, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast.second.codes, plain.second.codes, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('changes', [{}, HYBRID])
def test_bfloat16_stays_within_the_stated_tolerance(changes):
    device = torch.device('cpu')
    if not has_bfloat16(device):
        pytest.skip('this CPU does not multiply in bfloat16')
    images = pictures(2)
    # random weights of the rule: at its start a network says nearly the same of every pixel, and has no range
    config = tiny(**changes).config
    exact, fast = (Inference(rule_model(config), device, exact=exact) for exact in (True, False))
    assert fast.bf16 and not exact.bf16 and fast.model.enc_norm.weight.dtype == torch.bfloat16
    wanted, got = (network.predict(*network.encode(images)) for network in (exact, fast))
    for name in ('pts3d', 'conf', 'means', 'sh', 'opacities', 'codes'):
        a, b = getattr(got.second, name), getattr(wanted.second, name)
        error = (a - b).abs() / (b.max() - b.min())
        assert a.dtype == torch.float32 and error.max() <= 0.15 and error.mean() <= 0.015, name


@pytest.mark.parametrize('changes', [{}, HYBRID])
@pytest.mark.parametrize('exact', [True, False])
def test_recorded_passes_on_a_gpu_are_those_of_the_cpu(gpu, changes, exact):
    if gpu:
        gpu.bf16 = True
    device, images = torch.device('cuda'), pictures(3)
    network = Inference(tiny(**changes).to(device), device, exact)
    plain = Inference(tiny(**changes), torch.device('cpu'), exact=True)
    tolerance = (
        dict(atol=2e-3, rtol=1e-2) if exact else dict(atol=0.1, rtol=0.1)
    )  # TF32 of convolutions; bfloat16
    held = []
    for pair in (images[:2], images[1:], images[:2]):  # recorded, one encoding kept, replayed
        got, wanted = (n.predict(*n.encode(pair)) for n in (network, plain))
        held.append(got)
        for name in ('pts3d', 'sh', 'codes'):
            for view in ('first', 'second'):
                torch.testing.assert_close(
                    getattr(getattr(got, view), name).cpu(), getattr(getattr(wanted, view), name), **tolerance
                )
        assert got.first.pts3d.is_cuda
    # not overwritten by what came between; of other batches, so not bit for bit
    apart = [(prediction.first.sh - held[0].first.sh).abs().max() for prediction in held[1:]]
    assert apart[1] < apart[0] / 10, apart


@pytest.mark.cuda
def test_a_pass_on_a_gpu_does_not_wait_for_it():
    device = torch.device('cuda')
    network = Inference(tiny().to(device), device)
    images = pictures(2)
    network.predict(*network.encode(images))  # recorded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        network.predict(*network.encode([image.copy() for image in images]))
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_colour_starts_as_the_pixels_own():
    model = tiny()
    for head in (model.downstream_head1, model.downstream_head2):
        torch.nn.init.zeros_(head.gaussian_dpt.dpt.head[-1].weight)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        view = model(2 * image - 1, 2 * image - 1).first
    torch.testing.assert_close(0.5 + SH_C0 * view.sh[0], image[0].permute(1, 2, 0), atol=1e-5, rtol=1e-5)


def test_points_and_covariances_by_hand():
    raw = torch.tensor([0.0, 3.0, 4.0, 0.5]).reshape(1, 4, 1, 1)
    pts3d, conf = heads.points(raw)
    torch.testing.assert_close(pts3d[0, 0, 0], torch.tensor([0.0, 0.6, 0.8]) * math.expm1(5))
    assert conf.item() == pytest.approx(1 + math.exp(0.5))
    half = math.sqrt(0.5)  # a quarter turn about z swaps x and y
    cov = covariances_xyzw(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.0, half, half]))
    torch.testing.assert_close(cov, torch.diag(torch.tensor([4.0, 1.0, 9.0])), atol=1e-5, rtol=1e-5)


def test_an_image_of_no_whole_patches_is_refused():
    with pytest.raises(ValueError, match='height of 50 px: wanted a multiple of 16 px'):
        tiny().encode(torch.zeros(1, 3, 50, 64))


def test_a_checkpoint_comes_back_and_a_foreign_one_is_refused(tmp_path):
    model, path = tiny(), tmp_path / 'tiny.safetensors'
    tensors = model.state_dict()
    weights.save(path, tensors, {'config': model.config.to_json(), 'text_encoder': 'none'})
    loaded = weights.load(path)
    assert loaded.model.config == model.config and not loaded.decoders and loaded.text_mean is None
    for name, tensor in loaded.model.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name])
    weights.add_scores(path, 'rooms', {'miou': 0.25})
    weights.add_scores(path, 'stereo', {'localisation_accuracy': 0.5})
    assert weights.read_card(path)['scores'] == {
        'rooms': {'miou': 0.25},
        'stereo': {'localisation_accuracy': 0.5},
    }
    torch.testing.assert_close(weights.load(path).model.enc_norm.weight, tensors['enc_norm.weight'])
    tensors.pop('enc_norm.weight')
    weights.save(path, tensors, {'config': model.config.to_json()})
    with pytest.raises(ValueError, match='enc_norm.weight is missing'):
        weights.load(path)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written stays
    for content in (b'', b'\x08\0\0\0\0\0\0\0{"a": 1}', np.random.default_rng(0).bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='no gsemsplat checkpoint'):
            weights.load(path)
    with pytest.raises(ValueError, match='no checkpoint at'):
        weights.load(tmp_path / 'absent.safetensors')


@pytest.mark.parametrize('changes', [{'enc_heads': 5}, {'dec_depth': 6}, {'output_stride': 4}])
def test_a_configuration_that_cannot_be_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        NetworkConfig().replace(**changes)
