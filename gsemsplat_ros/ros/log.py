"""The log of the node: console, file and /rosout; what the core logs by Python's `logging` goes there too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.impl.rcutils_logger import RcutilsLogger

from gsemsplat_ros.terminal.console import printable_lines

CORE = 'gsemsplat_ros'  # all modules' loggers are below it
INDENT = '    '


class NodeLog:
    """Hands messages to a logger of ROS. They hold names from messages and files: whatever these contain, no
    escape sequence gets through, and lines after the first are indented, so that none looks like a record."""

    def __init__(self, logger: RcutilsLogger):
        self._logger = logger

    # a function for each level: ROS allows one level at a place in the code

    def error(self, message: str) -> None:
        """A fault, or why something asked for is not done."""
        self._logger.error(printable_lines(message, INDENT))

    def warning(self, message: str) -> None:
        """What is wrong while the node goes on."""
        self._logger.warning(printable_lines(message, INDENT))

    def info(self, message: str) -> None:
        """What is done."""
        self._logger.info(printable_lines(message, INDENT))

    def debug(self, message: str) -> None:
        """For who looks for a fault; ROS does not show it unless asked."""
        self._logger.debug(printable_lines(message, INDENT))


class RosHandler(logging.Handler):
    """Hands records to the log of a node."""

    def __init__(self, log: NodeLog):
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """At the level of the record."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._log.error(message)
        elif record.levelno >= logging.WARNING:
            self._log.warning(message)
        elif record.levelno >= logging.INFO:
            self._log.info(message)
        else:
            self._log.debug(message)


@contextmanager
def core_log_to(log: NodeLog) -> Iterator[None]:
    """The core's log goes to `log` alone, within the `with`."""
    core, handler = logging.getLogger(CORE), RosHandler(log)
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
