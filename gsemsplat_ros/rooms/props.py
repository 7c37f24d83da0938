"""What people leave in rooms, made of sheets: curtains, pillows, covers, towels, clothes, books, papers,
posters, cables. Only photographic rooms have them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np

from gsemsplat_ros.rooms import patterns
from gsemsplat_ros.rooms.furniture import TOP, Furniture
from gsemsplat_ros.rooms.layout import Piece, Quad, Sheet
from gsemsplat_ros.rooms.materials import color, finish, noise, picture
from gsemsplat_ros.rooms.shell import Shell

PROPS = 'curtain', 'blinds', 'pillow', 'blanket', 'towel', 'clothes', 'book', 'paper', 'poster', 'cable'
BED = re.compile(r'\bbed\b|futon|mattress')
SOFT_SEAT = re.compile(r'sofa|couch|armchair|bench|day bed')
FLAT = re.compile(
    r'table|desk|cabinet|dresser|chest|drawers|stand|shelves|bench|bed|sofa|couch|workbench|island'
)


@dataclass
class Props:
    """Adds props to the room that `shell` holds; furniture and pieces: what stands in it already."""

    shell: Shell
    furniture: Furniture
    pieces: list[Piece]
    first_piece: int

    def __post_init__(self) -> None:
        self.rng = self.shell.rng

    def add(self) -> None:
        """Add all of them."""
        rng = self.rng
        for quad in [q for q in self.shell.quads if self.shell.names[q.instance] == 'window']:
            if rng.random() < 0.6:
                self.curtains(quad)
            elif rng.random() < 0.4:
                self.blinds(quad)
        for k, piece in enumerate(self.pieces):
            if BED.search(piece.name):
                if rng.random() < 0.7:
                    self.cover(k)
                for _ in range(rng.integers(0, 4)):
                    self.pillow(piece, rng.uniform(0.1, 0.8))
            elif SOFT_SEAT.search(piece.name):
                for _ in range(rng.integers(0, 4)):
                    self.pillow(piece, rng.uniform(0.8, 1.3))
            if FLAT.search(piece.name):
                for _ in range(rng.integers(0, 3)):
                    self.books(piece)
                for _ in range(rng.integers(0, 4)):
                    self.paper(piece)
            if rng.random() < 0.1:
                self.clothes(piece)
        for _ in range(rng.integers(0, 3)):
            self.towel()
        for _ in range(rng.integers(0, 3)):
            self.shell.opening('poster', (0.3, 0.9), (0.4, 1.2), rng.uniform(0.8, 1.5), poster)
        for _ in range(rng.integers(0, 5)):
            self.shell.opening('paper', (0.15, 0.3), (0.2, 0.4), rng.uniform(0.9, 1.7), patterns.page)
        for _ in range(rng.integers(0, 4)):
            self.cable()

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

    def box(self, instance: int, low: np.ndarray, size: np.ndarray, turn: float, texture: int) -> None:
        """A box that stands on its lowest corner (3,) [m], turned about it, without a bottom."""
        c, s = np.cos(turn), np.sin(turn)
        x, y, z = size[0] * np.array([c, s, 0]), size[1] * np.array([-s, c, 0]), np.array([0, 0, size[2]])
        for corner, u, v in ((low + z, x, y), (low, x, z), (low + y, x, z), (low, y, z), (low + x, y, z)):
            self.shell.quad(instance, corner, u, v, texture)

    def books(self, piece: Piece) -> None:
        """A stack of books on a piece of furniture."""
        rng = self.rng
        at = self.spot(piece, np.array([0.13, 0.13]))
        if at is None:
            return
        low = self.placed(piece, at)
        instance = self.shell.name('book')
        for _ in range(rng.integers(1, 6)):
            size = np.array([rng.uniform(0.11, 0.22), rng.uniform(0.15, 0.3), rng.uniform(0.01, 0.05)])
            turn = piece.yaw + rng.normal(0, 0.3)
            c, s = np.cos(turn), np.sin(turn)
            corner = low - np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ [size[0] / 2, size[1] / 2, 0]
            self.box(instance, corner, size, turn, self.shell.texture(poster(rng)))
            low = low + [0, 0, size[2]]

    def paper(self, piece: Piece) -> None:
        """A sheet of paper on a piece of furniture."""
        rng = self.rng
        at = self.spot(piece, np.array([0.15, 0.15]))
        if at is None:
            return
        u, v = np.meshgrid(np.linspace(-0.105, 0.105, 5), np.linspace(-0.148, 0.148, 5))
        z = 0.006 + 0.5 * np.maximum(u * np.cos(1.0) + v * np.sin(1.0), 0) ** 2
        turn = rng.uniform(0, 2 * np.pi)
        x, y = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
        self.sheet('paper', self.placed(piece, np.stack([x, y, z], -1) + at), patterns.page(rng))

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

    def cable(self) -> None:
        """A cable on the floor, from a wall into the room."""
        rng, size = self.rng, self.shell.size
        start, along, normal, length = self.shell.wall_frame(int(rng.integers(4)))
        heading = np.arctan2(normal[1], normal[0]) + np.cumsum(rng.normal(0, 0.25, 60))
        step = np.stack([np.cos(heading), np.sin(heading)], -1) * rng.uniform(0.02, 0.05)
        path = (start + along * length * rng.uniform(0.1, 0.9))[:2] + np.cumsum(step, 0)
        path = np.clip(path, 0.01, size[:2] - 0.01)
        across = np.stack([-np.sin(heading), np.cos(heading)], -1) * rng.uniform(0.003, 0.008)
        flat = np.stack([path - across, path, path + across])
        lift = np.array([0.002, 0.014, 0.002])[:, None, None] * np.ones((3, 60, 1))
        dye = color(rng, 0.02, 0.3, 0.05) if rng.random() < 0.6 else color(rng, 0.6, 1, 0.1)
        self.sheet('cable', np.concatenate([flat, lift], -1), finish(np.ones((256, 256, 3)) * dye))


def poster(rng: np.random.Generator) -> np.ndarray:
    """A print without a frame: scenery or writing."""
    return (patterns.scenery if rng.random() < 0.6 else patterns.page)(rng)


def framed(rng: np.random.Generator) -> np.ndarray:
    """A picture with a frame and sometimes a mount around scenery, or an abstract print."""
    if rng.random() < 0.3:
        return picture(rng)
    image, edge = patterns.scenery(rng), int(rng.integers(6, 20))
    mount = edge + (int(rng.integers(10, 40)) if rng.random() < 0.5 else 0)
    inner = cv2.resize(image, (256 - 2 * mount,) * 2, interpolation=cv2.INTER_AREA)
    out = finish(np.ones((256, 256, 3)) * color(rng, 0.05, 0.8, 0.1))
    out[edge:-edge, edge:-edge] = finish(color(rng, 0.8, 1, 0.03))
    out[mount:-mount, mount:-mount] = inner
    return out
