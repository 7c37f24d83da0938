"""What several tests of rooms need."""

import pytest


@pytest.fixture(scope='module')
def furniture():
    """The packed models; skips where there are none."""
    from gsemsplat_ros.rooms.furniture import load_furniture

    try:
        return load_furniture()
    except ValueError as error:
        pytest.skip(str(error))
