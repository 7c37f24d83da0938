"""ScanNet++ on disk after undistortion and rendering of depths (docs/published.md 34).

ROOT/raw/splits/nvs_sem_{train,val}.txt                         scenes, one a line
ROOT/raw/data/SCENE/dslr/train_test_lists.json                  "train": file names
ROOT/raw/data/SCENE/dslr/nerfstudio/transforms.json             which frames are bad
ROOT/processed/SCENE/dslr/nerfstudio/transforms_undistorted.json    fl_x, fl_y, cx, cy, poses
ROOT/processed/SCENE/dslr/undistorted_images/NAME.JPG
ROOT/processed/SCENE/dslr/undistorted_depths/NAME.png           16 bits, mm, 0 unknown
ROOT/coverage/SCENE.json                                        optional: the published coverage
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from gsemsplat_ros.datasets.coverage import read_published
from gsemsplat_ros.datasets.frames import SIZE, Cut, Frame, Geometry, Source, read_color, read_depth
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.image_file import image_size

MILLIMETRES = 1000
LEFT_OUT = {'train': '303745abc7', 'val': 'cc5237fd77'}  # scenes that the published training leaves out
FLIP = np.diag((1.0, -1.0, -1.0, 1.0))  # OpenGL axes to OpenCV


class ScanNetPP(Source):
    """One split of ScanNet++. Raises ValueError, naming the file, for each missing piece."""

    kind = 'scannetpp'

    def __init__(self, root: str | Path, split: str = 'train', height: int = SIZE, width: int = SIZE):
        self.root, self.split, self.height, self.width = Path(root), split, height, width
        listed = self.root / 'raw' / 'splits' / f'nvs_sem_{split}.txt'
        if not listed.is_file():
            raise ValueError(
                f'no list of scenes at {listed}: wanted the folder `splits` of the ScanNet++ download '
                'under ROOT/raw'
            )
        scenes = listed.read_text().split()
        self.scenes = tuple(scene for scene in scenes if scene != LEFT_OUT.get(split))
        if not self.scenes:
            raise ValueError(f'{listed} names no scene')
        self._scene = lru_cache(None)(self._read_scene)

    def frames(self, scene: str) -> tuple[str, ...]:
        return tuple(self._scene(scene)[0])

    def geometry(self, scene: str, name: str) -> Geometry:
        poses, _, _ = self._scene(scene)
        cut = self.cut(scene, name)
        path = self._processed(scene) / 'undistorted_depths' / f'{Path(name).stem}.png'
        depth = read_depth(path, MILLIMETRES)
        if depth.shape != (cut.source.height, cut.source.width):
            raise ValueError(
                f'{path} has {depth.shape[1]}x{depth.shape[0]} px, its image {cut.source.width}x'
                f'{cut.source.height}: wanted both of one size; render it with the undistorted intrinsics'
            )
        return Geometry(cut.nearest(depth), cut.camera, poses[name])

    def frame(self, scene: str, name: str) -> Frame:
        cut = self.cut(scene, name)
        return Frame(
            scene,
            name,
            cut.image(read_color(self._image(scene, name), cut.source)),
            self.geometry(scene, name),
        )

    def cut(self, scene: str, name: str) -> Cut:
        path = self._image(scene, name)
        if not path.exists():
            raise ValueError(f'no image at {path}: undistort the DSLR images of {scene} (scannetpp toolkit)')
        return Cut.of(Camera.from_K(self._scene(scene)[1], *image_size(path)), self.height, self.width)

    def published_coverage(self, scene: str) -> np.ndarray | None:
        return read_published(self.root / 'coverage' / f'{scene}.json', scene, self._scene(scene)[2])

    def _processed(self, scene: str) -> Path:
        return self.root / 'processed' / scene / 'dslr'

    def _image(self, scene: str, name: str) -> Path:
        return self._processed(scene) / 'undistorted_images' / name

    def _read_scene(self, scene: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Poses of the usable frames by name, K (3, 3), and which (N,) bool of the list are usable."""
        raw = self.root / 'raw' / 'data' / scene / 'dslr'
        listed = read_json(raw / 'train_test_lists.json', 'part of the ScanNet++ download')
        flags = read_json(raw / 'nerfstudio' / 'transforms.json', 'part of the ScanNet++ download')
        path = self._processed(scene) / 'nerfstudio' / 'transforms_undistorted.json'
        undistorted = read_json(path, 'what the undistortion of the scannetpp toolkit writes')
        try:
            names = listed['train']
            bad = {entry['file_path'] for entry in flags['frames'] if entry.get('is_bad')}
            K = np.array(
                [
                    [undistorted['fl_x'], 0, undistorted['cx']],
                    [0, undistorted['fl_y'], undistorted['cy']],
                    [0, 0, 1.0],
                ]
            )
            poses = {
                Path(entry['file_path']).name: FLIP @ np.array(entry['transform_matrix'], np.float64) @ FLIP
                for entry in undistorted['frames']
            }
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'{scene}: {error} is missing in its lists or transforms ({raw}, {path}); take the files of '
                'the ScanNet++ release'
            ) from None
        missing = [name for name in names if name not in poses and name not in bad]
        if missing:
            raise ValueError(
                f'{path} lacks the pose of {missing[0]}'
                + (f' (and {len(missing) - 1} more)' if len(missing) > 1 else '')
                + ', which the training list '
                'names: undistort the whole scene'
            )
        kept = np.array([name not in bad for name in names], bool)
        if kept.sum() < 2:
            raise ValueError(f'{scene} has {kept.sum()} usable frames: wanted at least 2')
        return {name: poses[name] for name, good in zip(names, kept) if good}, K, kept


def read_json(path: Path, what: str) -> dict:
    """A JSON file of a scene. Raises ValueError, with `what` the file is in words."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f'no {path}: it is {what}') from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f'{path} cannot be read ({type(error).__name__}): it is {what}; bring it again'
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f'{path} holds a {type(value).__name__}, wanted an object: it is {what}')
    return value
