"""What the core logs by Python's `logging`, on the log of the node: console, file and /rosout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.impl.rcutils_logger import RcutilsLogger

CORE = 'gsemsplat_ros'  # all modules' loggers are below it


class RosHandler(logging.Handler):
    """Hands records to a logger of ROS, which filters by its own level."""

    def __init__(self, logger: RcutilsLogger):
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """A line for each level: ROS allows one level at a place in the code."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        elif record.levelno >= logging.INFO:
            self._logger.info(message)
        else:
            self._logger.debug(message)


@contextmanager
def core_log_to(logger: RcutilsLogger) -> Iterator[None]:
    """The core's log goes to `logger` alone, within the `with`."""
    core, handler = logging.getLogger(CORE), RosHandler(logger)
    before = core.level, core.propagate
    core.addHandler(handler)
    core.setLevel(logging.DEBUG)
    core.propagate = False
    try:
        yield
    finally:
        core.removeHandler(handler)
        core.setLevel(before[0])
        core.propagate = before[1]
