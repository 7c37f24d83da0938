"""A scene on the live page: Gaussians in one frame, the up direction, a first view, and the cameras."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike

from gsemsplat_ros.formats.axes import Axes, guessed
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.merged import Merged, merged
from gsemsplat_ros.images.camera import UP_OF_CAMERA
from gsemsplat_ros.mapping.map import UP_OF_MAP
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe
from gsemsplat_ros.semantics.objects import Object

INVISIBLE = 0.01  # Gaussians of lower opacity are not drawn
MIDDLE = 0.05, 0.95  # quantiles of the means that a view from above should contain
LIGHT = 28_000  # Gaussians of the light level, for browsers that draw without a GPU
MERGING = threading.Lock()  # visitors who come at once wait for the first: the light level is made once


@dataclass(frozen=True, eq=False)
class ShownCamera:
    """A camera. world_from_camera (4, 4), OpenCV; fov: vertical [rad]; aspect: width over height; image
    (H, W, 3) uint8 RGB or None."""

    name: str
    world_from_camera: np.ndarray
    fov: float
    aspect: float
    image: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class FirstView:
    """What a new visitor sees. position and look_at (3,): where it stands and what it turns about; fov:
    vertical [rad], and aspect, width over height: of what the window is to show whole."""

    position: np.ndarray
    look_at: np.ndarray
    fov: float = 0.9
    aspect: float = 4 / 3

    @property
    def reach(self) -> float:
        """Distance of what is looked at."""
        return float(np.linalg.norm(self.look_at - self.position))

    def fov_in(self, aspect: float) -> float:
        """Vertical field of view [rad] of a window of that width over height."""
        return 2 * math.atan(math.tan(self.fov / 2) * max(1.0, self.aspect / aspect))


@dataclass(frozen=True, eq=False)
class ShownScene:
    """Gaussians that are shown together; everything is in their frame.

    gaussians: all, on the CPU. rows (M,): those drawn at full detail; scale_factor: enlarges their scales,
    so that surfaces still close after thinning. up (3,): unit vector; eye (3,): origin of distances, called
    `eye_name`. unit: 'm', or 'units' if the scale is unknown. axes: names of the three edges of a box.
    """

    title: str
    gaussians: Gaussians
    rows: np.ndarray
    scale_factor: float
    up: tuple[float, float, float]
    eye: np.ndarray
    eye_name: str
    first_view: FirstView
    unit: str
    axes: str
    cameras: tuple[ShownCamera, ...] = ()

    @property
    def frame(self) -> str:
        """The frame of the Gaussians."""
        return self.gaussians.frame

    @cached_property
    def means(self) -> np.ndarray:
        """(M, 3) float32, of the drawn Gaussians."""
        return self.gaussians.means.numpy()[self.rows]

    @cached_property
    def drawn(self) -> Gaussians:
        """Those of full detail, as large as they are drawn, without codes."""
        rows = torch.from_numpy(self.rows)
        drawn = replace(self.gaussians, codes=self.gaussians.codes[:, :0]).select(rows)
        return replace(drawn, scales=drawn.scales * self.scale_factor)

    @property
    def light(self) -> Merged | None:
        """The light level, with most detail where a new visitor sees it; None: full detail is as light."""
        with MERGING:
            return self._light

    @cached_property
    def _light(self) -> Merged | None:
        if len(self.rows) <= LIGHT:
            return None
        return merged(self.drawn, LIGHT, self.first_view.position)

    @property
    def thinned(self) -> str:
        """A note on how many Gaussians are drawn; '' if all are."""
        count, total = len(self.rows), len(self.gaussians)
        return '' if count == total else f'{count:,} of {total:,} Gaussians are drawn, larger instead'

    def distance(self, point: ArrayLike) -> float:
        """Distance from the eye to `point` (3,), in `unit`."""
        return float(np.linalg.norm(np.asarray(point) - self.eye))


def shown_from_camera(
    title: str, gaussians: Gaussians, budget: int, metric: bool, cameras: tuple[ShownCamera, ...] = ()
) -> ShownScene:
    """The shown scene of one pair, in the frame of its first camera (x right, y down, z forward)."""
    gaussians, rows, scale_factor = thin(gaussians, budget)
    means = gaussians.means.numpy()[rows]
    depth = float(np.median(means[:, 2])) if len(means) else 1.0
    view, first = FirstView(np.zeros(3), np.array([0.0, 0.0, depth])), cameras[0] if cameras else None
    first = first or first_camera_of(means)
    if first is not None:
        view = replace(view, fov=first.fov, aspect=first.aspect)
    return ShownScene(
        title=title,
        gaussians=gaussians,
        rows=rows,
        scale_factor=scale_factor,
        up=UP_OF_CAMERA,
        eye=np.zeros(3),
        eye_name='the first camera',
        first_view=view,
        unit='m' if metric else 'units',
        axes='width × height × depth',
        cameras=cameras,
    )


def shown_from_above(
    title: str,
    gaussians: Gaussians,
    budget: int,
    metric: bool,
    eye_name: str = "the map's origin",
    keyframe: MapKeyframe | None = None,
) -> ShownScene:
    """The shown scene of a map with z up; the first view is that of a keyframe, or looks down on the middle
    along +x."""
    gaussians, rows, scale_factor = thin(gaussians, budget)
    if keyframe is None:
        view = _from_above(gaussians.means.numpy()[rows].astype(np.float64))
    else:
        pose, camera = keyframe.map_from_camera, keyframe.camera
        ahead = pose[:3, 3] + keyframe.reach * pose[:3, 2]
        view = FirstView(pose[:3, 3], ahead, camera.fov_y, camera.aspect)
    return ShownScene(
        title=title,
        gaussians=gaussians,
        rows=rows,
        scale_factor=scale_factor,
        up=UP_OF_MAP,
        eye=np.zeros(3),
        eye_name=eye_name,
        first_view=view,
        unit='m' if metric else 'units',
        axes='x × y × z',
    )


def _from_above(means: np.ndarray) -> FirstView:
    """The first view down on the middle of means (N, 3)."""
    low, high = np.quantile(means, MIDDLE, axis=0) if len(means) else (-np.ones(3), np.ones(3))
    middle, across = (low + high) / 2, max(float(np.linalg.norm(high - low)), 1e-3)
    position = middle + across * (0.5 * np.array(UP_OF_MAP) - 0.75 * np.array([1.0, 0.0, 0.0]))
    return FirstView(position, middle)


def shown_from_file(title: str, gaussians: Gaussians, budget: int) -> ShownScene:
    """The shown scene of a PLY file, whose frame is unknown.

    Gaussians within the field of view of one camera at the origin count as its scene, others as a map, z up.
    """
    if guessed(gaussians.means.numpy()) is Axes.OPTICAL:
        return shown_from_camera(title, gaussians, budget, metric=False)
    return shown_from_above(title, gaussians, budget, metric=False, eye_name='the origin')


def first_camera_of(means: np.ndarray) -> ShownCamera | None:
    """The first camera, its field of view estimated from means (N, 3) in its frame; None if impossible."""
    means = means[means[:, 2] > 0]
    if not len(means):
        return None
    x, y = np.quantile(np.abs(means[:, :2] / means[:, 2:]), 0.98, axis=0)
    if not 1e-3 < x < 10:
        return None
    y = y if x / 4 < y < 4 * x else 0.75 * x  # points on a line give no height
    return ShownCamera('first camera', np.eye(4), 2 * math.atan(y), float(x / y))


def thin(gaussians: Gaussians, budget: int) -> tuple[Gaussians, np.ndarray, float]:
    """The Gaussians on the CPU, the rows (M,) to draw (at most `budget`, always the same), and the factor of
    their scales: the root of the inverse share, since they cover surfaces."""
    gaussians = gaussians.to('cpu')
    visible = gaussians.opacities >= INVISIBLE
    for name in ('means', 'quats', 'scales', 'colors'):
        visible &= torch.isfinite(getattr(gaussians, name)).all(1)
    rows = np.flatnonzero(visible.numpy())
    if len(rows) <= budget:
        return gaussians, rows, 1.0
    kept = np.sort(np.random.default_rng(0).choice(rows, budget, replace=False))
    return gaussians, kept, math.sqrt(len(rows) / budget)


def object_hit(origin: ArrayLike, direction: ArrayLike, objects: Iterable[Object]) -> int | None:
    """Index of the first box hit by the ray from `origin` (3,) along `direction` (3,); None if none is."""
    best, nearest = None, math.inf
    origin, direction = np.asarray(origin, np.float64), np.asarray(direction, np.float64)
    direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    for number, thing in enumerate(objects):
        half, center = np.asarray(thing.size) / 2, np.asarray(thing.center)
        first, second = (center - half - origin) / direction, (center + half - origin) / direction
        enter, leave = float(np.minimum(first, second).max()), float(np.maximum(first, second).min())
        if leave >= max(enter, 0) and max(enter, 0) < nearest:
            best, nearest = number, max(enter, 0)
    return best


def viewpoint_before(shown: ShownScene, thing: Object, position: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) to view an object from, and its centre (3,): on the line of sight from `position` (3,),
    so close that the object fills about a third of the view."""
    center, up = np.asarray(thing.center, np.float64), np.asarray(shown.up)
    away = np.asarray(position, np.float64) - center
    length = float(np.linalg.norm(away))
    if not length > 1e-9:
        away = shown.first_view.position - center
        length = float(np.linalg.norm(away)) or 1.0
    away = away / length + 0.15 * up
    reach = 1.6 * max(float(np.linalg.norm(thing.size)), 1e-2)
    return center + away / np.linalg.norm(away) * reach, center
