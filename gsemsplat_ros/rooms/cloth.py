"""Cloth in rooms: curtains and blinds, pillows, covers, clothes and towels."""

from __future__ import annotations

import cv2
import numpy as np

from gsemsplat_ros.rooms.furniture import TOP
from gsemsplat_ros.rooms.layout import Piece, Quad
from gsemsplat_ros.rooms.materials import color, finish, noise
from gsemsplat_ros.rooms.placing import Placing


class Cloth(Placing):
    """Adds things of cloth, one a call."""

    def curtains(self, window: Quad) -> None:
        """Two curtains beside a window, or one; to the floor or to the sill, more or less closed."""
        rng, texture = self.rng, self.shell.texture(self.cloth(0.7))
        wide, high = np.linalg.norm(window.u), np.linalg.norm(window.v)
        along = window.u / wide
        normal = np.cross(window.u, window.v) / (wide * high)
        top = min(window.corner[2] + rng.uniform(0.05, 0.25), self.shell.size[2] - 0.02)
        bottom = 0.03 if rng.random() < 0.6 else window.corner[2] - high - rng.uniform(0, 0.25)
        closed, folds, phase = rng.uniform(0.15, 0.5), rng.uniform(8, 16), rng.uniform(0, 6)
        for side in (0, 1):
            if rng.random() < 0.15:
                continue
            width = (wide + 0.3) * closed
            start = -0.15 if side == 0 else wide + 0.15 - width
            a, t = np.meshgrid(np.linspace(0, 1, 33), np.linspace(0, 1, 5))
            out = 0.08 + (0.03 + 0.02 * t) * np.sin(2 * np.pi * folds * width * a + phase + 0.5 * t)
            x = start + width * (a + 0.04 * t * np.sin(3 * a + phase))
            points = window.corner + x[..., None] * along + out[..., None] * normal
            points[..., 2] = top + (bottom - top) * t
            self.sheet('curtain', points, texture, 2.0)

    def blinds(self, window: Quad) -> None:
        """Slats before the upper part of a window."""
        rng = self.rng
        share, slats = rng.uniform(0.3, 1.0), int(rng.integers(12, 40))
        normal = np.cross(window.u, window.v)
        normal /= np.linalg.norm(normal)
        t = np.linspace(0, 1, 2 * slats + 1)[:, None, None]
        out = 0.02 + 0.02 * (np.arange(2 * slats + 1) % 2)[:, None, None]
        a = np.array([0.0, 1.0])[:, None]
        points = window.corner + window.u * a + window.v * t * share + normal * out
        self.sheet('blinds', points, finish(np.ones((256, 256, 3)) * color(rng, 0.5, 1, 0.1)))

    def pillow(self, piece: Piece, tilt: float) -> None:
        """A pillow at the back of a bed or seat, tilted against it [rad]."""
        rng = self.rng
        half = np.array([rng.uniform(0.18, 0.32), rng.uniform(0.16, 0.24)])
        at = self.spot(piece, half, back=True)
        if at is None:
            return
        instance, texture = self.shell.name('pillow'), self.shell.texture(self.cloth())
        u, v = np.meshgrid(np.linspace(-1, 1, 15), np.linspace(-1, 1, 15))
        bulge = ((1 - u**4) * (1 - v**4)) ** 0.5 * (1 + 0.08 * np.sin(5 * u + 3 * v))
        thick = rng.uniform(0.06, 0.1)
        turn = rng.normal(0, 0.25)
        for side in (1, -1):
            x, y = half[0] * u * (1 - 0.06 * (1 - v**2)), half[1] * v * (1 - 0.06 * (1 - u**2))
            z = side * thick * bulge
            y, z = y * np.cos(tilt) - z * np.sin(tilt), y * np.sin(tilt) + z * np.cos(tilt)
            x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
            lift = at[2] + half[1] * np.sin(tilt) + 0.7 * thick * np.cos(tilt)
            points = np.stack([x + at[0], y + at[1], z + lift], -1)
            self.sheet(instance, self.placed(piece, points), texture)

    def cover(self, index: int) -> None:
        """A cover or blanket over the front part of a bed, hanging over its sides; mostly part of the bed."""
        rng, piece = self.rng, self.pieces[index]
        model = self.furniture.models[piece.model]
        size = np.array(model.size[:2])
        top = cv2.GaussianBlur(model.top, (0, 0), 1.0)
        level = float(np.median(top))
        if not 0.2 < level < 1.0:
            return
        reach = rng.uniform(0.4, 0.85)
        hang = rng.uniform(0.05, 0.3)
        u = np.linspace(-1 - hang, 1 + hang, 33)
        v = np.linspace(-1 - hang, -1 + 2 * reach, 25)
        u, v = np.meshgrid(u, v)
        over = np.maximum(np.maximum(abs(u) - 1, 0) * size[0] / 2, np.maximum(abs(v) - 1, 0) * size[1] / 2)
        folds = 0.012 * np.sin(9 * u + 4 * v + rng.uniform(0, 6)) + 0.01 * np.sin(17 * v - 5 * u)
        at = np.clip((np.stack([u, v], -1) / 2 + 0.5) * TOP, 0, TOP - 1).astype(int)
        z = np.clip(top[at[..., 1], at[..., 0]], level - 0.05, level + 0.08) + 0.03 + folds
        z = np.where(over > 0, np.maximum(level - 1.2 * over, 0.02), z)
        x, y = (np.clip(q, -1.02, 1.02) * s / 2 for q, s in ((u, size[0]), (v, size[1])))
        name = 'blanket' if rng.random() < 0.3 else self.first_piece + index
        self.sheet(name, self.placed(piece, np.stack([x, y, z], -1)), self.cloth(0.35), rng.uniform(1, 4))

    def clothes(self, piece: Piece) -> None:
        """A heap of cloth on a piece of furniture."""
        rng = self.rng
        half = rng.uniform(0.12, 0.3, 2)
        at = self.spot(piece, half)
        if at is not None:
            self.heap(self.placed(piece, at), half)

    def heap(self, at: np.ndarray, half: np.ndarray) -> None:
        rng = self.rng
        u, v = np.meshgrid(np.linspace(-1, 1, 25), np.linspace(-1, 1, 25))
        r = np.hypot(u, v)
        rough = noise(rng, 6)[::10, ::10][:25, :25] + 0.4 * noise(rng, 12)[::10, ::10][:25, :25]
        z = np.maximum(0.02 + (0.1 + 0.08 * rough) * (1 - r**2), 0.004)
        wobble = 1 + 0.25 * np.sin(3 * np.arctan2(v, u) + rng.uniform(0, 6))
        points = np.stack([half[0] * u * wobble, half[1] * v * wobble, z], -1)
        self.sheet('clothes', points + at, self.cloth(), 2.0)

    def towel(self) -> None:
        """A towel that hangs on a wall."""
        rng, shell = self.rng, self.shell
        width, high, top = rng.uniform(0.25, 0.6), rng.uniform(0.4, 1.0), rng.uniform(1.1, 1.6)
        spot = shell.wall_spot(width, top - high, top)
        if spot is None:
            return
        start, along, normal, _ = shell.wall_frame(spot[0])
        a, t = np.meshgrid(np.linspace(-0.5, 0.5, 17), np.linspace(0, 1, 7))
        out = 0.03 + 0.012 * np.sin(2 * np.pi * 3 * a + rng.uniform(0, 6)) * (0.3 + t)
        points = start + along * (spot[1] + width * a * (1 - 0.1 * t))[..., None] + normal * out[..., None]
        points[..., 2] = top - high * t
        self.sheet('towel', points, self.cloth(0.6), rng.uniform(1, 3))
        bar = start + along * (spot[1] - width / 2 - 0.05) + normal * 0.05 + [0, 0, top]
        shell.quad(len(shell.names) - 1, bar, along * (width + 0.1), (0, 0, 0.02), 0)
