"""What the core logs, as notes of a command."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gsemsplat_ros.terminal.console import Console

CORE = logging.getLogger('gsemsplat_ros')  # every module of the package logs below it


class NoteHandler(logging.Handler):
    """Shows a record as a note on stderr; warnings and errors say what they are."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        level = f'{record.levelname}: ' if record.levelno >= logging.WARNING else ''
        self.console.note(level + self.format(record))


@contextmanager
def log_as_notes(console: Console) -> Iterator[None]:
    """Until the end of the `with`, what the core logs from INFO on is a note of `console`."""
    handler, level = NoteHandler(console), CORE.level
    CORE.addHandler(handler)
    CORE.setLevel(logging.INFO)
    try:
        yield
    finally:
        CORE.setLevel(level)
        CORE.removeHandler(handler)
