"""Log messages of the core as notes of a command."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gsemsplat_ros.terminal.console import Console

CORE = logging.getLogger('gsemsplat_ros')  # parent of the loggers of all modules


class NoteHandler(logging.Handler):
    """Prints records as notes on stderr; warnings and errors with their level."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        level = f'{record.levelname}: ' if record.levelno >= logging.WARNING else ''
        self.console.note(level + self.format(record))


@contextmanager
def log_as_notes(console: Console) -> Iterator[None]:
    """Inside, messages of the core from INFO upwards are notes of `console`."""
    handler, level = NoteHandler(console), CORE.level
    CORE.addHandler(handler)
    CORE.setLevel(logging.INFO)
    try:
        yield
    finally:
        CORE.setLevel(level)
        CORE.removeHandler(handler)
