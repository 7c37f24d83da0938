"""Pictures of rooms: depths and names in colours, and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.datasets.packed_rooms import PackedRooms
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.files import write_whole
from gsemsplat_ros.pictures.labels import name_map
from gsemsplat_ros.pictures.overlay import ROOM, depth_picture


def sheet(samples: list[Sample]) -> np.ndarray:
    """(H, W, 3) uint8 RGB, a row per sample: first, second and target view, depth and names of the first."""
    return np.vstack(
        [
            np.hstack(
                [
                    *sample.images,
                    depth_picture(sample.depth[0], ROOM)[0],
                    name_map(sample.instance[0], list(sample.names)),
                ]
            )
            for sample in samples
        ]
    )


def preview(folder: str | Path, out: str | Path, rows: int = 8) -> None:
    """Write the sheet of `rows` samples, evenly spread over the packed rooms of `folder`, as PNG or JPEG.

    Raises ValueError for a folder without packed rooms, and unless `out` ends in .png or .jpg.
    """
    out = Path(out)
    if out.suffix not in ('.png', '.jpg'):
        raise ValueError(f'{out}: wanted a picture whose name ends in .png or .jpg')
    rooms = PackedRooms(folder)
    numbers = np.linspace(0, len(rooms) - 1, min(rows, len(rooms))).astype(int)
    picture = cv2.imencode(out.suffix, sheet([rooms[int(i)] for i in numbers])[..., ::-1])[1]
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as part:
        part.write_bytes(picture.tobytes())
