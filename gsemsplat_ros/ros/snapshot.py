"""The results of the node, as one value that is replaced and never changed: any thread may read it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.scene.scene import Scene


@dataclass(frozen=True, eq=False)
class Kept:
    """A map and what belongs to it.

    stamp_ns: of the newest images in it, of the load, or of the clearing; map_from_camera (4, 4) [m]: where
    the camera of the last fused keyframe stood, None when none was; camera_frame: its name; loaded: it came
    from a file. fused, left_out: scenes since the node was configured, whatever map they met. last_fused:
    whether the last scene was fused, or there was none; reason: how it was placed, or why it was left out.
    save_error: why the last map was not saved, or ''.
    """

    map: Map
    stamp_ns: int = 0
    map_from_camera: np.ndarray | None = None
    camera_frame: str = ''
    loaded: bool = False
    fused: int = 0
    left_out: int = 0
    last_fused: bool = True
    reason: str = ''
    save_error: str = ''

    @property
    def answers(self) -> bool:
        """Whether queries search it: it holds more than the one scene that answers better by itself."""
        return len(self.map) > 0 and (self.loaded or self.map.scenes > 1)


@dataclass(frozen=True, eq=False)
class Done:
    """The last finished scene: shown, offered to the map, and queried. latencies: stage -> seconds."""

    scene: Scene
    latencies: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What the node has made since it was configured.

    scene: the newest, which queries read; map_from_camera (4, 4) [m]: where TF says that its camera stood in
    map_frame, None where TF does not, or the scene is not in metres; done: the last finished one; scenes:
    number of finished ones. refused: inputs that could not be used; last_error: why the last input could not,
    else ''. used_ns: stamp of the last input of which a scene was made, or should have been.
    """

    kept: Kept
    scene: Scene | None = None
    map_from_camera: np.ndarray | None = None
    done: Done | None = None
    scenes: int = 0
    refused: int = 0
    last_error: str = ''
    used_ns: int | None = None

    @cached_property
    def placed(self) -> Gaussians | None:
        """The Gaussians of the scene in the frame of the map; None where nothing says where it lies."""
        if self.scene is None or self.map_from_camera is None:
            return None
        return self.scene.gaussians.transformed(self.map_from_camera, self.kept.map.frame)


@dataclass
class Latest:
    """The newest Snapshot: `now`."""

    now: Snapshot
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def change(self, **fields: Any) -> None:
        """Replace these fields of the snapshot; other threads may replace others at the same time."""
        with self._lock:
            self.now = replace(self.now, **fields)
