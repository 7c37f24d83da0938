"""The floor plan of a house: its rooms, walls and furniture seen from above, and how far it is to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gsemsplat_ros.rooms.furniture import Furniture
from gsemsplat_ros.rooms.layout import Quad, Room, corners
from gsemsplat_ros.scene.approach import CELL

LOW, HIGH = 0.05, 1.25  # m above the floor: what reaches between them is in the way of the robot


@dataclass(frozen=True)
class Footprint:
    """A piece of furniture seen from above: name; corners (4, 2) m, counter-clockwise."""

    name: str
    corners: np.ndarray


@dataclass(frozen=True)
class FloorPlan:
    """floors (N, 2, 2) m: lower and upper corner of rectangles; walls (N, 2, 2) m: both ends; pieces: what
    is in the way of a robot."""

    floors: np.ndarray
    walls: np.ndarray
    pieces: tuple[Footprint, ...]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (2,) m of the house."""
        return self.floors[:, 0].min(0), self.floors[:, 1].max(0)

    @cached_property
    def centers(self) -> np.ndarray:
        """(I, J, 2) m: the middles of cells of CELL, along x and y, that cover the house."""
        low, high = self.bounds
        i, j = np.ceil((high - low) / CELL).astype(int)
        return (np.stack(np.meshgrid(np.arange(i), np.arange(j), indexing='ij'), -1) + 0.5) * CELL + low

    @cached_property
    def clearance(self) -> np.ndarray:
        """`clearance_at` of the centers: (I, J) m."""
        return self.clearance_at(self.centers.reshape(-1, 2)).reshape(self.centers.shape[:2])

    def clearance_at(self, places: np.ndarray) -> np.ndarray:
        """Distance (N,) m of places (N, 2) from the nearest wall or piece; 0 in a piece or off the floor."""
        sides = [np.stack((p.corners, np.roll(p.corners, -1, 0)), 1) for p in self.pieces]
        distance = np.full(len(places), np.inf)
        for a, b in np.concatenate((self.walls, *sides)):
            along = np.clip((places - a) @ (b - a) / max((b - a) @ (b - a), 1e-12), 0, 1)
            distance = np.minimum(distance, np.linalg.norm(places - a - along[:, None] * (b - a), axis=1))
        inside = [((places >= low) & (places <= high)).all(1) for low, high in self.floors]
        taken = [_within(places, piece.corners) for piece in self.pieces]
        off = ~np.any(inside, 0) | np.any([*taken, np.zeros(len(places), bool)], 0)
        return np.where(off, 0.0, distance)

    def sees(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Whether no wall stands between two places (2,) m; furniture does not count."""
        p, q = self.walls[:, 0], self.walls[:, 1]

        def side(of: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
            along, away = end - start, of - start
            return along[..., 0] * away[..., 1] - along[..., 1] * away[..., 0] > 0

        crossed = (side(p, a, b) != side(q, a, b)) & (side(a, p, q) != side(b, p, q))
        return not crossed.any()


def floor_plan(room: Room, furniture: Furniture) -> FloorPlan:
    """The plan of a room or house."""
    named = [(room.names[quad.instance], _corners(quad)) for quad in room.quads]
    floors = [(p.min(0), p.max(0)) for name, p in named if name == 'floor']
    walls = [
        _ends(p) for name, p in named if name == 'wall' and p[:, 2].min() < HIGH and np.ptp(p[:, 2]) > LOW
    ]
    pieces = []
    for piece in room.pieces:
        size, low = furniture.models[piece.model].size, piece.position[2]
        if low < HIGH and low + size[2] > LOW:
            box = np.array([*piece.position[:2], size[0] / 2, size[1] / 2, piece.yaw])
            pieces.append(Footprint(piece.name, corners(box)))
    return FloorPlan(np.array(floors)[:, :, :2], np.array(walls), tuple(pieces))


def _corners(quad: Quad) -> np.ndarray:
    return quad.corner + np.array([np.zeros(3), quad.u, quad.u + quad.v, quad.v])


def _ends(points: np.ndarray) -> np.ndarray:
    """The ends (2, 2) of an upright parallelogram (4, 3), seen from above."""
    flat = points[:, :2]
    return flat[[0, int(np.linalg.norm(flat - flat[0], axis=1).argmax())]]


def _within(places: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which places (N, 2) lie in a convex polygon (M, 2), counter-clockwise."""
    side = np.roll(polygon, -1, 0) - polygon
    away = places[:, None] - polygon
    return (side[:, 0] * away[..., 1] - side[:, 1] * away[..., 0] > 0).all(1)
