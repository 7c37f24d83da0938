"""Packed rooms: samples to a file a room and back, also while more are being packed. Needs no renderer.

A folder holds a .npz a room and `names.json`: every name of its split with its base noun.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.images.camera import Camera

FURNITURE_VERSION = 2  # of the choice and split of the furniture in rooms packed now
VOCABULARY = 'names.json'  # every name of the split with its base noun
VIEWS = 3  # of a sample
JPEG_QUALITY = 93


class PackedRooms:
    """The samples of a folder of packed rooms, by number. Raises ValueError for a folder without any."""

    def __init__(self, folder: str | Path, kept: int = 4096):
        """`kept`: largest number of packed rooms in memory (0.6 MB each at 192 x 256)."""
        self.folder, self.kept = Path(folder), kept
        self.cache: OrderedDict[Path, dict] = OrderedDict()
        self.lock = threading.Lock()
        self.index: list[tuple[Path, int]] = []
        self.known: set[Path] = set()
        if not self.refresh():
            raise ValueError(
                f'no packed rooms in {folder}: make some with '
                f'`gsemsplat train --data {folder} --rooms 400 --out RUN`'
            )

    def refresh(self) -> int:
        """Add rooms that appeared since; returns the number of samples."""
        for path in sorted(self.folder.glob('*.npz')):
            if path not in self.known:
                self.known.add(path)
                self.index += [(path, i) for i in range(len(self.read(path)['K']))]
        return len(self.index)

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """The arrays of one file, cached. Raises ValueError for a file that `encode` did not fill."""
        room = self.cache.get(path)
        if room is None:
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                    room = {k: file[k] for k in file.files}
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise ValueError(f'{path} is no packed room ({error}): delete it and pack it again') from None
            made = int(room.get('furniture', 1))
            if made != FURNITURE_VERSION:  # with another split it may show held-out furniture
                raise ValueError(
                    f'{path} holds furniture of version {made}, wanted {FURNITURE_VERSION}: pack the rooms '
                    'into a new folder'
                )
            with self.lock:  # loader threads read in parallel
                self.cache[path] = room
                if len(self.cache) > self.kept:
                    self.cache.popitem(last=False)
        return room

    def vocabulary(self) -> dict[str, str]:
        """Name -> base noun of all objects of these rooms. Raises ValueError where the file is missing."""
        path = self.folder / VOCABULARY
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f'{path} cannot be read ({error}): pack at least one room into {self.folder}'
            ) from None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        path, i = self.index[number]
        return decode(self.read(path), i)


def encode(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Samples of one room to the arrays of its file: JPEG pictures, PNG depths [mm] and PNG instances as one
    string of bytes with the ends of its parts; the rest unchanged.
    """
    blobs = []
    for sample in samples:
        for i in range(VIEWS):
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            blobs.append(cv2.imencode('.jpg', sample.images[i, ..., ::-1], quality)[1])
            blobs.append(cv2.imencode('.png', np.rint(sample.depth[i] * 1000).astype(np.uint16))[1])
            blobs.append(cv2.imencode('.png', sample.instance[i].astype(np.uint16))[1])
    return {
        'bytes': np.concatenate(blobs),
        'ends': np.cumsum([len(blob) for blob in blobs]),
        'first_from_camera': np.stack([sample.first_from_camera for sample in samples]),
        'K': np.stack([sample.camera.K for sample in samples]),
        'stereo': np.array([sample.stereo for sample in samples]),
        'names': np.frombuffer(json.dumps(list(samples[0].names)).encode(), np.uint8),
        'furniture': np.array(FURNITURE_VERSION),
    }


def decode(room: dict[str, np.ndarray], i: int) -> Sample:
    """Sample number `i` of the arrays that `encode` made."""
    parts = 3 * VIEWS  # of a sample: picture, depth and instances of each view
    starts = np.concatenate(([0], room['ends']))[parts * i : parts * (i + 1) + 1]
    blobs = [room['bytes'][a:b] for a, b in pairwise(starts)]
    images = np.stack([_decoded(blob, cv2.IMREAD_COLOR)[..., ::-1] for blob in blobs[::3]])
    depth = np.stack([_decoded(blob, cv2.IMREAD_UNCHANGED) for blob in blobs[1::3]])
    instance = np.stack([_decoded(blob, cv2.IMREAD_UNCHANGED) for blob in blobs[2::3]])
    height, width = depth.shape[1:]
    return Sample(
        images,
        depth.astype(np.float32) / 1000,
        instance.astype(np.int16),
        room['first_from_camera'][i],
        Camera.from_K(room['K'][i], width, height),
        json.loads(bytes(room['names'])),
        bool(room['stereo'][i]),
    )


def _decoded(blob: np.ndarray, flags: int) -> np.ndarray:
    picture = cv2.imdecode(blob, flags)
    if picture is None:
        raise ValueError('a packed room holds bytes that are no picture: delete its file and pack it again')
    return picture
