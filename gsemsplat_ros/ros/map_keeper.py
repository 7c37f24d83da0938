"""The node's map: grown by the worker, read by queries, saved and loaded by services, below one folder
only.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.ros.conversions import quoted
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.fusion import Fusion, Mapper
from gsemsplat_ros.scene.map import Map
from gsemsplat_ros.scene.map_file import load_map, save_map
from gsemsplat_ros.scene.scene import Scene

FRAME = 'gsemsplat_map'  # of a map that no map_frame of TF holds: it begins at the first camera
SUFFIX = '.safetensors'


@dataclass(frozen=True)
class Kept:
    """A map and what belongs to it; never changed, so any thread may read it.

    stamp_ns: of the newest images in it, of the load, or of the clearing; map_from_camera (4, 4) [m]: where
    the camera of the last fused keyframe stood, None when none was; loaded: it came from a file.
    """

    map: Map
    stamp_ns: int = 0
    map_from_camera: np.ndarray | None = None
    loaded: bool = False

    @property
    def answers(self) -> bool:
        """Whether queries search it: it holds more than the one scene that answers better by itself."""
        return len(self.map) > 0 and (self.loaded or self.map.scenes > 1)


class MapKeeper:
    """`kept` is replaced, never changed. fused, left_out: scenes so far; last: whether the last one was
    fused, or there was none; reason: how it was placed, or why it was left out. trouble: why the last map was
    not saved, or ''. tied: the map lies in a frame of TF (map_frame), not in one of its own."""

    def __init__(self, parameters: Parameters, space: CodeSpace, namespace: str = ''):
        """`space`: what reads the codes of the maps, in memory and on disk. `namespace` of the node: nodes
        side by side have frames of their own."""
        self.frame = parameters.map_frame.lstrip('/') or f'{namespace}/{FRAME}'.lstrip('/')
        self.folder = Path(parameters.map_directory)
        self.fused, self.left_out, self.reason, self.last, self.trouble = 0, 0, '', True, ''
        self.tied = bool(parameters.map_frame)
        self._voxel, self._space = parameters.map_voxel_m, space
        self._lock = threading.Lock()
        self.clear(0)

    def _take(self, map_: Map, stamp_ns: int, loaded: bool) -> None:
        with self._lock:
            self._mapper = Mapper(map_, 0)
            self.kept = Kept(map_, stamp_ns, loaded=loaded)
            self.reason, self.last = '', True

    def clear(self, stamp_ns: int) -> None:
        """Begin anew, empty."""
        self._take(Map.empty(self.frame, self._voxel), stamp_ns, loaded=False)

    def add(self, scene: Scene, pair: Pair, budget: int) -> Fusion:
        """Fuse a scene into the map of at most `budget` Gaussians, or say why not."""
        with self._lock:
            if self.tied and pair.first.map_from_camera is None and not len(self.kept.map):
                fusion = Fusion(
                    False, f"the map begins when TF says where the camera is in map_frame '{self.frame}'"
                )
            else:
                self._mapper.budget = budget
                fusion = self._mapper.add(scene, pair)
            if fusion.fused:
                self.kept = Kept(
                    self._mapper.map, scene.keyframe.stamp_ns, fusion.map_from_camera, self.kept.loaded
                )
            self.fused, self.left_out = self.fused + fusion.fused, self.left_out + (not fusion.fused)
            self.reason, self.last = fusion.reason, fusion.fused
        return fusion

    def save(self, name: str) -> str:
        """Write the map; returns what was written, in words. Raises ValueError for a name or disk that will
        not do.
        """
        path, map_ = self.path(name), self.kept.map
        if not len(map_):
            raise ValueError('the map is empty: there is nothing to save')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_map(path, map_, self._space)
        except (OSError, ValueError) as error:
            self.trouble = (
                str(error)
                if isinstance(error, ValueError)
                else (f'cannot make the folder {path.parent} ({error.strerror}): set map_directory')
            )
            raise ValueError(self.trouble) from None
        self.trouble = ''
        return f'{path} and its .ply: {len(map_)} Gaussians of {map_.scenes} scene(s)'

    def load(self, name: str, stamp_ns: int) -> str:
        """Take the map of a file; returns what was read, in words. Raises ValueError, and keeps the map it
        has.
        """
        path = self.path(name)
        map_ = load_map(path, self._space)
        if self.tied and map_.frame != self.frame:
            raise ValueError(
                f"{path} is a map in frame '{map_.frame}', and map_frame is '{self.frame}': set map_frame "
                'to that of the map'
            )
        self._take(map_, stamp_ns, loaded=True)
        return f"{path}: {len(map_)} Gaussians of {map_.scenes} scene(s) in frame '{map_.frame}'"

    def path(self, name: str) -> Path:
        """The file of this name. Raises ValueError for one that does not lie below the folder, links
        resolved.
        """
        try:
            folder = self.folder.expanduser().resolve()
            named = (folder / name.strip()).resolve()
            path = named.with_name(named.name + SUFFIX * (named.suffix != SUFFIX)).resolve()
            inside = named != folder and path.is_relative_to(folder) and path.is_file() is not None
        except (
            OSError,
            RuntimeError,
            ValueError,
        ):  # too long (is_file says so), a loop of links, a zero byte
            folder, inside = self.folder, False
        if not inside:
            raise ValueError(
                f"map name {quoted(name)}: wanted a file below map_directory ({folder}), as 'kitchen'"
            )
        return path
