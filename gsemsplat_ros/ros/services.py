"""An error in a service becomes the message of its response and never ends the node."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

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
    except Exception as error:
        log(f'{what} failed:\n{traceback.format_exc()}')
        message = f'internal error ({type(error).__name__}: {error}): see the log of the node'
    return type(response)(success=False, message=printable(message))
