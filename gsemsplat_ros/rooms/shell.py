"""The shell of a room: floor, walls, ceiling, doors, windows, pictures, and the occupied parts of walls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from gsemsplat_ros.rooms import materials
from gsemsplat_ros.rooms.layout import Quad, Sheet


@dataclass
class Shell:
    """A room under construction; the lists grow. size (3,) m; boxes: footprints on the floor; walls: (wall,
    from, to, lowest, highest) [m], the occupied parts of walls; photographic: whether the room is to look
    like a photograph."""

    rng: np.random.Generator
    theme: str
    size: np.ndarray
    names: list[str] = field(default_factory=lambda: ['void'])
    quads: list[Quad] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    textures: list[np.ndarray] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    walls: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    photographic: bool = False

    def quad(
        self,
        instance: int,
        corner: ArrayLike,
        u: ArrayLike,
        v: ArrayLike,
        texture: int,
        tiling: tuple[float, float] = (1.0, 1.0),
        glow: float = 0.0,
    ) -> None:
        """Add a Quad, of random gloss in a photographic room."""
        corner, u, v = np.asarray(corner, float), np.asarray(u, float), np.asarray(v, float)
        gloss = self.rng.random() ** 2 if self.photographic else 0.0
        self.quads.append(Quad(instance, corner, u, v, texture, tiling, glow, gloss))

    def texture(self, image: np.ndarray) -> int:
        """Add a texture; returns its index."""
        self.textures.append(image)
        return len(self.textures) - 1

    def name(self, name: str) -> int:
        """Add an instance of this name; returns its id."""
        self.names.append(name)
        return len(self.names) - 1

    def wall_frame(self, wall: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Start corner, direction, inward normal and length of a wall (0: y=0, then counter-clockwise)."""
        w, d, _ = self.size
        start = np.array([(0, 0, 0), (w, 0, 0), (w, d, 0), (0, d, 0)][wall], float)
        along = np.array([(1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, -1, 0)][wall], float)
        return start, along, np.array([-along[1], along[0], 0]), (w, d, w, d)[wall]

    def shell(self) -> None:
        """Add floor, ceiling and walls with their materials, one or two doors, up to three windows."""
        rng, (w, d, h) = self.rng, self.size

        def pick(choices: list) -> np.ndarray:
            return choices[rng.integers(len(choices))](rng)

        scale = rng.uniform(1.2, 2.2)
        floor = pick([materials.wood, materials.wood, materials.tiles, materials.carpet])
        self.quad(
            self.name('floor'), (0, 0, 0), (w, 0, 0), (0, d, 0), self.texture(floor), (w / scale, d / scale)
        )
        self.quad(
            self.name('ceiling'),
            (0, 0, h),
            (w, 0, 0),
            (0, d, 0),
            self.texture(np.minimum(materials.plaster(rng).astype(int) // 3 + 165, 255).astype(np.uint8)),
            (w / 2, d / 2),
        )
        wet = self.theme in ('bathroom', 'kitchen')
        choices = [materials.plaster, materials.plaster, materials.wallpaper] + [materials.tiles] * wet * 2
        common, accent = self.texture(pick(choices)), self.texture(pick(choices + [materials.bricks]))
        odd = rng.integers(4) if rng.random() < 0.3 else -1
        board = (
            self.texture(np.full((256, 256, 3), rng.choice([60, 120, 235]), np.uint8))
            if rng.random() < 0.6
            else -1
        )
        for wall in range(4):
            start, along, normal, length = self.wall_frame(wall)
            ident = self.name('wall')
            self.quad(
                ident,
                start + [0, 0, h],
                along * length,
                (0, 0, -h),
                accent if wall == odd else common,
                (length / 1.5, h / 1.5),
            )
            if board >= 0:
                self.quad(ident, start + normal * 0.012 + [0, 0, 0.08], along * length, (0, 0, -0.08), board)
        for _ in range(rng.integers(1, 3)):
            self.opening('door', (0.8, 1.0), (1.95, 2.1), 0.0, materials.door)
        for _ in range(rng.integers(0, 4)):
            self.opening('window', (0.7, 2.0), (0.8, 1.4), rng.uniform(0.7, 1.0), materials.window, 0.8)

    def opening(
        self,
        name: str,
        width: tuple[float, float],
        height: tuple[float, float],
        bottom: float,
        make: Callable[[np.random.Generator], np.ndarray],
        glow: float = 0.0,
    ) -> None:
        """Add a flat door, window or picture on a free part of a wall; width, height: ranges [m]."""
        w, h = self.rng.uniform(*width), self.rng.uniform(*height)
        h = min(h, self.size[2] - bottom - 0.1)
        spot = self.wall_spot(w, bottom, bottom + h)
        if spot is None:
            return
        wall, s = spot
        start, along, normal, _ = self.wall_frame(wall)
        corner = start + along * (s - w / 2) + normal * 0.015 + [0, 0, bottom + h]
        self.quad(self.name(name), corner, along * w, (0, 0, -h), self.texture(make(self.rng)), (1, 1), glow)
        if name == 'door':  # keep the floor before it free
            middle = start + along * s + normal * 0.4
            self.boxes.append(np.array([*middle[:2], w / 2, 0.35, np.arctan2(along[1], along[0])]))

    def wall_spot(self, width: float, z0: float, z1: float) -> tuple[int, float] | None:
        """Take a free part of a wall, `width` wide between two heights: (wall, middle along it) or None."""
        for _ in range(12):
            wall = int(self.rng.integers(4))
            length = self.wall_frame(wall)[3]
            if width + 0.1 > length:
                continue
            s = self.rng.uniform(width / 2 + 0.05, length - width / 2 - 0.05)
            clash = any(
                k == wall and s - width / 2 < b and s + width / 2 > a and z0 < d and z1 > c
                for k, a, b, c, d in self.walls
            )
            if not clash:
                self.walls.append((wall, s - width / 2, s + width / 2, z0, z1))
                return wall, s
        return None
