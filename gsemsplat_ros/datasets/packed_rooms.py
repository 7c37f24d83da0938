"""Packed rooms read back while more are being packed. Needs no renderer."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np

FURNITURE_VERSION = 2  # of the choice and the split of the furniture in the rooms that are packed today
VOCABULARY = 'names.json'  # every name of the split with its base noun


class PackedRooms:
    """The samples of a folder of packed rooms, by number. Raises ValueError for a folder without any."""

    def __init__(self, folder: str | Path, kept: int = 4096):
        """`kept`: how many packed rooms stay in memory (0.6 MB each at 192 x 256)."""
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
        """Take in rooms that appeared since; returns the number of samples."""
        for path in sorted(self.folder.glob('*.npz')):
            if path not in self.known:
                self.known.add(path)
                self.index += [(path, i) for i in range(len(self.read(path)['K']))]
        return len(self.index)

    def read(self, path: Path) -> dict[str, np.ndarray]:
        room = self.cache.get(path)
        if room is None:
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                    room = {k: file[k] for k in file.files}
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise ValueError(f'{path} is no packed room ({error}): delete it and pack it again') from None
            made = int(room.get('furniture', 1))
            if made != FURNITURE_VERSION:  # another split: what is held out may stand in it
                raise ValueError(
                    f'{path} holds furniture of version {made}, wanted {FURNITURE_VERSION}: pack the rooms '
                    'into a new folder'
                )
            with self.lock:  # loader threads read side by side
                self.cache[path] = room
                if len(self.cache) > self.kept:
                    self.cache.popitem(last=False)
        return room

    def vocabulary(self) -> dict[str, str]:
        """Name -> base noun of everything that these rooms can hold. Raises ValueError where the file is
        missing.
        """
        path = self.folder / VOCABULARY
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f'{path} cannot be read ({error}): pack at least one room into {self.folder}'
            ) from None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> dict:
        path, i = self.index[number]
        room = self.read(path)
        starts = np.concatenate(([0], room['ends']))[9 * i : 9 * i + 10]
        blobs = [room['bytes'][a:b] for a, b in zip(starts, starts[1:])]
        return {
            'images': np.stack([cv2.imdecode(b, cv2.IMREAD_COLOR)[..., ::-1] for b in blobs[::3]]),
            'depth': np.stack([cv2.imdecode(b, cv2.IMREAD_UNCHANGED) for b in blobs[1::3]]).astype(np.float32)
            / 1000,
            'instance': np.stack([cv2.imdecode(b, cv2.IMREAD_UNCHANGED) for b in blobs[2::3]]).astype(
                np.int16
            ),
            'first_from_camera': room['first_from_camera'][i],
            'K': room['K'][i],
            'names': json.loads(bytes(room['names'])),
            'stereo': bool(room['stereo'][i]),
        }
