"""Plain folders of posed RGB-D frames in the layout of the TUM benchmark (Sturm et al. 2012).

    SCENE/rgb.txt, depth.txt     lines "stamp file"; depths are 16-bit PNG, 5000 a metre, 0 unknown
    SCENE/groundtruth.txt        lines "stamp tx ty tz qx qy qz qw": world_from_camera, OpenCV axes
    SCENE/intrinsics.txt         one line "fx fy cx cy" [px], perhaps with the distortion "k1 k2 p1 p2 k3"

The folder given is one scene, or holds several. Sequences of the benchmark itself need no intrinsics.txt: its
published calibration follows from "freiburg1", 2 or 3 in their names.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.datasets.frames import SIZE, Cut, Frame, Geometry, Source, read_color, read_depth
from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.images.calibration import check_calibration
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.image_file import image_size

log = logging.getLogger(__name__)

UNITS = 5000  # of a depth picture, per metre
TOGETHER = 0.02  # s: stamps at most this far apart belong together
MOST = 400  # frames of a scene: neighbours in a video show the same
LISTS = ('rgb.txt', 'depth.txt', 'groundtruth.txt')
INTRINSICS = 'intrinsics.txt'
FREIBURG = {  # fx fy cx cy, k1 k2 p1 p2 k3 of the benchmark's colour cameras
    'freiburg1': (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    'freiburg2': (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    'freiburg3': (535.4, 539.2, 320.1, 247.6),
}


class Folders(Source):
    """Folders of RGB-D frames. Raises ValueError, naming the file, for each missing piece."""

    kind = 'rgbd'

    def __init__(self, root: str | Path, height: int = SIZE, width: int = SIZE):
        self.root, self.height, self.width = Path(root), height, width
        inside = sorted(path.parent for path in self.root.glob(f'*/{LISTS[0]}'))
        folders = [self.root] if (self.root / LISTS[0]).is_file() else inside
        if not folders:
            raise ValueError(
                f'no {LISTS[0]} in {self.root} nor in a folder of it: wanted RGB-D scenes in the TUM layout'
            )
        self._folders = {folder.resolve().name: folder for folder in folders}
        self.scenes = tuple(self._folders)
        self._scene = lru_cache(None)(self._read_scene)

    def frames(self, scene: str) -> tuple[str, ...]:
        return tuple(self._scene(scene)[0])

    def geometry(self, scene: str, name: str) -> Geometry:
        frames, camera, _ = self._scene(scene)
        _, path, pose = frames[name]
        depth = read_depth(path, UNITS)
        if depth.shape != (camera.height, camera.width):
            raise ValueError(
                f'{path} has {depth.shape[1]}x{depth.shape[0]} px, the images {camera.width}x'
                f'{camera.height}: wanted depths registered to the images'
            )
        cut = self.cut(scene, name)
        return Geometry(cut.nearest(self._undistorted(scene, depth, cv2.INTER_NEAREST)), cut.camera, pose)

    def frame(self, scene: str, name: str) -> Frame:
        frames, camera, _ = self._scene(scene)
        image = self._undistorted(scene, read_color(frames[name][0], camera), cv2.INTER_LINEAR)
        return Frame(scene, name, self.cut(scene, name).image(image), self.geometry(scene, name))

    def cut(self, scene: str, name: str) -> Cut:
        return Cut.of(self._scene(scene)[1], self.height, self.width)

    def _undistorted(self, scene: str, picture: np.ndarray, interpolation: int) -> np.ndarray:
        maps = self._scene(scene)[2]
        return picture if maps is None else cv2.remap(picture, maps[0], maps[1], interpolation)

    def _read_scene(
        self, scene: str
    ) -> tuple[dict[str, tuple[Path, Path, np.ndarray]], Camera, tuple | None]:
        """Image, depth and pose by name of frame; the camera; undistortion maps (None: no distortion)."""
        folder = self._folders[scene]
        colors, depths, poses = (read_list(folder / name) for name in LISTS)
        stamps = [np.array(sorted(entries)) for entries in (depths, poses)]
        together = {}
        for stamp in sorted(colors):
            depth, pose = (near[np.abs(near - stamp).argmin()] for near in stamps)
            if max(abs(depth - stamp), abs(pose - stamp)) <= TOGETHER:
                together[stamp] = depth, pose
        if len(together) < 2:
            raise ValueError(
                f'{folder}: {len(together)} frames whose image, depth and pose lie within {TOGETHER} s, '
                f'wanted at least 2; do {", ".join(LISTS)} belong together?'
            )
        if len(together) < len(colors):
            left_out = len(colors) - len(together)
            log.info('%s: %d of %d images have no depth and pose in time', folder, left_out, len(colors))
        chosen = list(together)
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(MOST, len(chosen))).astype(int)]
        frames = {
            Path(colors[stamp][0]).stem: (
                folder / colors[stamp][0],
                folder / depths[together[stamp][0]][0],
                matrix(folder, poses[together[stamp][1]]),
            )
            for stamp in chosen
        }
        numbers = read_intrinsics(folder)
        camera = Camera(*image_size(next(iter(frames.values()))[0]), *numbers[:4])
        try:
            check_calibration(camera)
        except ValueError as error:
            raise ValueError(f'{folder}: {error}') from None
        maps = None
        if len(numbers) > 4:
            maps = cv2.initUndistortRectifyMap(
                camera.K, np.array(numbers[4:]), None, camera.K, (camera.width, camera.height), cv2.CV_32FC1
            )
        return frames, camera, maps


def read_list(path: Path) -> dict[float, list[str]]:
    """Stamp [s] -> the words after it. Raises ValueError for a file that is missing, foreign or empty."""
    if not path.is_file():
        raise ValueError(f'no {path}: wanted {", ".join(LISTS)} in every scene')
    lines = [
        line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith('#')
    ]
    try:
        entries = {float(words[0]): words[1:] for words in lines}
    except ValueError:
        raise ValueError(f'{path}: wanted lines that begin with a time stamp [s]') from None
    if not entries or not all(entries.values()):
        raise ValueError(f'{path} names nothing: wanted lines "stamp file" or "stamp tx ty tz qx qy qz qw"')
    return entries


def matrix(folder: Path, words: list[str]) -> np.ndarray:
    """world_from_camera (4, 4) of "tx ty tz qx qy qz qw". Raises ValueError."""
    try:
        x, y, z, qx, qy, qz, qw = map(float, words)
    except ValueError:
        raise ValueError(f'{folder / LISTS[2]}: {" ".join(words)!r}, wanted tx ty tz qx qy qz qw') from None
    quat = np.array([qw, qx, qy, qz])
    pose = np.eye(4)
    pose[:3, :3] = quats_to_rotations(quat / np.linalg.norm(quat))
    pose[:3, 3] = x, y, z
    return pose


def read_intrinsics(folder: Path) -> tuple[float, ...]:
    """fx, fy, cx, cy and perhaps five numbers of distortion. Raises ValueError."""
    path = folder / INTRINSICS
    if not path.is_file():
        known = [numbers for name, numbers in FREIBURG.items() if name in folder.resolve().name]
        if known:
            return known[0]
        raise ValueError(
            f'no {path}: wanted one line "fx fy cx cy" [px], perhaps with "k1 k2 p1 p2 k3" behind'
        )
    try:
        numbers = tuple(map(float, path.read_text().split()))
    except ValueError:
        numbers = ()
    if len(numbers) not in (4, 9):
        raise ValueError(
            f'{path} holds {len(numbers)} numbers: wanted "fx fy cx cy" [px], perhaps with "k1 k2 p1 p2 k3"'
        )
    return numbers
