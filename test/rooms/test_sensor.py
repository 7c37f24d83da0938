"""The effects of the random cameras, each alone, on pictures with known values."""

import cv2
import numpy as np
import pytest

from gsemsplat_ros.rooms.sensor import BAYER, Sensor, _disc, _line

H, W = 48, 64


def sensor(photographic=True, **settings):
    """A camera without any effect but these."""
    out = Sensor(np.random.default_rng(0), photographic)
    neutral = dict(gain=1.0, gamma=1.0, balance=np.ones(3), blur=0.0, noise=0.0, gray=False, residual=0.0)
    if photographic:
        neutral |= dict(bloom=0.0, motion=0.0, defocus=0.0, read=0.0, shot=0.0, sharpening=0.0, quality=0)
        neutral |= dict(border=np.zeros(4))
    for name, value in (neutral | dict(falloff=0.0) | settings).items():
        assert hasattr(out, name)
        setattr(out, name, value)
    return out


def plain(*color):
    return np.full((H, W, 3), color, np.uint8)


@pytest.mark.parametrize('photographic', [False, True])
def test_without_effects_a_plain_picture_stays(photographic):
    picture = plain(200, 90, 30)
    assert np.abs(sensor(photographic)(picture).astype(int) - picture).max() <= 1


@pytest.mark.parametrize('bayer', range(len(BAYER)))
def test_each_mosaic_gives_its_colours_back(bayer):
    picture = plain(220, 120, 10)
    picture[:, W // 2 :] = 20, 60, 240
    out = sensor(bayer=bayer)(picture).astype(int)
    away = np.abs(np.arange(W) - W / 2 + 0.5) > 3
    assert np.abs(out - picture)[:, away].max() <= 1
    assert np.abs(out - picture)[:, ~away].max() > 20  # edges of colour smear, as in a real camera


def test_noise_grows_with_the_signal():
    for gray, kept in ((True, 1.0), (False, 0.7)):  # demosaicing averages some of it
        both = np.hstack([plain(80, 80, 80), plain(200, 200, 200)])
        linear = (sensor(shot=0.05, gray=gray)(both) / 255) ** 2.2
        for half, level in ((linear[:, : W - 2], 80 / 255), (linear[:, W + 2 :], 200 / 255)):
            assert half[..., 1].std() == pytest.approx(kept * 0.05 * np.sqrt(level**2.2), rel=0.15)


def test_exposure_vignette_and_cast():
    out = sensor(gain=0.5)(plain(200, 200, 200))
    assert np.abs(out.astype(int) - 100).max() <= 1
    dark = sensor(falloff=0.3)(plain(200, 200, 200)).astype(int)
    assert dark[H // 2, W // 2, 1] == pytest.approx(200, abs=1)
    r2 = ((H / 2 - 4.5) ** 2 + (W / 2 - 4.5) ** 2) / ((H**2 + W**2) / 4)
    assert dark[4, 4, 1] == pytest.approx(200 * (1 - 0.3 * r2**2), abs=2)
    warm = sensor(balance=np.array([1.1, 1, 0.9]))(plain(100, 100, 100))[H // 2, W // 2]
    np.testing.assert_allclose(warm, [110, 100, 90], atol=1)


def test_blurs_keep_the_sum_and_the_middle():
    for kernel in (_line(5.0, 0.0), _line(4.2, 1.0), _disc(1.7)):
        assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.shape[0] % 2 == 1
        v, u = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
        assert (kernel * u).sum() == pytest.approx(0, abs=1e-6) == pytest.approx((kernel * v).sum(), abs=1e-6)
    flat = _line(5.0, 0.0)
    np.testing.assert_allclose(flat[flat.shape[0] // 2, 1:-1], 0.2, atol=1e-6)
    assert flat.sum(1).argmax() == flat.shape[0] // 2 and np.count_nonzero(flat.sum(1)) == 1


def test_sharpening_and_bloom():
    picture = plain(100, 100, 100)
    picture[:, W // 2 :] = 160
    edge = sensor(sharpening=1.0)(picture)[H // 2, :, 1].astype(int)
    assert edge.min() < 98 and edge.max() > 165 and edge[0] == pytest.approx(100, abs=1)
    picture = plain(60, 60, 60)
    picture[16:32, 24:40] = 255
    glow = sensor(bloom=0.5)(picture)[..., 1].astype(int)
    assert glow[14, 32] > glow[4, 32] > glow[0, 0] > 60  # dimmer away from what is overexposed


def test_compression_loses_little_and_borders_are_black():
    ramp = np.repeat(np.linspace(0, 255, W).astype(np.uint8)[None, :, None], H, 0).repeat(3, 2)
    error = np.abs(sensor(quality=40)(ramp).astype(int) - sensor()(ramp))
    assert 0 < error.mean() < 6
    out = sensor(gray=True, border=np.array([0.04, 0.0, 0.0, 0.04]))(plain(200, 100, 50))
    value = 255 * (np.array([200, 100, 50]) / 255) ** 2.2 @ [0.299, 0.587, 0.114] / 255
    assert np.abs(out[H // 2, 4:].astype(int) - 255 * value ** (1 / 2.2)).max() <= 1
    assert not out[0, 0].any() and not out[-1, W // 2 + 20].any() and out[0, -1].all()


def test_a_camera_is_determined_by_its_random_numbers():
    picture = cv2.resize(np.random.default_rng(1).integers(0, 255, (6, 8, 3)).astype(np.uint8), (W, H))
    first, second = (Sensor(np.random.default_rng(5), True)(picture) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (Sensor(np.random.default_rng(6), True)(picture) != first).any()
    assert first.shape == picture.shape and first.dtype == np.uint8
