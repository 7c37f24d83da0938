"""The table of formats, and the one way to write any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gsemsplat_ros.formats.axes import Axes
from gsemsplat_ros.formats.glb import write_glb
from gsemsplat_ros.formats.html_page import write_html
from gsemsplat_ros.formats.ply import write_ply
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.formats.spz import write_spz
from gsemsplat_ros.formats.usda import write_usda


class Writer(NamedTuple):
    """write: makes the file of splats, which come in `axes`; None: as they lie."""

    write: Callable[[Path, Splats], None]
    axes: Axes | None


WRITERS = {
    '.ply': Writer(lambda path, splats: write_ply(path, *splats.without_codes().parts), None),
    '.glb': Writer(write_glb, None),  # which turns them itself, and says how they lay
    '.spz': Writer(write_spz, Axes.Y_UP),
    '.usda': Writer(write_usda, Axes.Z_UP),
    '.html': Writer(write_html, None),
}


def writer_of(path: Path) -> Writer:
    """The writer of the format that the suffix of `path` names. Raises ValueError for another suffix."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f'{path} names no format: wanted a name that ends in {", ".join(WRITERS)}')
    return writer


def write(path: Path, splats: Splats) -> None:
    """Write `splats` in the format that the suffix of `path` names. The file appears whole or not at all.

    Raises ValueError, in one line, for another suffix, and where the file cannot be written.
    """
    writer = writer_of(path)
    try:
        writer.write(path, splats if writer.axes is None else splats.turned(writer.axes))
    except OSError as error:
        raise ValueError(
            f'cannot write {path} ({error.strerror or error}): is there space, and may this user write there?'
        ) from None
