"""SPZ files read by GaussForge, value by value, within the steps that the format has."""

import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.independent_readers import by_gaussforge, plain_gaussians
from support.random_gaussians import random_gaussians

from gsemsplat_ros.formats import spz
from gsemsplat_ros.formats.axes import Axes
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.formats.writers import write

FLIP = np.diag([1.0, -1.0, -1.0])  # from right, down, forward to right, up, backward


@pytest.fixture(scope='module')
def gaussians():
    return random_gaussians(1000, seed=3)[0]


def agrees(found, gaussians):
    """Fixed point of 1/4096; scales to 1/32 of their logarithm, rotations to 0.002; bytes of the others."""
    wanted = FLIP @ gaussians.covariances().double().numpy() @ FLIP
    np.testing.assert_allclose(found['means'], gaussians.means.numpy() @ FLIP, atol=0.5 / 4096 + 1e-6)
    off = np.linalg.norm(found['covariances'] - wanted, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))
    assert off.max() < 0.075 and np.median(off) < 0.04, (off.max(), np.median(off))
    np.testing.assert_allclose(found['opacities'], gaussians.opacities.numpy(), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(found['colors'], gaussians.colors.numpy(), atol=0.2821 / 0.15 / 255 / 2 + 1e-5)


@pytest.mark.parametrize('version', [3, 4])
def test_another_program_reads_the_gaussians(tmp_path, gaussians, version, monkeypatch):
    if version == 4:
        monkeypatch.setattr(spz, 'MOST', 999)  # the version follows from the number
    splats = Splats((gaussians.select(slice(0, 300)), gaussians.select(slice(300, None))), Axes.OPTICAL)
    write(tmp_path / 'a.spz', splats)
    head = (tmp_path / 'a.spz').read_bytes()[:8]
    assert (head[:2] == b'\x1f\x8b') if version == 3 else struct.unpack('<II', head) == (spz.MAGIC, 4)
    agrees(plain_gaussians(by_gaussforge(tmp_path / 'a.spz')), gaussians)


def test_what_is_far_away_or_at_a_limit_is_kept_as_well_as_it_goes(tmp_path, gaussians):
    opaque = torch.ones(len(gaussians))
    opaque[0] = 0
    far = replace(gaussians.scaled(1e4), opacities=opaque)
    write(tmp_path / 'a.spz', Splats((far,), Axes.Y_UP))
    fraction = gzip.decompress((tmp_path / 'a.spz').read_bytes())[13]
    largest = float(far.means.abs().max())
    assert largest * 2**fraction < 2**23 <= 2 * largest * 2**fraction
    found = by_gaussforge(tmp_path / 'a.spz')
    assert all(np.isfinite(column).all() for column in found.values())
    means = plain_gaussians(found)['means']
    np.testing.assert_allclose(means, far.means.numpy(), atol=0.51 / 2**fraction)


def test_nothing_is_no_file(tmp_path, gaussians):
    with pytest.raises(ValueError, match='no Gaussians'):
        write(tmp_path / 'a.spz', Splats((gaussians.select(slice(0, 0)),), Axes.OPTICAL))
    assert not list(tmp_path.iterdir())
