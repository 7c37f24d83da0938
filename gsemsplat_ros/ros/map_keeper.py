"""The node's map: grown by the worker, read by queries, saved and loaded below one folder."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.mapping.fusion import Fusion, Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import load_map, save_map
from gsemsplat_ros.mapping.relocalisation import Place
from gsemsplat_ros.ros.conversions import quoted
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.snapshot import Kept, Latest, Snapshot
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer

FRAME = 'gsemsplat_map'  # of a map that no map_frame of TF holds: it begins at the first camera
SUFFIX = '.safetensors'


class MapKeeper:
    """Keeps the map of `latest`, whose `kept` it replaces and nobody else does: the worker adds scenes, the
    services save, load and clear, one at a time; meanwhile any thread notes what the map answers.

    frame: of the map; tied: it is one of TF (map_frame), not one of the map's own; folder: of the files.
    """

    def __init__(self, parameters: Parameters, space: CodeSpace, namespace: str = ''):
        """`space`: what reads the codes of the maps, in memory and on disk. `namespace` of the node: nodes
        side by side have frames of their own."""
        self.frame = parameters.map_frame.lstrip('/') or f'{namespace}/{FRAME}'.lstrip('/')
        self.tied = bool(parameters.map_frame)
        self.folder = Path(parameters.map_directory)
        self._voxel, self._space = parameters.map_voxel_m, space
        self._lock = threading.Lock()  # while a scene is fused
        self._kept_lock = threading.Lock()  # for a moment, while `kept` is replaced
        empty = Map.empty(self.frame, self._voxel)
        self._mapper = Mapper(empty, 0)
        self.latest = Latest(Snapshot(Kept(empty)))

    @property
    def kept(self) -> Kept:
        """The map now, and what belongs to it."""
        return self.latest.now.kept

    def _take(self, map_: Map, stamp_ns: int, loaded: bool) -> None:
        with self._lock, self._kept_lock:
            self._mapper = Mapper(map_, 0)
            kept = replace(self.kept, map=map_, stamp_ns=stamp_ns, loaded=loaded, map_from_camera=None)
            self.latest.change(kept=replace(kept, last_fused=True, reason=''))

    def clear(self, stamp_ns: int) -> None:
        """Begin anew, empty."""
        self._take(Map.empty(self.frame, self._voxel), stamp_ns, loaded=False)

    def add(self, scene: Scene, pair: Pair, budget: int) -> Kept:
        """Fuse a scene into the map of at most `budget` Gaussians. Returns the new state: whether it was
        fused, and why not.
        """
        with self._lock:
            if self.tied and pair.first.map_from_camera is None and not len(self.kept.map):
                fusion = Fusion(
                    False, f"the map begins when TF says where the camera is in map_frame '{self.frame}'"
                )
            else:
                self._mapper.budget = budget
                fusion = self._mapper.add(scene, pair)
            with self._kept_lock:
                kept = replace(self.kept, last_fused=fusion.fused, reason=fusion.reason)
                if fusion.fused:
                    kept = replace(
                        kept,
                        map=self._mapper.map,
                        stamp_ns=scene.keyframe.stamp_ns,
                        map_from_camera=fusion.map_from_camera,
                        camera_frame=scene.gaussians.frame,
                        fused=kept.fused + 1,
                    )
                else:
                    kept = replace(kept, left_out=kept.left_out + 1)
                self.latest.change(kept=kept)
        return kept

    def note(self, asked: Map, answer: Answer) -> Answer:
        """The answer of `asked`, which was the map when the question came, with the history of its objects;
        the map knows them from now on."""
        with self._kept_lock:
            answer = self._mapper.note(asked, answer)
            map_ = self.kept.map.with_objects(self._mapper.map.objects)
            self.latest.change(kept=replace(self.kept, map=map_))
        return answer

    def place_of(self, seen: View | Scene) -> Place:
        """Where a single image, or that of a scene, was taken in the map. Raises ValueError where that is not
        known."""
        place = self._mapper.relocalize(seen)
        if isinstance(place, str):
            raise ValueError(f'the place is not known: {place}')
        return place

    def save(self, name: str) -> str:
        """Write the map; returns the files in words. Raises ValueError for a wrong name or a failing disk."""
        path, map_ = self.path(name), self.kept.map
        if not len(map_):
            raise ValueError('the map is empty: there is nothing to save')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_map(path, map_, self._space)
        except ValueError as error:
            problem = str(error)
        except OSError as error:
            problem = f'cannot make the folder {path.parent} ({error.strerror}): set map_directory'
        else:
            problem = ''
        with self._kept_lock:
            self.latest.change(kept=replace(self.kept, save_error=problem))
        if problem:
            raise ValueError(problem)
        return f'{path} and its .ply: {len(map_)} Gaussians of {map_.scenes} scene(s)'

    def load(self, name: str, stamp_ns: int) -> str:
        """Replace the map by that of a file; returns it in words. Raises ValueError and keeps the old map."""
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
        """The file of this name. Raises ValueError unless it lies below the folder after resolving links, and
        for a name that would write to the log what it likes."""
        folder = self.folder
        try:
            folder = folder.expanduser().resolve()
            named = (folder / name.strip()).resolve()
            path = named
            if path.suffix != SUFFIX:
                path = path.with_name(path.name + SUFFIX).resolve()
            path.is_file()  # raises for what no file can be called
            inside = name.isprintable() and named != folder and path.is_relative_to(folder)
        except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a zero byte
            inside = False
        if not inside:
            raise ValueError(
                f"map name {quoted(name)}: wanted a file below map_directory ({folder}), as 'kitchen'"
            )
        return path
