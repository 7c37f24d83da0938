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
from gsemsplat_ros.scene.map import UP_OF_MAP
from gsemsplat_ros.semantics.objects import Object

INVISIBLE = 0.01  # a page draws nothing of a Gaussian with less opacity
MIDDLE = 0.05, 0.95  # quantiles that bound what a view from above should hold
LIGHT = 16_000  # Gaussians of the light level: a browser that draws without a GPU manages them
CLOSED = 0.42  # a surface looks closed when the middle axis is this share of the spacing
PROBED = 400  # Gaussians whose neighbours tell the spacing
WIDEST = 60.0  # degrees from its axis that a camera may see: Gaussians within it were seen by one


@dataclass(frozen=True, eq=False)
class ShownCamera:
    """A camera: world_from_camera (4, 4), vertical field of view [rad], width over height, and its picture
    (H, W, 3) uint8 RGB where known."""

    name: str
    world_from_camera: np.ndarray
    fov: float
    aspect: float
    image: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ShownScene:
    """Gaussians that are shown together; never changes.

    gaussians: all, on the CPU; frame as theirs. rows (M,): those that a page draws in full; scale_factor: by
    which their scales grow, so that what was thinned still closes. up (3,): unit vector; eye (3,): from where
    distances count, in words `eye_name`; position and look_at (3,): where a visitor begins. unit: 'm', or
    'units' where nothing told the scale. axes: what the three edges of a box are.
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
        """(M, 3) float32 of what is shown."""
        return self.gaussians.means.numpy()[self.rows]

    @cached_property
    def light(self) -> tuple[np.ndarray, float]:
        """The light level: rows (L,) of what is shown, spread evenly, and by which their scales grow or
        shrink: as wide as closes the surface and no wider, since software draws by the pixel."""
        count = len(self.rows)
        if count <= LIGHT:
            return np.arange(count), 1.0
        solid = np.flatnonzero(self.gaussians.opacities.numpy()[self.rows] >= 0.3)
        pool = solid if len(solid) > LIGHT else np.arange(count)
        rows = np.sort(np.random.default_rng(0).choice(pool, LIGHT, replace=False))
        # the spacing as it looks from where a visitor begins: noise in depth would make it seem wider
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
        # of random points on a surface, half have their nearest within 0.47 spacings
        factor = CLOSED / 0.47 * float((nearest / width.clamp(min=1e-9)).median())
        return rows, min(max(factor, 0.4), 4.0)

    @property
    def thinned(self) -> str:
        """In words, how much of it is shown; '' when all is."""
        count, total = len(self.rows), len(self.gaussians)
        return '' if count == total else f'{count:,} of {total:,} Gaussians are drawn, larger instead'

    def distance(self, point: ArrayLike) -> float:
        """From the eye to `point` (3,)."""
        return float(np.linalg.norm(np.asarray(point) - self.eye))


def shown_from_camera(
    title: str, gaussians: Gaussians, budget: int, metric: bool, cameras: tuple[ShownCamera, ...] = ()
) -> ShownScene:
    """What is shown of one pair: in the frame of its first camera, which looks along +z with y down."""
    gaussians, rows, scale_factor = thin(gaussians, budget)
    depths = gaussians.means.numpy()[rows, 2]
    depth = float(np.median(depths)) if len(depths) else 1.0
    # a step back, to the right and up, so that depth is felt at once and the first camera stays in sight
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
    """What is shown of a map: z is up, and the visitor looks down on its middle along +x."""
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
    """What is shown of a PLY file, which names no frame: Gaussians within the field of view of one camera at
    the origin are taken for its scene; all else for a map with z up."""
    means = gaussians.means.numpy()
    ahead = means[:, 2] > 0
    reach = math.tan(math.radians(WIDEST)) * means[:, 2:]
    within = ahead & (np.abs(means[:, :2]) < reach).all(1)
    if len(means) and within.mean() > 0.99:
        return shown_from_camera(title, gaussians, budget, metric=False)
    return shown_from_above(title, gaussians, budget, metric=False, eye_name='the origin')


def first_camera_of(means: np.ndarray) -> ShownCamera | None:
    """The first camera of a scene, by what it saw: means (N, 3) in its frame; None where they tell
    nothing.
    """
    means = means[means[:, 2] > 0]
    if not len(means):
        return None
    x, y = np.quantile(np.abs(means[:, :2] / means[:, 2:]), 0.98, axis=0)
    if not 1e-3 < x < 10:
        return None
    y = y if x / 4 < y < 4 * x else 0.75 * x  # a line tells no height
    return ShownCamera('first camera', np.eye(4), 2 * math.atan(y), float(x / y))


def thin(gaussians: Gaussians, budget: int) -> tuple[Gaussians, np.ndarray, float]:
    """What can be drawn of them, on the CPU; the rows (M,) to draw, `budget` at most, the same ones each
    time; and the factor by which scales grow for it: surfaces, so the root of the share."""
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
    """The number of the first object whose box the ray from `origin` (3,) along `direction` (3,) meets; None:
    none.
    """
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
    """From where to look at an object (3,), and its centre (3,): nearer along the line of sight from
    `position` (3,), so that it fills about a third of the view."""
    center, up = np.asarray(thing.center, np.float64), np.asarray(shown.up)
    away = np.asarray(position, np.float64) - center
    length = float(np.linalg.norm(away))
    if not length > 1e-9:
        away, length = shown.position - center, float(np.linalg.norm(shown.position - center)) or 1.0
    away = away / length + 0.15 * up
    reach = 1.6 * max(float(np.linalg.norm(thing.size)), 1e-2)
    return center + away / np.linalg.norm(away) * reach, center
