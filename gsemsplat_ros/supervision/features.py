"""Target features of the views, in the text space: a small file for each frame.

FOLDER/space.json names the space. FOLDER/SCENE/NAME.npz holds a frame: a map of ids as PNG with one feature
(fp16) per id, and the dense map at the encoder's resolution, 8 bits per channel with one factor per pixel
(cosine to the original above 0.9999). 512-d images would be a hundred times larger.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.files import write_whole

SPACE = 'space.json'
LEVELS = 127  # of an 8-bit channel


@dataclass(frozen=True)
class Space:
    """The text space of a folder, and how its features were made.

    encoder: name of the text space; dim: C; text_mean: C numbers, or None; source, split: kind and split of
    the scenes; height, width: of the frames [px]; regions: source of the masks.
    """

    encoder: str
    dim: int
    text_mean: list[float] | None
    source: str
    split: str
    height: int
    width: int
    regions: str


@dataclass(frozen=True)
class Supervision:
    """Targets of one frame: ids (H, W) uint16, rows of `features` counted from 1, 0 for none; features (M, C)
    float32, region-specific unit rows; context (h, w, C) float32, context-aware unit vectors."""

    ids: np.ndarray
    features: np.ndarray
    context: np.ndarray


class Features:
    """A folder of target features."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def space(self) -> Space:
        """The space of the folder. Raises ValueError if there is none, or one of another version."""
        path = self.folder / SPACE
        try:
            return Space(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise ValueError(
                f'no features in {self.folder}: make them with `gsemsplat train prepare`'
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f'{path} cannot be read ({error}): prepare into another folder') from None

    def begin(self, space: Space) -> None:
        """Write the space into a new folder. Raises ValueError if the folder already has another one."""
        path = self.folder / SPACE
        if path.exists():
            before, wanted = asdict(self.space()), asdict(space)
            differs = [name for name in wanted if before[name] != wanted[name]]
            if differs:
                name = differs[0]
                raise ValueError(
                    f'{self.folder} holds features with another {name}'
                    + (f' ({before[name]}, wanted {wanted[name]})' if name != 'text_mean' else '')
                    + ': give another --out'
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as part:
            part.write_text(json.dumps(asdict(space)))

    def path(self, scene: str, name: str) -> Path:
        """The file of a frame."""
        return self.folder / scene / f'{name}.npz'

    def has(self, scene: str, name: str) -> bool:
        """Whether the file of a frame exists."""
        return self.path(scene, name).is_file()

    def save(self, scene: str, name: str, supervision: Supervision) -> None:
        """Write the file of a frame, atomically."""
        scale = np.abs(supervision.context).max(-1, keepdims=True).clip(1e-12) / LEVELS
        png = cv2.imencode('.png', supervision.ids)[1].ravel()
        path = self.path(scene, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as part, part.open('wb') as file:
            np.savez(
                file,
                ids=png,
                features=supervision.features.astype(np.float16),
                context=np.rint(supervision.context / scale).astype(np.int8),
                scale=scale.astype(np.float32),
            )

    def load(self, scene: str, name: str) -> Supervision:
        """Read the file of a frame. Raises ValueError if it is missing or cannot be read."""
        path = self.path(scene, name)
        try:
            with np.load(path, allow_pickle=False) as file:
                ids = cv2.imdecode(file['ids'], cv2.IMREAD_UNCHANGED)
                if ids is None:
                    raise ValueError('no map of ids')
                return Supervision(
                    ids,
                    file['features'].astype(np.float32),
                    file['context'].astype(np.float32) * file['scale'],
                )
        except FileNotFoundError:
            raise ValueError(
                f'no features at {path}: run `gsemsplat train prepare` again, it makes what is missing'
            ) from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f'{path} cannot be read ({type(error).__name__}): delete it and prepare again'
            ) from None
