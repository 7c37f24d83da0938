"""Colour numbers of new views: as published, corrected, and what lies between them."""

import numpy as np
import pytest
import torch

from gsemsplat_ros.checkpoints.lpips import LPIPS, PREFIX
from gsemsplat_ros.evaluation import image_quality
from gsemsplat_ros.evaluation.image_quality import COLOR_SCORES, color_scores, load_lpips, ssim_map

HEIGHT, WIDTH = 30, 36


def pictures(seed=0):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.random((6, 6, 3)), np.ones((5, 6, 1)))
    return np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1), truth


def plain_ssim(a, b):
    """Wang et al. 2004 at every pixel whose window lies inside, window by window; NaN elsewhere."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    out = np.full(a.shape, np.nan)
    for v in range(5, a.shape[0] - 5):
        for u in range(5, a.shape[1] - 5):
            for c in range(3):
                x, y = (image[v - 5 : v + 6, u - 5 : u + 6, c] for image in (a, b))
                mx, my = (weights * x).sum(), (weights * y).sum()
                sample = 121 / 120
                vx, vy = (sample * ((weights * z * z).sum() - m * m) for z, m in ((x, mx), (y, my)))
                cov = sample * ((weights * x * y).sum() - mx * my)
                out[v, u, c] = ((2 * mx * my + 1e-4) * (2 * cov + 9e-4)) / (
                    (mx * mx + my * my + 1e-4) * (vx + vy + 9e-4)
                )
    return out.mean(-1)


def test_ssim_is_the_plain_one():
    a, b = pictures()
    np.testing.assert_allclose(ssim_map(a, b)[5:-5, 5:-5], plain_ssim(a, b)[5:-5, 5:-5], atol=1e-10)
    np.testing.assert_allclose(ssim_map(a, a), 1)


def test_psnr_as_published_and_corrected():
    picture, truth = pictures()
    visible = np.zeros((HEIGHT, WIDTH), bool)
    visible[3:23, 4:34] = True
    scores = color_scores(picture, truth, visible)
    error = np.square(picture - truth)[visible]
    assert scores['psnr'] == pytest.approx(-10 * np.log10(error.mean()))
    assert scores['psnr_masked'] == pytest.approx(scores['psnr'] - 10 * np.log10(3)), (
        'the 4.77 dB of docs/published.md 39'
    )
    share = visible.mean()
    assert scores['psnr_plain'] == pytest.approx(scores['psnr'] - 10 * np.log10(share)), (
        'shared black is no error'
    )


def test_ssim_as_published_and_corrected():
    picture, truth = pictures()
    visible = np.zeros((HEIGHT, WIDTH), bool)
    visible[3:23, 4:34] = True
    scores = color_scores(picture, truth, visible)
    plain = plain_ssim(picture, truth)
    assert scores['ssim'] == pytest.approx(plain[8:18, 9:29].mean()), (
        'windows of 11 px that are wholly visible'
    )
    black = visible[..., None]
    assert scores['ssim_plain'] == pytest.approx(np.nanmean(plain_ssim(picture * black, truth * black)))
    noise = np.where(black, picture, np.random.default_rng(1).random(picture.shape))
    assert color_scores(noise, truth, visible)['ssim'] == scores['ssim'], 'what is not visible does not count'


def test_values_leave_the_range_only_before_they_are_compared():
    _, truth = pictures()
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    high = np.where(truth > 0.5, truth + 3, truth)
    assert color_scores(high, truth, everywhere) == pytest.approx(
        color_scores(np.where(truth > 0.5, 1.0, truth), truth, everywhere), nan_ok=True
    )


def test_nothing_visible():
    picture, truth = pictures()
    scores = color_scores(
        picture, truth, np.zeros((HEIGHT, WIDTH), bool), lambda a, b: np.abs(a - b).mean(-1)
    )
    assert scores['psnr_plain'] == pytest.approx(100) and scores['lpips_plain'] == 0
    assert all(np.isnan(scores[name]) for name in ('psnr', 'psnr_masked', 'ssim', 'lpips', 'lpips_masked'))


def test_lpips_forms():
    picture, truth = pictures()
    visible = np.zeros((HEIGHT, WIDTH), bool)
    visible[:10] = True
    asked = []

    def measure(a, b):  # looks 1 px around, so that black outside is felt
        asked.append((a, b))
        difference = np.abs(a - b).mean(-1)
        return difference + np.roll(difference, 1, 0)

    scores = color_scores(picture, truth, visible, measure)
    black = visible[..., None]
    plain = measure(picture * black, truth * black)
    assert scores['lpips_plain'] == pytest.approx(plain.mean())
    assert scores['lpips_masked'] == pytest.approx(plain[:10].mean())
    same_outside = np.where(black, picture, truth)
    assert scores['lpips'] == pytest.approx(measure(same_outside, truth)[:10].mean())
    assert tuple(scores) == COLOR_SCORES


def test_lpips_of_the_public_file(tmp_path):
    """The weights that the Splatt3R file carries, under its names."""
    torch.manual_seed(0)
    module = LPIPS()
    torch.save(
        {'state_dict': {PREFIX + name: tensor for name, tensor in module.state_dict().items()}},
        tmp_path / 'a.ckpt',
    )
    picture, truth = pictures()
    a, b = (torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in (picture, truth))
    np.testing.assert_allclose(
        load_lpips(tmp_path / 'a.ckpt')(picture, truth), module(a, b)[0].numpy(), atol=1e-6
    )
    with pytest.raises(ValueError, match='no.ckpt'):
        load_lpips(tmp_path / 'no.ckpt')


def test_window_is_odd_and_wide_enough():
    assert 2 * int(3.5 * image_quality.SIGMA + 0.5) + 1 == image_quality.WINDOW, (
        'where scikit-image cuts its Gaussian'
    )
