"""An error in a service becomes the message of its response and never ends the node."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.exceptions import InvalidHandle

from gsemsplat_ros.terminal.console import printable

Response = TypeVar('Response', bound=Any)


def answered(what: str, work: Callable[[], None], response: Response, log: Callable[[str], Any]) -> Response:
    """`response`, after `work` has filled it, or one that holds the error alone. ValueError is the caller's
    mistake; all else a fault of ours, which goes to the log with `what` failed."""
    try:
        work()
        return response
    except ValueError as error:
        message = str(error)
    except InvalidHandle:  # a publisher that was taken down
        message = 'the node was cleaned up meanwhile'
    except BaseException as error:  # a panic of a library in Rust is no Exception
        log(f'{what} failed:\n{traceback.format_exc()}')
        message = f'internal error ({type(error).__name__}: {error}): see the log of the node'
    return type(response)(success=False, message=printable(message))
