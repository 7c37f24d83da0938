"""An error in a service: its message and nothing else, whatever was filled before."""

import pytest
from gsemsplat_msgs.msg import Object
from gsemsplat_msgs.srv import Query
from rclpy.exceptions import InvalidHandle

from gsemsplat_ros.ros.services import answered


@pytest.mark.parametrize(
    'error, message, logged',
    [
        (ValueError('empty query'), 'empty query', 0),
        (ValueError('no map a\nb\x1b[2J\ud800'), 'no map a b\ufffd[2J\ufffd', 0),
        (InvalidHandle('destruction was requested'), 'the node was cleaned up meanwhile', 0),
        (RuntimeError('broken'), 'internal error (RuntimeError: broken): see the log of the node', 1),
        (BaseException('panic'), 'internal error (BaseException: panic): see the log of the node', 1),
    ],
)
def test_of_a_response_that_was_filled_before_the_error_nothing_is_left(error, message, logged):
    response, log = Query.Response(), []

    def work():
        response.success, response.found, response.message = True, True, "'chair' found"
        response.objects = [Object(label='chair')]
        raise error

    given = answered('query', work, response, log.append)
    assert given == Query.Response(success=False, message=message)
    assert len(log) == logged
    assert all('query failed' in line for line in log)
