"""The table of formats, and the one way to write any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from gsemsplat_ros.formats.axes import Axes, turned
from gsemsplat_ros.formats.ply import write_ply
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera


@dataclass(frozen=True)
class Splats:
    """What is written: Gaussians in `axes`, in parts, at least one, one after the other.

    metric: whether lengths are metres. camera: the one at the origin that saw the scene, looking ahead; None
    for a map, and where it is unknown.
    """

    parts: tuple[Gaussians, ...]
    axes: Axes
    metric: bool = False
    camera: Camera | None = None

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def turned(self, axes: Axes) -> Splats:
        """The same in other axes."""
        return replace(self, parts=tuple(turned(part, axes, self.axes) for part in self.parts), axes=axes)

    def joined(self) -> Gaussians:
        """All parts in one."""
        return self.parts[0] if len(self.parts) == 1 else Gaussians.joined(self.parts)


class Writer(NamedTuple):
    """write: makes the file of splats, which come in `axes`; None: as they lie."""

    write: Callable[[Path, Splats], None]
    axes: Axes | None


WRITERS = {'.ply': Writer(lambda path, splats: write_ply(path, *splats.parts), None)}


def write(path: Path, splats: Splats) -> None:
    """Write `splats` in the format that the suffix of `path` names. The file appears whole or not at all.

    Raises ValueError, in one line, for another suffix, and where the file cannot be written.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f'{path} names no format: wanted a name that ends in {", ".join(WRITERS)}')
    try:
        writer.write(path, splats if writer.axes is None else splats.turned(writer.axes))
    except OSError as error:
        raise ValueError(
            f'cannot write {path} ({error.strerror or error}): is there space, and may this user write there?'
        ) from None
