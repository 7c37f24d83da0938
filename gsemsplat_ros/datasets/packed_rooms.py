"""Packed rooms: samples to a file a room and back, also while more are being packed. Needs no renderer.

A folder holds a .npz a room and `names.json`: every name of its split with its base noun.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.images.camera import Camera

FURNITURE_VERSION = 2  # of the choice and split of the furniture in rooms packed now
VOCABULARY = 'names.json'  # every name of the split with its base noun
VIEWS = 3  # of a sample
PARTS = 3 * VIEWS  # of a sample: picture, depth and instances of each view
JPEG_QUALITY = 93
LOCAL_HEADER = 30  # bytes of a zip entry before its name


@dataclass(frozen=True)
class PackedRoom:
    """A file without its pictures, which are read when they are asked for.

    path: of the file; start: of the pictures in it [bytes]; ends (PARTS P,): of each picture, from `start`;
    first_from_camera (P, 3, 4, 4) and K (P, 3, 3) of its P samples; stereo (P,) bool; names of the instances.
    """

    path: Path
    start: int
    ends: np.ndarray
    first_from_camera: np.ndarray
    K: np.ndarray
    stereo: np.ndarray
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.K)

    @classmethod
    def read(cls, path: Path) -> PackedRoom:
        """Raises ValueError for a file that `encode` did not fill."""
        try:
            with zipfile.ZipFile(path) as file:
                entry = file.getinfo('bytes.npy')
                room = {
                    name.removesuffix('.npy'): np.load(io.BytesIO(file.read(name)), allow_pickle=False)
                    for name in file.namelist()
                    if name != entry.filename
                }
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError('its pictures are compressed twice')
            with path.open('rb') as data:
                data.seek(entry.header_offset)
                lengths = struct.unpack('<HH', data.read(LOCAL_HEADER)[-4:])
            made = int(room.get('furniture', 1))
            end = entry.header_offset + LOCAL_HEADER + sum(lengths) + entry.file_size
            names = json.loads(bytes(room['names']))
            found = cls(
                path,
                end - int(room['ends'][-1]),
                room['ends'],
                room['first_from_camera'],
                room['K'],
                room['stereo'],
                names,
            )
        except (OSError, ValueError, KeyError, IndexError, struct.error, zipfile.BadZipFile) as error:
            raise ValueError(f'{path} is no packed room ({error}): delete it and pack it again') from None
        if made != FURNITURE_VERSION:  # with another split it may show held-out furniture
            raise ValueError(
                f'{path} holds furniture of version {made}, wanted {FURNITURE_VERSION}: pack the rooms '
                'into a new folder'
            )
        return found

    def sample(self, i: int, views: int = VIEWS) -> Sample:
        """Sample number `i`; with `views` 2 without its target. Raises ValueError for a damaged file."""
        ends = np.concatenate(([0], self.ends))[PARTS * i : PARTS * i + 3 * views + 1].tolist()
        with self.path.open('rb') as file:
            file.seek(self.start + ends[0])
            data = np.frombuffer(file.read(ends[-1] - ends[0]), np.uint8)
        blobs = [data[a - ends[0] : b - ends[0]] for a, b in pairwise(ends)]
        first = _decoded(blobs[1], cv2.IMREAD_UNCHANGED)
        images = np.empty((views, *first.shape, 3), np.uint8)
        depth = np.empty((views, *first.shape), np.float32)
        instance = np.empty((views, *first.shape), np.int16)
        for view in range(views):
            picture = _decoded(blobs[3 * view], cv2.IMREAD_COLOR)
            cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=images[view])
            millimetres = _decoded(blobs[3 * view + 1], cv2.IMREAD_UNCHANGED) if view else first
            np.divide(millimetres, np.float32(1000), out=depth[view])
            instance[view] = _decoded(blobs[3 * view + 2], cv2.IMREAD_UNCHANGED)
        camera = Camera.from_K(self.K[i], *first.shape[::-1])
        poses = self.first_from_camera[i][:views]
        return Sample(images, depth, instance, poses, camera, self.names, bool(self.stereo[i]))


class PackedRooms:
    """The samples of a folder of packed rooms, by number. Raises ValueError for a folder without any."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.rooms: dict[Path, PackedRoom] = {}
        self.index: list[tuple[Path, int]] = []
        if not self.refresh():
            raise ValueError(
                f'no packed rooms in {folder}: make some with '
                f'`gsemsplat train --data {folder} --rooms 400 --out RUN`'
            )

    def refresh(self) -> int:
        """Add rooms that appeared since; returns the number of samples."""
        for path in sorted(self.folder.glob('*.npz')):
            if path not in self.rooms:
                self.rooms[path] = room = PackedRoom.read(path)
                self.index += [(path, i) for i in range(len(room))]
        return len(self.index)

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
        return self.rooms[path].sample(i)


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


def _decoded(blob: np.ndarray, flags: int) -> np.ndarray:
    picture = cv2.imdecode(blob, flags) if len(blob) else None
    if picture is None:
        raise ValueError('a packed room holds bytes that are no picture: delete its file and pack it again')
    return picture
