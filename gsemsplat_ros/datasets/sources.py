"""The reader for a folder, and samples of its scenes: two context views and target views in one frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsemsplat_ros.datasets.coverage import coarse, coverage_matrix, draw
from gsemsplat_ros.datasets.frames import Cut, Frame, Geometry, Source
from gsemsplat_ros.datasets.packed_rooms import PackedRooms
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.datasets.scannetpp import ScanNetPP
from gsemsplat_ros.datasets.tum import Folders
from gsemsplat_ros.files import write_whole

log = logging.getLogger(__name__)

LAYOUTS = (
    'raw/splits and processed (ScanNet++), rgb.txt, depth.txt and groundtruth.txt (TUM RGB-D, one scene or '
    'a folder of them), or packed rooms (.npz)'
)


class Rooms(Source):
    """Our own packed rooms: every pair with its third view is a scene of three frames, "0", "1" and "2"."""

    kind = 'rooms'

    def __init__(self, folder: str | Path):
        self.rooms = PackedRooms(folder)
        self.height, self.width = self.rooms[0].images.shape[1:3]
        self._numbers = {f'{path.stem}-{i}': number for number, (path, i) in enumerate(self.rooms.index)}
        self.scenes = tuple(self._numbers)
        self._last: tuple[str, Sample] | None = None

    def frames(self, scene: str) -> tuple[str, ...]:
        return '0', '1', '2'

    def geometry(self, scene: str, name: str) -> Geometry:
        sample, i = self._sample(scene), int(name)
        return Geometry(sample.depth[i], sample.camera, sample.first_from_camera[i])

    def frame(self, scene: str, name: str) -> Frame:
        sample, i = self._sample(scene), int(name)
        return Frame(
            scene,
            name,
            np.ascontiguousarray(sample.images[i]),
            self.geometry(scene, name),
            sample.instance[i].astype(np.uint16),
            sample.names,
        )

    def cut(self, scene: str, name: str) -> Cut:
        return Cut.of(self.geometry(scene, name).camera, self.height, self.width)

    def _sample(self, scene: str) -> Sample:
        last = self._last  # one reference: another thread may replace it at any time
        if last is not None and last[0] == scene:
            return last[1]
        sample = self.rooms[self._numbers[scene]]
        height, width = sample.depth.shape[1:]
        if (height, width) != (self.height, self.width):
            raise ValueError(
                f'{scene} has {height}x{width} px, the first room {self.height}x{self.width}: wanted '
                'rooms of one size; pack others into a folder of their own'
            )
        self._last = scene, sample
        return sample


def open_source(path: str | Path, split: str, height: int, width: int) -> Source:
    """The scenes below `path`. `split`: 'train' or 'val', for ScanNet++ only.

    height, width: of the frames [px]; packed rooms keep the size of their rendering. Raises ValueError for a
    folder of unknown layout, and for missing parts of a layout.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f'no folder at {path}: wanted {LAYOUTS}')
    if (path / 'raw').is_dir() or (path / 'processed').is_dir():
        return ScanNetPP(path, split, height, width)
    if next(path.glob('*.npz'), None):
        return Rooms(path)
    if (path / 'rgb.txt').is_file() or next(path.glob('*/rgb.txt'), None):
        return Folders(path, height, width)
    raise ValueError(f'{path} has no layout that is known here: wanted {LAYOUTS}')


@dataclass(frozen=True)
class SceneViews:
    """frames: first and second context view, then the targets; first_from_camera: their poses (V, 4, 4)
    float64 [m] in the frame of the first.
    """

    frames: tuple[Frame, ...]
    first_from_camera: np.ndarray


class SceneSampler:
    """Random samples of a source. `folder`: for computed coverages, SCENE/coverage.npy."""

    def __init__(self, source: Source, folder: str | Path):
        self.source, self.folder = source, Path(folder)
        self._coverage: dict[str, np.ndarray] = {}

    def coverage(self, scene: str) -> np.ndarray:
        """(N, N) of a scene: the published one, else the kept one, else computed and kept."""
        if scene not in self._coverage:
            published = self.source.published_coverage(scene)
            self._coverage[scene] = self.kept(scene) if published is None else published
        return self._coverage[scene]

    def kept(self, scene: str) -> np.ndarray:
        """The coverage of a scene from the folder, computed first if missing there."""
        path, names = self.folder / scene / 'coverage.npy', self.source.frames(scene)
        if path.is_file():
            matrix = np.load(path, allow_pickle=False)
            if matrix.shape == (len(names), len(names)):
                return matrix
        log.info('%s: computing which of its %d frames see the same; kept in %s', scene, len(names), path)
        matrix = coverage_matrix([coarse(self.source.geometry(scene, name)) for name in names])
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as part, part.open('wb') as file:
            np.save(file, matrix)
        return matrix

    def draw(self, rng: np.random.Generator) -> SceneViews:
        """A sample of a random scene, all scenes being equally likely, as published."""
        scene = self.source.scenes[int(rng.integers(len(self.source.scenes)))]
        first, second, targets = draw(self.coverage(scene), rng)
        names = self.source.frames(scene)
        frames = tuple(self.source.frame(scene, names[i]) for i in (first, second, *targets))
        poses = np.stack([frame.geometry.world_from_camera for frame in frames])
        return SceneViews(frames, np.linalg.inv(poses[0]) @ poses)
