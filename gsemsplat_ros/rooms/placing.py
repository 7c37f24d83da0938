"""Where props lie and what they are made of: sheets and boxes on top of furniture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsemsplat_ros.rooms import patterns
from gsemsplat_ros.rooms.furniture import TOP, Furniture
from gsemsplat_ros.rooms.layout import Piece, Sheet
from gsemsplat_ros.rooms.materials import color, finish
from gsemsplat_ros.rooms.shell import Shell


@dataclass
class Placing:
    """Adds to the room that `shell` holds; furniture and pieces: what stands in it already, the first with
    the instance id `first_piece`."""

    shell: Shell
    furniture: Furniture
    pieces: list[Piece]
    first_piece: int

    def __post_init__(self) -> None:
        self.rng = self.shell.rng

    def sheet(
        self, name: str | int, points: np.ndarray, texture: np.ndarray | int, repeats: float = 1.0
    ) -> None:
        """Add a sheet (n, m, 3) [m] as an object of a new name, or as a part of an instance."""
        instance = self.shell.name(name) if isinstance(name, str) else name
        texture = texture if isinstance(texture, int) else self.shell.texture(texture)
        self.shell.sheets.append(Sheet(instance, points, texture, (repeats, repeats)))

    def cloth(self, plain: float = 0.5) -> np.ndarray:
        """A texture of dyed cloth, plain with this chance and printed otherwise."""
        rng = self.rng
        pattern = (
            patterns.weave if rng.random() < plain else (patterns.stripes, patterns.flowers)[rng.integers(2)]
        )
        dye = color(rng, 0.1, 1.0, 0.35)
        return finish(pattern(rng) / 255 / patterns.LEVEL * dye)

    def spot(self, piece: Piece, half: np.ndarray, back: bool = False) -> np.ndarray | None:
        """A place (3,) [m] in the model's frame on top of a piece, near its back if wanted, for a footprint
        of these half sides [m]. None without one."""
        model = self.furniture.models[piece.model]
        size = np.array(model.size[:2])
        room = size / 2 - half
        if (room <= 0).any():
            return None
        at = self.rng.uniform(-room, room)
        if back:
            at[1] = room[1] - self.rng.uniform(0, 0.15)
        cell = np.clip(((at / size + 0.5) * TOP).astype(int), 0, TOP - 1)
        reach = np.maximum((half / size * TOP).astype(int), 1)
        patch = model.top[
            max(cell[1] - reach[1], 0) : cell[1] + reach[1] + 1,
            max(cell[0] - reach[0], 0) : cell[0] + reach[0] + 1,
        ]
        z = float(np.median(patch))
        if not 0.15 < z < 1.6 or (abs(patch - z) < 0.06).mean() < 0.7:
            return None
        return np.array([*at, z])

    def placed(self, piece: Piece, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the model's frame in the world."""
        c, s = np.cos(piece.yaw), np.sin(piece.yaw)
        return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + piece.position

    def box(self, instance: int, low: np.ndarray, size: np.ndarray, turn: float, texture: int) -> None:
        """A box that stands on its lowest corner (3,) [m], turned about it, without a bottom."""
        c, s = np.cos(turn), np.sin(turn)
        x, y, z = size[0] * np.array([c, s, 0]), size[1] * np.array([-s, c, 0]), np.array([0, 0, size[2]])
        for corner, u, v in ((low + z, x, y), (low, x, z), (low + y, x, z), (low, y, z), (low + x, y, z)):
            self.shell.quad(instance, corner, u, v, texture)
