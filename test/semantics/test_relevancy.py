"""Relevancy, smoothing and the answer for one phrase, against plain twins and OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from support.plain_mixture import plain_mixture
from torch.nn import functional as F

from gsemsplat_ros.semantics.relevancy import (
    CANONICAL,
    Mixture,
    box_size,
    decide,
    relative_mask,
    relevancy,
    relevancy_of_features,
    smooth,
)

H, W = 40, 48


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_relevancy(features, phrases, canonical):
    """LERF word for word, one phrase and one canonical phrase at a time, in float64."""
    unit = features / (np.linalg.norm(features, axis=-1, keepdims=True) + 1e-6)
    out = []
    for positive in phrases:
        up = np.exp(10 * unit @ positive)
        out.append(np.min([up / (up + np.exp(10 * unit @ negative)) for negative in canonical], axis=0))
    return np.stack(out, 1)


def test_relevancy_is_the_smallest_pairwise_softmax():
    features = 3 * seeded(2, 5, 6, 24)
    phrases = F.normalize(seeded(3, 24, seed=1), dim=1)
    canonical = F.normalize(seeded(4, 24, seed=2), dim=1)
    result = relevancy_of_features(features, phrases, canonical)
    expected = plain_relevancy(*(value.double().numpy() for value in (features, phrases, canonical)))
    assert result.shape == (2, 3, 5, 6)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
    assert result.min() < 0.1 and result.max() > 0.7


def test_relevancy_known_values():
    similarity = torch.tensor([0.3, 0.3, 0.2])
    best_negative = torch.tensor([0.3, 0.2, 0.3])
    e = np.e
    np.testing.assert_allclose(
        relevancy(similarity - best_negative), [0.5, e / (1 + e), 1 / (1 + e)], atol=1e-6
    )
    assert CANONICAL == ('object', 'things', 'stuff', 'texture')


MIXTURE = Mixture(context=0.2, slope=4.2, offset=-0.7, threshold=0.6)


@pytest.mark.parametrize('shape', [(H, W), (H * W,)])
def test_a_mixture_is_its_formula_in_pictures_and_maps_alike(shape):
    contrasts = 0.3 * seeded(2, 3, H * W, seed=6)
    inside = seeded(H * W, seed=7) > 0.5
    found = relevancy(contrasts.reshape(2, 3, *shape), MIXTURE, inside=inside.reshape(shape))
    assert found.shape == (1, 3, *shape)
    expected = plain_mixture(contrasts.double().numpy(), MIXTURE, inside.numpy())
    np.testing.assert_allclose(found.reshape(3, -1), expected, atol=1e-6)
    everywhere = plain_mixture(contrasts.double().numpy(), MIXTURE, np.ones(H * W, bool))
    np.testing.assert_allclose(
        relevancy(contrasts.reshape(2, 3, *shape), MIXTURE).reshape(3, -1), everywhere, atol=1e-6
    )
    assert abs(everywhere - expected).max() > 0.01


def test_the_score_is_that_of_the_smoothed_peak():
    """A mixture smooths before it takes the peak: the highest relevancy is the calibrated probability itself.
    Without one, the relevancy is smoothed, as published."""
    contrasts = 0.3 * seeded(2, 2, H, W, seed=8)
    found = relevancy(contrasts, MIXTURE, lambda maps: smooth(maps, 7))
    place = smooth(contrasts[0], 7) + 0.2 * F.softplus(smooth(contrasts[1], 7) + 2)
    peak = place.flatten(1).amax(1)
    torch.testing.assert_close(found[0].flatten(1).amax(1), torch.sigmoid(4.2 * peak - 0.7))
    published = relevancy(contrasts, None, lambda maps: smooth(maps, 7))
    torch.testing.assert_close(published, smooth(torch.sigmoid(10 * contrasts), 7))


def test_the_peak_is_taken_where_something_is_drawn():
    contrasts = torch.zeros(2, 1, 2, 3)
    contrasts[0, 0, 0, 0] = 0.9  # an empty pixel
    contrasts[0, 0, 1, 1] = 0.5
    inside = torch.ones(2, 3, dtype=torch.bool)
    inside[0, 0] = False
    found = relevancy(contrasts, MIXTURE, inside=inside)[0, 0]
    peak = 0.5 + 0.2 * np.log1p(np.exp(2))
    assert found[inside].max().item() == pytest.approx(1 / (1 + np.exp(-(4.2 * peak - 0.7))), abs=1e-6)
    assert found[1, 1] == found[inside].max()
    assert not relevancy(contrasts, MIXTURE, inside=torch.zeros(2, 3, dtype=torch.bool)).isnan().any()


def test_a_mixture_finds_the_place_by_its_sum_and_the_extent_by_the_sharper_branch():
    """The context-aware peak decides between two things that the region-specific branch sees alike; around it
    the region-specific branch says how far it reaches."""
    region, context = torch.zeros(2, 20), torch.full((2, 20), -6.0)
    region[0, :5] = region[0, 12:17] = 0.8  # two things
    context[0, 10:] = 2.0  # the second is meant
    context[0, 14] = 2.5
    context[1], region[1, 3] = -6.0, 0.8  # a phrase that the context-aware branch does not see
    found = relevancy(torch.stack((region, context))[:, :, None], MIXTURE)[0, :, 0]
    assert found[0].argmax() == 14 and found[1].argmax() == 3
    level = 0.75 * found[0].max()
    assert (
        (found[0, 12:17] > level).all() and (found[0, 17:] < level).all() and (found[0, 5:12] < level).all()
    )
    assert found[0].max() > 0.99 > found[1].max()  # both branches together are surer than one


def test_features_without_length_are_undecided():
    zeros = torch.zeros(2, 2, 2, 8)
    phrases = F.normalize(seeded(5, 8), dim=1)
    np.testing.assert_allclose(relevancy_of_features(zeros, phrases[:1], phrases[1:]), 0.5)


@pytest.mark.parametrize('box', [1, 2, 7, 15, 30])
def test_smooth_is_the_published_filter(box):
    maps = torch.rand((2, 3, H, W), generator=torch.Generator().manual_seed(3))
    kernel = np.full((box, box), 1 / box**2)
    result = smooth(maps, box).numpy()
    for index in np.ndindex(2, 3):
        image = maps[index].double().numpy()
        mean = cv2.filter2D(image, -1, kernel, anchor=(box // 2, box // 2), borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(result[index], (image + mean) / 2, atol=1e-6)


def test_an_impulse_spreads_as_published():
    impulse = torch.zeros(1, 100, 100)
    impulse[0, 50, 50] = 1
    rows, columns = np.nonzero(smooth(impulse)[0].numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (36, 65, 36, 65)


def test_smooth_inside_ignores_what_was_not_rendered():
    maps = torch.rand((2, H, W), generator=torch.Generator().manual_seed(4))
    inside = torch.rand((H, W), generator=torch.Generator().manual_seed(5)) > 0.4
    inside[:, :20] = False
    dirty = maps.clone()
    dirty[:, ~inside] = float('nan')
    result = smooth(dirty, 4, inside)
    padded = np.pad(maps.double().numpy(), ((0, 0), (2, 1), (2, 1)), mode='reflect')
    weight = np.pad(inside.numpy(), ((2, 1), (2, 1)), mode='reflect')
    for row, column in np.argwhere(inside.numpy())[::37]:
        window = padded[:, row : row + 4, column : column + 4][:, weight[row : row + 4, column : column + 4]]
        expected = (maps[:, row, column].double().numpy() + window.mean(1)) / 2
        np.testing.assert_allclose(result[:, row, column], expected, atol=1e-6)
    assert result[:, ~inside].isnan().all() and result[:, inside].isfinite().all()
    everywhere = torch.ones(H, W, dtype=torch.bool)
    torch.testing.assert_close(smooth(maps, 7, everywhere), smooth(maps, 7))


@pytest.mark.parametrize(
    'size, box', [((512, 512), 30), ((384, 512), 30), ((192, 256), 15), ((8, 8), 1), ((16, 512), 16)]
)
def test_box_follows_the_size_of_the_map(size, box):
    assert box_size(*size) == box


def test_relative_mask_is_the_top_quarter_of_the_range():
    values = np.linspace(0.2, 0.6, 41, dtype=np.float32)[None]
    mask = relative_mask(values)
    assert mask[0].nonzero()[0].tolist() == list(range(31, 41))  # 0.5 is the border and lies outside
    values[0, 40] = np.nan
    assert not relative_mask(values)[0, 40]
    assert not relative_mask(np.full((3, 3), 0.9)).any()


def maps_of(*peaks):
    """Two flat maps of 0.2 with one peak each at (row, column, value)."""
    maps = np.full((2, H, W), 0.2, np.float32)
    for head, (row, column, value) in enumerate(peaks):
        maps[head, row : row + 3, column : column + 3] = value - 0.01
        maps[head, row, column] = value
    return maps


def test_the_branch_with_the_higher_peak_answers():
    opaque = np.ones((H, W))
    first = decide(maps_of((10, 20, 0.9), (30, 5, 0.7)), opaque)
    assert (first.found, first.branch, first.peak) == (True, 0, (10, 20))
    assert first.score == pytest.approx(0.9)
    second = decide(maps_of((10, 20, 0.6), (30, 5, 0.7)), opaque)
    assert (second.branch, second.peak) == (1, (30, 5))
    rows, columns = np.nonzero(second.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (30, 32, 5, 7, 9)
    assert decide(maps_of((1, 1, 0.7), (2, 2, 0.7)), opaque).branch == 0


def test_absent_phrase_is_not_found_and_has_no_mask():
    result = decide(maps_of((10, 20, 0.45), (30, 5, 0.3)), np.ones((H, W)))
    assert not result.found and not result.mask.any()
    assert result.score == pytest.approx(0.45) and result.peak == (10, 20)
    assert relative_mask(result.relevancy).any()  # the published rule would have found it
    assert decide(maps_of((10, 20, 0.45), (30, 5, 0.3)), np.ones((H, W)), threshold=0.4).found


def test_unrendered_pixels_neither_win_nor_set_the_range():
    maps = maps_of((10, 20, 0.99), (30, 5, 0.7))
    alpha = np.ones((H, W))
    alpha[:20] = 0.49
    maps[1, 25, 25] = -5  # the range would be stretched
    alpha[25, 25] = 0
    result = decide(maps, alpha)
    assert (result.branch, result.peak, result.found) == (1, (30, 5), True)
    assert np.isnan(result.relevancy[:20]).all() and np.isnan(result.relevancy[25, 25])
    assert np.count_nonzero(result.mask) == 9
    assert decide(maps, alpha, min_support=0.4).peak == (10, 20)


def test_nan_in_one_branch_is_outside():
    maps = maps_of((10, 20, 0.9), (30, 5, 0.7))
    maps[1, 10, 20] = np.nan
    assert decide(maps, np.ones((H, W))).score == pytest.approx(0.89)


def test_nothing_rendered():
    result = decide(maps_of((10, 20, 0.9), (30, 5, 0.7)), np.zeros((H, W)))
    assert not result.found and result.score == 0 and not result.mask.any()
    assert np.isnan(result.relevancy).all() and result.peak is None


def test_gaussians_are_decided_as_pixels_are():
    maps, alpha = maps_of((10, 20, 0.9), (30, 5, 0.7)), np.ones((H, W))
    picture, row = decide(maps, alpha), decide(maps.reshape(2, -1), alpha.ravel())
    assert (row.found, row.score, row.branch) == (picture.found, picture.score, picture.branch)
    assert row.peak == (10 * W + 20,) and (row.mask == picture.mask.ravel()).all()
