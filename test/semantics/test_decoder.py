"""The decoders to the text space: built from shapes, and the fast query path against plain features."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gsemsplat_ros.semantics.decoder import DECODERS, Decoders
from gsemsplat_ros.semantics.relevancy import Mixture, relevancy_of_features

SAM, PATCH = DECODERS
H, W = 13, 17


def unit(*shape, seed=0):
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def codes_of(height=H, width=W, seed=1):
    return torch.randn((height, width, 32), generator=torch.Generator().manual_seed(seed))


def pointwise(dims, bias=True):
    layers = []
    for wide_in, wide_out in pairwise(dims):
        layers += [nn.Conv2d(wide_in, wide_out, 1, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def spatial():
    stack = nn.Sequential(
        nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 1)
    )
    nn.init.uniform_(stack[1].running_mean)
    nn.init.uniform_(stack[1].running_var, 0.5, 2)
    return stack


def spatial_last():
    return nn.Sequential(nn.Conv2d(16, 24, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, padding=1))


def ends_in_relu():
    return nn.Sequential(nn.Conv2d(16, 48, 1), nn.ReLU())


KINDS = {
    'small': lambda: pointwise((16, 64, 32, 48)),
    'no bias': lambda: pointwise((16, 32, 48), bias=False),
    'wider than the text space': lambda: pointwise((16, 64, 48)),
    'one layer': lambda: pointwise((16, 48)),
    'spatial, normalised': spatial,
    'spatial last layer': spatial_last,
    'ends in ReLU': ends_in_relu,
}


def decoders_of(kind, other=None):
    torch.manual_seed(5)
    return Decoders(KINDS[kind](), KINDS[other or kind]()).eval()


def plain_features(decoders, codes):
    """(2, H, W, C) by the modules alone, one branch after the other."""
    image = codes.permute(2, 0, 1)[None]
    with torch.no_grad():
        return torch.stack(
            [
                decoders.language_decoder_sam(image[:, :16])[0].permute(1, 2, 0),
                decoders.language_decoder_patch(image[:, 16:])[0].permute(1, 2, 0),
            ]
        )


def plain_cosines(features, phrases):
    """Features (2, H, W, C), phrases (K, C) -> (2, K, H, W) with every feature normalised first."""
    unit_features = features / (features.norm(dim=-1, keepdim=True) + 1e-6)
    return torch.einsum('ihwc,kc->ikhw', unit_features, phrases)


@pytest.mark.parametrize('kind', KINDS)
def test_decode_is_the_modules(kind):
    decoders, codes = decoders_of(kind), codes_of()
    with torch.no_grad():
        decoded = decoders.decode(codes)
        batch = decoders(codes.permute(2, 0, 1)[None].repeat(3, 1, 1, 1))
    expected = plain_features(decoders, codes)
    assert decoded.shape == (2, H, W, 48) and batch.shape == (2, 3, 48, H, W)
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch[:, 1].permute(0, 2, 3, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('count', [1, 2, 5])
@pytest.mark.parametrize('kind, other', [(kind, kind) for kind in KINDS] + [('small', 'spatial last layer')])
def test_fast_similarities_are_the_plain_cosines(kind, other, count):
    decoders, codes = decoders_of(kind, other), codes_of()
    phrases, canonical = unit(count, 48), unit(4, 48, seed=3)
    hidden = decoders.prepare(codes, canonical.numpy())
    features = plain_features(decoders, codes)
    cosines = plain_cosines(features, phrases)
    assert cosines.abs().max() > 0.1
    torch.testing.assert_close(hidden.similarities(phrases.numpy()), cosines, atol=1e-5, rtol=0)
    expected = relevancy_of_features(features, phrases, canonical)
    torch.testing.assert_close(hidden.relevancy(phrases), expected, atol=1e-5, rtol=0)


def test_norm_is_exact_where_the_bias_nearly_cancels_the_weights():
    """|f| is a thousandth of |W h|: the squared Gram form in float32 would lose it."""
    decoders = decoders_of('one layer')
    codes = codes_of()
    with torch.no_grad():
        for layer, half in (
            (decoders.language_decoder_sam[0], slice(0, 16)),
            (decoders.language_decoder_patch[0], slice(16, 32)),
        ):
            layer.bias.copy_(-layer.weight[:, :, 0, 0] @ codes[0, 0, half])
            codes[..., half] = codes[0, 0, half] + 1e-3 * codes[..., half]
    phrases = unit(3, 48)
    features = plain_features(decoders.double(), codes.double())
    cosines = plain_cosines(features, phrases.double())
    fast = decoders.float().prepare(codes, phrases).similarities(phrases)
    torch.testing.assert_close(fast.double(), cosines, atol=1e-3, rtol=0)


def test_prepare_leaves_the_codes_alone_and_works_across_chunks():
    decoders, codes = decoders_of('one layer'), codes_of(200, 180)  # more pixels than one chunk
    before = codes.clone()
    phrases = unit(2, 48)
    hidden = decoders.prepare(codes, phrases)
    assert torch.equal(codes, before)
    alone = decoders.prepare(codes[190:], phrases)
    torch.testing.assert_close(hidden.similarities(phrases)[:, :, 190:], alone.similarities(phrases))
    torch.testing.assert_close(hidden.best_negative, hidden.similarities(phrases).amax(1))


def test_codes_of_gaussians_are_prepared_as_a_column():
    decoders, codes, phrases = decoders_of('small'), codes_of(), unit(2, 48)
    column = decoders.prepare(codes.reshape(-1, 1, 32), phrases).relevancy(phrases)
    torch.testing.assert_close(
        column.reshape(2, 2, H, W), decoders.prepare(codes, phrases).relevancy(phrases)
    )


def test_small_has_the_shapes_of_the_default():
    decoders = Decoders.small()
    assert decoders.dim == 384
    state = decoders.state_dict()
    weights = {key: tuple(value.shape) for key, value in state.items() if key.endswith('weight')}
    shapes = {'0': (64, 16, 1, 1), '2': (128, 64, 1, 1), '4': (384, 128, 1, 1)}
    assert weights == {f'{branch}.{i}.weight': shape for branch in DECODERS for i, shape in shapes.items()}


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'ends in ReLU'])
def test_state_dict_round_trip(kind):
    decoders, codes = decoders_of(kind), codes_of()
    state = {'encoder.weight': torch.zeros(3), **decoders.state_dict()}
    again = Decoders.from_state_dict(state)
    assert not again.training and again.dim == 48
    assert [type(layer) for layer in again.language_decoder_sam] == [
        *map(type, decoders.language_decoder_sam)
    ]
    torch.testing.assert_close(again.decode(codes), decoders.decode(codes), atol=0, rtol=0)


def test_state_dict_in_half_precision_and_without_counter():
    decoders = decoders_of('spatial, normalised')
    state = {key: value.half() for key, value in decoders.state_dict().items() if 'num_batches' not in key}
    again = Decoders.from_state_dict(state)
    assert again.language_decoder_sam[0].weight.dtype == torch.float32
    torch.testing.assert_close(again.decode(codes_of()), decoders.decode(codes_of()), atol=5e-3, rtol=0)


def broken(**changes):
    state = decoders_of('small').state_dict()
    for key, value in changes.items():
        key = key.replace('__', '.')
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


@pytest.mark.parametrize(
    'state, message',
    [
        ({}, f'no tensor {SAM}'),
        ({f'{SAM}.0.weight': torch.zeros(48, 16, 1, 1)}, f'no tensor {PATCH}'),
        (
            broken(language_decoder_sam__0__weight=torch.zeros(64, 8, 1, 1)),
            f'{SAM}.0.weight: takes 8 channels, but 16 arrive',
        ),
        (
            broken(language_decoder_patch__2__weight=torch.zeros(32, 64)),
            rf'{PATCH}.2.weight has shape \(32, 64\): wanted rank 4',
        ),
        (broken(language_decoder_patch__2__weight=None), f'{PATCH}.2.weight is missing'),
        (
            broken(language_decoder_sam__2__weight=torch.zeros(32, 64, 2, 2)),
            f'{SAM}.2.weight: a kernel of 2x2',
        ),
        (broken(language_decoder_sam__4__bias=torch.zeros(7)), f'{SAM}.4: size mismatch for bias'),
        (broken(language_decoder_sam__4__extra=torch.zeros(7)), f'{SAM}.4: Unexpected key'),
        (broken(language_decoder_sam__0__0__weight=torch.zeros(7)), f'{SAM}.0.0.weight: wanted'),
        (broken(language_decoder_sam__900__weight=torch.zeros(7)), f'{SAM}.900.weight: wanted'),
        (
            broken(language_decoder_sam__5__running_mean=torch.zeros(7)),
            rf'{SAM}.5.running_mean: wanted shape \(48,\)',
        ),
        (
            broken(
                language_decoder_sam__4__weight=torch.zeros(40, 32, 1, 1), language_decoder_sam__4__bias=None
            ),
            'ends in 40 channels',
        ),
    ],
)
def test_foreign_state_dict_is_refused_with_its_key(state, message):
    with pytest.raises(ValueError, match=message) as error:
        Decoders.from_state_dict(state)
    assert '\n' not in str(error.value)


def test_wrong_codes_are_an_assertion():
    decoders = decoders_of('small')
    with pytest.raises(AssertionError, match=r'wanted \(H, W, 32\), got \(4, 4, 33\)'):
        decoders.prepare(torch.zeros(4, 4, 33), np.zeros((4, 48), np.float32))


def mixing(decoders, mixture):
    return Decoders(decoders.language_decoder_sam, decoders.language_decoder_patch, mixture)


def test_a_mixture_takes_the_place_from_region_and_the_presence_from_context():
    torch.manual_seed(0)
    decoders, codes = Decoders.small((16, 8, 12)).eval(), torch.randn(5, 6, 32)
    phrases = torch.nn.functional.normalize(torch.randn(3, 12), dim=1)
    plain = decoders.prepare(codes, phrases[1:])
    decoders = mixing(decoders, Mixture((1.0, 0.2, 0.3), 0.2))
    mixed = decoders.prepare(codes, phrases[1:]).relevancy(phrases[:1])
    contrast = plain.similarities(phrases[:1])[:, 0] - plain.best_negative
    assert mixed.shape == (1, 1, 5, 6)
    torch.testing.assert_close(
        mixed[0, 0], torch.sigmoid(10 * (contrast[0] + 0.2 * contrast[1] + 0.3 * contrast[1].max() - 0.2))
    )
    inside = contrast[1] < contrast[1].median()  # an empty pixel has no say
    masked = decoders.prepare(codes, phrases[1:], inside.float()).relevancy(phrases[:1])
    torch.testing.assert_close(
        masked[0, 0],
        torch.sigmoid(10 * (contrast[0] + 0.2 * contrast[1] + 0.3 * contrast[1][inside].max() - 0.2)),
    )
    decoders = mixing(decoders, Mixture((1.0, 0.0, 0.5), 0.2))
    nothing = decoders.prepare(codes, phrases[1:], torch.zeros(5, 6)).relevancy(phrases[:1])
    assert torch.isfinite(nothing).all() and nothing.max() < 0.01
    with pytest.raises(
        ValueError, match='a mixture of 2 weights: wanted 3; set them by `gsemsplat eval calibrate`'
    ):
        Mixture((1.0, 0.5), 0.2)


def test_many_phrases_at_once_are_each_alone():
    torch.manual_seed(0)
    decoders, codes, phrases = Decoders.small((16, 8, 12)).eval(), torch.randn(5, 6, 32), unit(7, 12)
    for mixture in (None, Mixture((1.0, 0.2, 0.3), 0.2)):
        hidden = mixing(decoders, mixture).prepare(codes, unit(4, 12, seed=9))
        best_negative = hidden.best_negative.clone()
        together = hidden.relevancy(phrases)
        alone = torch.cat([hidden.relevancy(phrase[None]) for phrase in phrases], 1)
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
        assert torch.equal(hidden.best_negative, best_negative)  # computed in place, but not there


@pytest.mark.cuda
def test_words_on_a_gpu_are_those_of_the_cpu():
    decoders, codes, phrases = decoders_of('small'), codes_of(), unit(3, 48)
    wanted = decoders.prepare(codes, phrases[1:]).relevancy(phrases)
    got = decoders.cuda().prepare(codes.cuda(), phrases[1:]).relevancy(phrases)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), wanted, atol=1e-5, rtol=0)
