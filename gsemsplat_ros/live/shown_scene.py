"""A scene on the live page: Gaussians in one frame, the up direction, a start pose, and the cameras."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import UP_OF_CAMERA
from gsemsplat_ros.mapping.map import UP_OF_MAP
from gsemsplat_ros.semantics.objects import Object

INVISIBLE = 0.01  # Gaussians of lower opacity are not drawn
MIDDLE = 0.05, 0.95  # quantiles of the means that a view from above should contain
LIGHT = 16_000  # Gaussians of the light level, for browsers that draw without a GPU
CLOSED = 0.42  # a surface looks closed if the middle axis is this share of the spacing
PROBED = 400  # Gaussians whose nearest neighbours give the spacing
WIDEST = 60.0  # degrees from the optical axis: Gaussians within were seen by one camera


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
class ShownScene:
    """Gaussians that are shown together; everything is in their frame.

    gaussians: all, on the CPU. rows (M,): those drawn at full detail; scale_factor: enlarges their scales,
    so that surfaces still close after thinning. up (3,): unit vector; eye (3,): origin of distances, called
    `eye_name`; position and look_at (3,): a visitor's first view. unit: 'm', or 'units' if the scale is
    unknown. axes: names of the three edges of a box.
    """

    title: str
    gaussians: Gaussians
    rows: np.ndarray
    scale_factor: float
    up: tuple[float, float, float]
    eye: np.ndarray
    eye_name: str
    position: np.ndarray
    look_at: np.ndarray
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
    def light(self) -> tuple[np.ndarray, float]:
        """The light level: rows (L,), an even sample of the drawn Gaussians, and the factor of their scales.

        The factor just closes the surface: wider splats cost more pixels in a software renderer.
        """
        count = len(self.rows)
        if count <= LIGHT:
            return np.arange(count), 1.0
        solid = np.flatnonzero(self.gaussians.opacities.numpy()[self.rows] >= 0.3)
        pool = solid if len(solid) > LIGHT else np.arange(count)
        rows = np.sort(np.random.default_rng(0).choice(pool, LIGHT, replace=False))
        # the spacing seen from the first view: noise in depth would enlarge it
        away = torch.from_numpy(self.means[rows] - self.position.astype(np.float32))
        distance = away.norm(dim=1).clamp(min=1e-6)
        sight, probed = away / distance[:, None], slice(None, None, max(LIGHT // PROBED, 1))
        nearest = (
            torch.cdist(sight[probed], sight, compute_mode='donot_use_mm_for_euclid_dist')
            .topk(2, largest=False)
            .values[:, 1]
            * distance[probed]
        )
        width = (
            self.gaussians.scales[torch.from_numpy(self.rows[rows])].median(1).values[probed]
            * self.scale_factor
        )
        # for random points on a surface, the median distance to the nearest is 0.47 spacings
        factor = CLOSED / 0.47 * float((nearest / width.clamp(min=1e-9)).median())
        return rows, min(max(factor, 0.4), 4.0)

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
    depths = gaussians.means.numpy()[rows, 2]
    depth = float(np.median(depths)) if len(depths) else 1.0
    # a step back, to the right and up, so that depth is visible and the first camera stays in view
    position = depth * np.array([0.26, -0.2, -0.22])
    return ShownScene(
        title=title,
        gaussians=gaussians,
        rows=rows,
        scale_factor=scale_factor,
        up=UP_OF_CAMERA,
        eye=np.zeros(3),
        eye_name='the first camera',
        position=position,
        look_at=np.array([0.0, 0.0, depth]),
        unit='m' if metric else 'units',
        axes='width × height × depth',
        cameras=cameras,
    )


def shown_from_above(
    title: str, gaussians: Gaussians, budget: int, metric: bool, eye_name: str = "the map's origin"
) -> ShownScene:
    """The shown scene of a map with z up; the first view looks down on its middle along +x."""
    gaussians, rows, scale_factor = thin(gaussians, budget)
    means = gaussians.means.numpy()[rows].astype(np.float64)
    low, high = np.quantile(means, MIDDLE, axis=0) if len(means) else (-np.ones(3), np.ones(3))
    middle, across = (low + high) / 2, max(float(np.linalg.norm(high - low)), 1e-3)
    position = middle + across * (0.5 * np.array(UP_OF_MAP) - 0.75 * np.array([1.0, 0.0, 0.0]))
    return ShownScene(
        title=title,
        gaussians=gaussians,
        rows=rows,
        scale_factor=scale_factor,
        up=UP_OF_MAP,
        eye=np.zeros(3),
        eye_name=eye_name,
        position=position,
        look_at=middle,
        unit='m' if metric else 'units',
        axes='x × y × z',
    )


def shown_from_file(title: str, gaussians: Gaussians, budget: int) -> ShownScene:
    """The shown scene of a PLY file, whose frame is unknown.

    Gaussians within the field of view of one camera at the origin count as its scene, others as a map, z up.
    """
    means = gaussians.means.numpy()
    ahead = means[:, 2] > 0
    reach = math.tan(math.radians(WIDEST)) * means[:, 2:]
    within = ahead & (np.abs(means[:, :2]) < reach).all(1)
    if len(means) and within.mean() > 0.99:
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
        away, length = shown.position - center, float(np.linalg.norm(shown.position - center)) or 1.0
    away = away / length + 0.15 * up
    reach = 1.6 * max(float(np.linalg.norm(thing.size)), 1e-2)
    return center + away / np.linalg.norm(away) * reach, center
