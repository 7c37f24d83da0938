"""The simulated house, where its furniture is installed."""

import pytest


@pytest.fixture(scope='module')
def world():
    """The house of the demo in small images; skips where it cannot be rendered."""
    pytest.importorskip('moderngl', reason='moderngl is not installed')
    from gsemsplat_ros.simulation.world import World

    try:
        return World(128, 96)
    except ValueError as error:
        pytest.skip(str(error))
