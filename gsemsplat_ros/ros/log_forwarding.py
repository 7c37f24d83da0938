"""What the core logs, on the log of the node: on its stderr, in its log file and on /rosout."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

CORE = logging.getLogger('gsemsplat_ros')  # every module of the package logs below it


class LogForwarding(logging.Handler):
    """Hands what the core logs from INFO on to a node's logger, until it is closed. Any thread may log."""

    def __init__(self, logger: RcutilsLogger):
        super().__init__()
        self._logger, self._level = logger, CORE.level
        CORE.addHandler(self)
        CORE.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # a line each: rclpy lets no line of code log with two severities
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)

    def close(self) -> None:
        CORE.removeHandler(self)
        CORE.setLevel(self._level)
        super().close()
