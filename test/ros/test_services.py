"""An error in a service: its message, and no success, whatever was filled before."""

import pytest
from gsemsplat_msgs.srv import Query

from gsemsplat_ros.ros.services import answered


@pytest.mark.parametrize(
    'error, message, logged',
    [
        (ValueError('empty query'), 'empty query', 0),
        (RuntimeError('broken'), 'internal error (RuntimeError: broken): see the log of the node', 1),
    ],
)
def test_a_response_that_was_filled_before_the_error_is_no_success(error, message, logged):
    response, log = Query.Response(), []

    def work():
        response.success, response.message = True, "'chair' found"
        raise error

    assert answered('query', work, response, log.append) is response
    assert (response.success, response.message, len(log)) == (False, message, logged)
    assert all('query failed' in line for line in log)
