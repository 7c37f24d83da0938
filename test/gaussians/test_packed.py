"""Packed splats: the bytes against a plain twin, and how exact they are."""

import struct

import numpy as np
import pytest
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.packed import SPLAT, covariances_of, pack
from gsemsplat_ros.gaussians.rotations import quats_to_rotations

HALF = 2.0**-11  # the largest relative error of rounding to half precision


def some_gaussians(count, smallest=1e-4, largest=0.3, extent=100.0, seed=5):
    """Of all sizes and shapes: flat, long and round ones."""
    random = np.random.default_rng(seed)
    quats = random.normal(size=(count, 4))
    scales = np.exp(random.uniform(np.log(smallest), np.log(largest), (count, 3)))
    values = {
        'means': random.uniform(-extent, extent, (count, 3)),
        'quats': quats / np.linalg.norm(quats, axis=1, keepdims=True),
        'scales': scales,
        'opacities': random.uniform(size=count),
        'colors': random.uniform(-0.1, 1.1, (count, 3)),
        'codes': np.zeros((count, 0)),
    }
    return Gaussians(
        **{name: torch.tensor(v, dtype=torch.float32) for name, v in values.items()}, frame='map'
    )


def exact(gaussians):
    """(N, 3, 3) covariances in float64."""
    axes = quats_to_rotations(gaussians.quats.double().numpy()) * gaussians.scales.double().numpy()[:, None]
    return axes @ axes.transpose(0, 2, 1)


def plain(gaussians):
    """The bytes, number by number, with NumPy's root of the covariance."""
    data = b''
    for mean, covariance, opacity, color in zip(
        gaussians.means.tolist(), exact(gaussians), gaussians.opacities.tolist(), gaussians.colors.tolist()
    ):
        root = np.linalg.cholesky(covariance)
        rgba = [round(min(max(value, 0.0), 1.0) * 255) for value in (*color, opacity)]
        data += struct.pack('<3f6e4B', *mean, *root[np.tril_indices(3)], *rgba)
    return data


def test_the_bytes_are_those_of_the_plain_twin():
    gaussians = some_gaussians(300, smallest=1e-2)
    splats = pack(gaussians, np.arange(300))
    wanted = np.frombuffer(plain(gaussians), SPLAT)
    assert SPLAT.itemsize == 28 == struct.calcsize('<3f6e4B')
    np.testing.assert_array_equal(splats['position'], wanted['position'])
    assert np.abs(splats['rgba'].astype(int) - wanted['rgba']).max() <= 1  # float32 beside a half
    assert (splats['rgba'] == wanted['rgba']).mean() > 0.999
    # the last digit of a half may fall either way
    np.testing.assert_allclose(
        splats['root'].astype(float), wanted['root'].astype(float), rtol=2.1 * HALF, atol=1e-6
    )
    assert (splats['root'] == wanted['root']).mean() > 0.99


def test_sizes_are_right_to_a_thousandth_and_no_covariance_is_indefinite():
    """The bound of docs/splats.md, down to discs 3,000 times as wide as thick."""
    gaussians = some_gaussians(5000)
    covariances = covariances_of(pack(gaussians, np.arange(5000))).astype(float)
    variances = np.linalg.eigvalsh(covariances)
    scales = np.sort(gaussians.scales.double().numpy(), axis=1)
    largest = scales[:, 2:]
    assert (variances > -1e-6 * largest**2).all()  # of float32 in the product
    errors = np.abs(np.sqrt(variances.clip(0)) - scales) / largest
    assert errors.max() < 3**0.5 * HALF + 1e-3 and np.median(errors.max(1)) < HALF
    halves = exact(gaussians).astype(np.float16).astype(float)
    assert (np.linalg.eigvalsh(halves)[:, 0] < 0).mean() > 0.1, 'covariances as halves would do'


def test_places_are_exact_to_micrometres_at_100_m():
    gaussians = some_gaussians(100)
    places = gaussians.means.double().numpy()
    np.testing.assert_array_equal(pack(gaussians, np.arange(100))['position'], places)
    assert np.spacing(np.float32(100)) / 2 < 4e-6
    assert np.abs(places.astype(np.float16).astype(float) - places).max() > 0.01, 'halves would do'


def test_what_is_not_finite_is_left_out_and_the_flattest_is_kept():
    gaussians = some_gaussians(40)
    for row, name in enumerate(('means', 'quats', 'scales', 'opacities', 'colors')):
        getattr(gaussians, name).view(40, -1)[3 * row, -1] = float('nan') if row % 2 else float('inf')
    gaussians.quats[20] = 0
    gaussians.scales[30] = torch.tensor([0.1, 0.05, 0.0])
    gaussians.scales[31] = 0
    gaussians.scales[32] = 1e6  # more than a half holds
    kept = [n for n in range(40) if n not in (0, 3, 6, 9, 12, 20)]
    splats = pack(gaussians, np.arange(40))
    np.testing.assert_array_equal(splats['position'], gaussians.means[kept].numpy())
    assert np.isfinite(splats['root']).all()
    flat = np.sqrt(np.linalg.eigvalsh(covariances_of(splats[[kept.index(30)]]).astype(float))[0].clip(0))
    np.testing.assert_allclose(flat, [0, 0.05, 0.1], atol=2e-4)
    assert not splats['root'][kept.index(31)].any()
    assert len(pack(gaussians, np.arange(0))) == 0


@pytest.mark.parametrize('axis', range(3))
def test_axes_that_are_those_of_the_frame(axis):
    scales = torch.full((1, 3), 0.02).index_fill(1, torch.tensor([axis]), 0.0)
    one = some_gaussians(1)
    one = Gaussians(
        one.means, torch.tensor([[1.0, 0, 0, 0]]), scales, one.opacities, one.colors, one.codes, 'map'
    )
    np.testing.assert_allclose(
        covariances_of(pack(one, np.arange(1)))[0], np.diag(scales[0].numpy() ** 2), rtol=2 * HALF
    )
