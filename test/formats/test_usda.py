"""OpenUSD files read by tinyusdz, value by value, and by OpenUSD itself where it is installed (usd-core)."""

import numpy as np
import pytest
from support.independent_readers import USD_COLUMNS, covariances, usda
from support.random_gaussians import random_gaussians

from gsemsplat_ros.formats.axes import Axes
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.formats.writers import write

UP = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # forward, left, up from right, down, forward
C0 = 0.28209479177387814
SCHEMA = 'ParticleField3DGaussianSplat'
SH = USD_COLUMNS[-1]


@pytest.fixture(scope='module')
def gaussians():
    return random_gaussians(1000, seed=6)[0]


@pytest.fixture(scope='module')
def file(gaussians, tmp_path_factory):
    path = tmp_path_factory.mktemp('usd') / 'room.usda'
    parts = gaussians.select(slice(0, 300)), gaussians.select(slice(300, None))
    write(path, Splats(parts, Axes.OPTICAL, True))
    return path


def agrees(columns, gaussians):
    """columns: by name, quaternions w x y z; seven digits of each number."""
    np.testing.assert_allclose(columns['positions'], gaussians.means.numpy() @ UP.T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(columns['scales'], gaussians.scales.numpy(), rtol=1e-6)
    np.testing.assert_allclose(columns['opacities'], gaussians.opacities.numpy(), rtol=1e-6)
    np.testing.assert_allclose(columns[SH] * C0 + 0.5, gaussians.colors.numpy(), atol=1e-6)
    found = covariances(columns['orientations'].astype(float), columns['scales'].astype(float))
    np.testing.assert_allclose(found, UP @ gaussians.covariances().double().numpy() @ UP.T, atol=1e-6)


def test_another_program_reads_the_gaussians(file, gaussians):
    pytest.importorskip('tinyusdz', reason='tinyusdz has no wheel for Python 3.10')
    stage, prim, columns = usda(file)
    assert [stage.get_metadata(name) for name in ('upAxis', 'metersPerUnit')] == ['Z', 1]
    assert prim.type_name == SCHEMA
    agrees(columns, gaussians)
    assert prim.get_attribute('radiance:sphericalHarmonicsDegree').value.as_scalar() == 0
    low, high = np.asarray(prim.get_attribute('extent').value)
    spread = 3 * np.sqrt(np.einsum('nii->ni', UP @ gaussians.covariances().numpy() @ UP.T))
    np.testing.assert_allclose(low, (gaussians.means.numpy() @ UP.T - spread).min(0), atol=1e-5)
    np.testing.assert_allclose(high, (gaussians.means.numpy() @ UP.T + spread).max(0), atol=1e-5)


@pytest.mark.heavy  # usd-core is no part of the extra `test`: it takes 29 MB to load and 157 MB to keep
def test_openusd_reads_the_gaussians_and_finds_no_fault(file, gaussians):
    pytest.importorskip('pxr', reason='usd-core is not installed')
    from pxr import Usd, UsdGeom, UsdValidation, UsdVol

    stage = Usd.Stage.Open(str(file))
    prim = stage.GetDefaultPrim()
    assert prim.IsA(getattr(UsdVol, SCHEMA)) and prim.GetTypeName() == SCHEMA
    assert UsdGeom.GetStageUpAxis(stage) == 'Z' and UsdGeom.GetStageMetersPerUnit(stage) == 1
    columns = {name: prim.GetAttribute(name).Get() for name in USD_COLUMNS}
    quats = [(quat.GetReal(), *quat.GetImaginary()) for quat in columns['orientations']]
    agrees(
        {name: np.array(column) for name, column in (columns | {'orientations': quats}).items()}, gaussians
    )
    assert set(prim.GetAuthoredPropertyNames()) <= set(prim.GetPrimDefinition().GetPropertyNames())
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    faults = UsdValidation.ValidationContext(validators).Validate(stage)
    assert not faults, [fault.GetMessage() for fault in faults]


def test_nothing_is_an_empty_field(tmp_path, gaussians):
    write(tmp_path / 'a.usda', Splats((gaussians.select(slice(0, 0)),), Axes.Z_UP))
    text = (tmp_path / 'a.usda').read_text()
    assert 'positions = []' in text and 'extent = [(0, 0, 0), (0, 0, 0)]' in text
