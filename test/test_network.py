"""The network: exact against the public one, its layers against plain twins, its names against the public files."""

import ast
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gsemsplat_ros.network import heads, weights
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.dpt import Fusion
from gsemsplat_ros.network.layers import CrossAttention, SelfAttention, rope_table, rotate
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.network.parity import check_parity, covariances_xyzw, read_fixture

DATA = Path(__file__).parent / 'data'
KINDS = ('mast3r', 'splatt3r', 'gsemsplat')


@pytest.mark.parametrize('kind', [pytest.param('mast3r', marks=pytest.mark.heavy),
                                  pytest.param('splatt3r', marks=pytest.mark.heavy), 'gsemsplat'])
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
    torch.testing.assert_close(rotate(q, table), plain_rope(q, height, width))
    expected = own.proj(plain_attention(plain_rope(q, height, width), plain_rope(k, height, width), v))
    torch.testing.assert_close(own(x, table), expected, atol=1e-5, rtol=1e-5)
    q, k, v = (f(t).reshape(2, -1, 2, 8).transpose(1, 2) for f, t in ((cross.projq, x), (cross.projk, y), (cross.projv, y)))
    expected = cross.proj(plain_attention(plain_rope(q, height, width), plain_rope(k, height, width), v))
    torch.testing.assert_close(cross(x, y, table), expected, atol=1e-5, rtol=1e-5)


def test_fusion_before_upsampling_equals_after():
    torch.manual_seed(0)
    fusion, x, level = Fusion(8), *torch.randn(2, 1, 8, 5, 7)
    plain = torch.nn.functional.interpolate(fusion.resConfUnit2(x + fusion.resConfUnit1(level)), scale_factor=2,
                                            mode='bilinear', align_corners=True)
    torch.testing.assert_close(fusion(x, level), fusion.out_conv(plain), atol=1e-5, rtol=1e-5)


def tiny(**changes) -> GSemSplat:
    torch.manual_seed(0)
    config = NetworkConfig(enc_dim=32, enc_depth=2, enc_heads=2, dec_dim=32, dec_depth=4, dec_heads=2,
                           layer_dims=(8, 8, 8, 8), dpt_dim=8, last_dim=8).replace(**changes)
    model = GSemSplat(config)
    model.init_weights()
    return model.eval()


@pytest.mark.parametrize('changes, stride', [({}, 1), ({'stem': True, 'output_stride': 2, 'language_channels': 16}, 2)])
def test_both_sizes_share_the_classes_and_keep_odd_grids(changes, stride):
    model = tiny(**changes)
    images = torch.rand(2, 3, 48, 80) * 2 - 1                     # 3 x 5 tokens
    with torch.no_grad():
        prediction = model(images[:1], images[1:], descriptors=True)
        kept = model.encode(images[:1])
        again = model.forward_encoded(kept, model.encode(images[1:]))
    for view in (prediction.first, prediction.second):
        assert view.pts3d.shape == view.means.shape == (1, 48 // stride, 80 // stride, 3)
        assert view.codes.shape[-1] == (33 if stride == 1 else 32)
        assert view.conf.min() > 1 and 0 < view.opacities.min() and view.opacities.max() < 1
        torch.testing.assert_close(view.quats_xyzw.norm(dim=-1), torch.ones(1, 48 // stride, 80 // stride))
        torch.testing.assert_close(view.desc.norm(dim=-1), torch.ones(1, 48, 80))
    torch.testing.assert_close(again.first.pts3d, prediction.first.pts3d, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(again.second.codes, prediction.second.codes, atol=1e-5, rtol=1e-4)


def test_colour_starts_as_the_pixels_own():
    model = tiny()
    for head in (model.downstream_head1, model.downstream_head2):
        torch.nn.init.zeros_(head.gaussian_dpt.dpt.head[-1].weight)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        view = model(2 * image - 1, 2 * image - 1).first
    torch.testing.assert_close(0.5 + heads.SH_C0 * view.sh[0], image[0].permute(1, 2, 0), atol=1e-5, rtol=1e-5)


def test_points_and_covariances_by_hand():
    raw = torch.tensor([0.0, 3.0, 4.0, 0.5]).reshape(1, 4, 1, 1)
    pts3d, conf = heads.points(raw)
    torch.testing.assert_close(pts3d[0, 0, 0], torch.tensor([0.0, 0.6, 0.8]) * math.expm1(5))
    assert conf.item() == pytest.approx(1 + math.exp(0.5))
    half = math.sqrt(0.5)                                          # a quarter turn about z swaps x and y
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
    assert weights.read_card(path)['scores'] == {'rooms': {'miou': 0.25}, 'stereo': {'localisation_accuracy': 0.5}}
    torch.testing.assert_close(weights.load(path).model.enc_norm.weight, tensors['enc_norm.weight'])
    tensors.pop('enc_norm.weight')
    weights.save(path, tensors, {'config': model.config.to_json()})
    with pytest.raises(ValueError, match='enc_norm.weight is missing'):
        weights.load(path)
    assert list(tmp_path.iterdir()) == [path]                      # nothing half-written stays
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
