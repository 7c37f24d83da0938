"""Files that commands write."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gsemsplat_ros.files import write_whole
from gsemsplat_ros.terminal.json_values import without_nan


def output_folder(path: str | Path) -> Path:
    """Make the folder `path` before the work begins. Raises ValueError if it cannot be made or written to."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'cannot make the folder {path} ({error.strerror}): give another --out') from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f'the folder {path} cannot be written to: give another --out')
    return path


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with write_whole(path) as part:
        part.write_text(text, encoding='utf-8')


def write_json(path: Path, value: dict) -> None:
    """Write `value` as indented JSON; NaN becomes null."""
    write_text(path, json.dumps(without_nan(value), indent=2, allow_nan=False) + '\n')
