"""The decoders to the text space: built from shapes, and the fast query path against plain features."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from support.plain_mixture import plain_mixture, plain_place
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


@torch.inference_mode()
def similarities(hidden, phrases):
    """(2, K, H, W) of both branches."""
    rows = torch.stack([branch.similarities(torch.as_tensor(phrases)) for branch in hidden.branches])
    return rows.reshape(2, len(phrases), *hidden.best_negative.shape[1:])


def plain_cosines(features, phrases):
    """Features (2, H, W, C), phrases (K, C) -> (2, K, H, W) with every feature normalised first."""
    unit_features = features / (features.norm(dim=-1, keepdim=True) + 1e-6)
    return torch.einsum('ihwc,kc->ikhw', unit_features, phrases)


@pytest.mark.parametrize('kind', KINDS)
def test_decode_is_the_modules(kind):
    decoders, codes = decoders_of(kind), codes_of()
    with torch.no_grad():
        decoded = torch.stack(decoders.decode(codes))
        batch = torch.stack(decoders(codes.permute(2, 0, 1)[None].repeat(3, 1, 1, 1)))
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
    torch.testing.assert_close(similarities(hidden, phrases.numpy()), cosines, atol=1e-5, rtol=0)
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
    fast = similarities(decoders.float().prepare(codes, phrases), phrases)
    torch.testing.assert_close(fast.double(), cosines, atol=1e-3, rtol=0)


def test_prepare_leaves_the_codes_alone_and_works_across_chunks():
    decoders, codes = decoders_of('one layer'), codes_of(200, 180)  # more pixels than one chunk
    before = codes.clone()
    phrases = unit(2, 48)
    hidden = decoders.prepare(codes, phrases)
    assert torch.equal(codes, before)
    alone = decoders.prepare(codes[190:], phrases)
    torch.testing.assert_close(similarities(hidden, phrases)[:, :, 190:], similarities(alone, phrases))
    torch.testing.assert_close(hidden.best_negative, similarities(hidden, phrases).amax(1))


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
            f'{SAM} reads 8 channels: wanted 16',
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
            broken(language_decoder_patch__2__weight=torch.zeros(32, 63, 1, 1)),
            f'{PATCH}.2.weight: takes 63 channels, but 64 arrive',
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


def logit(probability):
    return torch.log(probability / (1 - probability))


MIXTURE = Mixture(context=0.3, slope=4.0, offset=-0.5, threshold=0.6)


def test_a_mixture_mixes_the_contrasts_of_both_branches():
    decoders, codes = decoders_of('small'), codes_of()
    phrases, canonical = unit(3, 48), unit(4, 48, seed=3)
    contrasts = decoders.prepare(codes, canonical).contrasts(phrases)
    found = mixing(decoders, MIXTURE).prepare(codes, canonical).relevancy(phrases)[0]
    np.testing.assert_allclose(found, plain_mixture(contrasts, MIXTURE), atol=1e-5)


def test_where_nothing_was_rendered_no_peak_is_looked_for():
    decoders, codes = decoders_of('small'), codes_of()
    phrases, canonical = unit(2, 48), unit(4, 48, seed=3)
    contrasts = decoders.prepare(codes, canonical).contrasts(phrases)
    place = plain_place(*contrasts.double().numpy(), MIXTURE)
    alpha = torch.from_numpy(place[0] < np.median(place[0])).float()
    decoders = mixing(decoders, MIXTURE)
    found = decoders.prepare(codes, canonical, alpha).relevancy(phrases)[0]
    np.testing.assert_allclose(found, plain_mixture(contrasts, MIXTURE, alpha.numpy() > 0), atol=1e-5)
    nothing = decoders.prepare(codes, canonical, torch.zeros(H, W)).relevancy(phrases)
    assert not nothing.isnan().any()


SUMMED = 48, 6  # coordinates of a sentence, and classes


def summed():
    torch.manual_seed(5)
    return Decoders(pointwise((16, 64, 32, 48)), pointwise((20, 6)), MIXTURE).eval()


def summed_codes(seed=1):
    return torch.randn((H, W, 36), generator=torch.Generator().manual_seed(seed))


def summed_phrases(count, seed=0):
    classes = torch.rand((count, 6), generator=torch.Generator().manual_seed(seed))
    return torch.cat((unit(count, 48, seed=seed), classes / classes.sum(1, keepdim=True)), 1)


@pytest.mark.parametrize('count', [1, 3])
def test_a_direct_sum_compares_sentences_by_the_cosine_and_adds_up_classes(count):
    decoders, codes = summed(), summed_codes()
    assert (decoders.dims, decoders.dim, decoders.code_dim) == (SUMMED, 54, 36)
    phrases, canonical = summed_phrases(count), summed_phrases(4, seed=3)
    canonical[:, 48:] = 0
    region, context = decoders.decode(codes)
    found = decoders.prepare(codes, canonical).contrasts(phrases)
    for pixel in np.ndindex(H, W):
        feature = region[pixel] / (region[pixel].norm() + 1e-6)
        for k in range(count):
            against = max((feature @ other[:48]).item() for other in canonical)
            assert found[(0, k, *pixel)].item() == pytest.approx(
                (feature @ phrases[k, :48]).item() - against, abs=1e-5
            )
            plain = sum((phrases[k, 48 + c] * context[pixel][c]).item() for c in range(6))
            assert found[(1, k, *pixel)].item() == pytest.approx(plain, abs=1e-5)


def test_a_pictures_own_counts_are_spread_over_its_map():
    """The product of a phrase with the counts, interpolated as OpenCV does."""
    counts = torch.randn((6, 5, 7), generator=torch.Generator().manual_seed(2))
    decoders, codes, canonical = summed(), summed_codes()[..., :16], summed_phrases(4, seed=3)
    canonical[:, 48:] = 0
    hidden = decoders.prepare(codes, canonical, counts=counts)  # no context-aware codes
    assert hidden.counts is not None and torch.equal(hidden.counts, counts)
    phrases = summed_phrases(3)
    found = hidden.contrasts(phrases)[1].numpy()
    for k in range(3):
        product = np.einsum('c,chw->hw', phrases[k, 48:].numpy(), counts.numpy())
        expected = cv2.resize(product, (W, H), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(found[k], expected, atol=1e-5)


def test_counts_and_the_codes_of_them_answer_alike():
    """Where the code is as wide as the counts, and the map as fine, nothing lies between the two."""
    torch.manual_seed(0)
    encode = torch.linalg.qr(torch.randn(6, 6)).Q * torch.tensor([3.0, 1, 2, 1, 1, 0.5])
    decoders = summed()
    patch = nn.Conv2d(6, 6, 1)
    with torch.no_grad():
        patch.weight.copy_(torch.linalg.inv(encode)[:, :, None, None])
        patch.bias.zero_()
    decoders = Decoders(decoders.language_decoder_sam, nn.Sequential(patch), MIXTURE).eval()
    counts, region = torch.randn(6, H, W), summed_codes()[..., :16]
    codes = torch.cat((region, torch.einsum('dc,chw->hwd', encode, counts)), -1)
    phrases, canonical = summed_phrases(3), summed_phrases(4, seed=3)
    canonical[:, 48:] = 0
    from_codes = decoders.prepare(codes, canonical)
    from_counts = decoders.prepare(codes, canonical, counts=counts)
    assert from_codes.counts is None
    assert from_codes.contrasts(phrases)[1].abs().max() > 0.5
    torch.testing.assert_close(
        from_counts.contrasts(phrases), from_codes.contrasts(phrases), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        from_counts.relevancy(phrases), from_codes.relevancy(phrases), atol=1e-4, rtol=0
    )


def test_a_branch_alone_is_the_mixture_without_the_other():
    decoders, codes = summed(), summed_codes()
    phrases, canonical = summed_phrases(3), summed_phrases(4, seed=3)
    hidden = decoders.prepare(codes, canonical)
    contrast = hidden.contrasts(phrases)
    for only in (0, 1):
        alone = replace(hidden, only=only).relevancy(phrases)
        silent = contrast.clone()
        silent[1 - only] = 0
        np.testing.assert_allclose(alone[0], plain_mixture(silent, MIXTURE), atol=1e-5)


def test_many_phrases_at_once_are_each_alone():
    torch.manual_seed(0)
    decoders, codes, phrases = Decoders.small((16, 8, 12)).eval(), torch.randn(5, 6, 32), unit(7, 12)
    for mixture in (None, MIXTURE):
        hidden = mixing(decoders, mixture).prepare(codes, unit(4, 12, seed=9))
        best_negative = hidden.best_negative.clone()
        together = hidden.relevancy(phrases)
        alone = torch.cat([hidden.relevancy(phrase[None]) for phrase in phrases], 1)
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
        assert torch.equal(hidden.best_negative, best_negative)  # computed in place, but not there


def test_counts_on_a_gpu_are_asked_as_on_the_cpu(gpu):
    decoders, codes, counts = summed(), summed_codes()[..., :16], torch.randn(6, 5, 7)
    phrases, canonical = summed_phrases(3), summed_phrases(4, seed=3)
    wanted = decoders.prepare(codes, canonical, counts=counts).relevancy(phrases)
    got = decoders.cuda().prepare(codes.cuda(), canonical, counts=counts.cuda()).relevancy(phrases)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), wanted, atol=1e-5, rtol=0)


def test_words_on_a_gpu_are_those_of_the_cpu(gpu):
    decoders, codes, phrases = decoders_of('small'), codes_of(), unit(3, 48)
    wanted = decoders.prepare(codes, phrases[1:]).relevancy(phrases)
    got = decoders.cuda().prepare(codes.cuda(), phrases[1:]).relevancy(phrases)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), wanted, atol=1e-5, rtol=0)
