"""What people leave in rooms: things of cloth, books, papers, posters, shelves, mirrors, cables. Only
photographic rooms have them."""

from __future__ import annotations

import re

import cv2
import numpy as np

from gsemsplat_ros.rooms import patterns
from gsemsplat_ros.rooms.cloth import Cloth
from gsemsplat_ros.rooms.layout import MIRROR_GLOW, Piece
from gsemsplat_ros.rooms.materials import color, finish, picture

PROPS = (
    'curtain',
    'blinds',
    'pillow',
    'blanket',
    'towel',
    'clothes',
    'book',
    'paper',
    'poster',
    'cable',
    'shelf',
    'mirror',
)
BED = re.compile(r'\bbed\b|futon|mattress')
SOFT_SEAT = re.compile(r'sofa|couch|armchair|bench|day bed')
FLAT = re.compile(
    r'table|desk|cabinet|dresser|chest|drawers|stand|shelves|bench|bed|sofa|couch|workbench|island'
)


class Props(Cloth):
    """Adds a random choice of everything."""

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
        for _ in range(rng.integers(0, 3)):
            self.shelf()
        if rng.random() < 0.5:
            self.shell.opening('mirror', (0.3, 1.0), (0.4, 1.5), rng.uniform(0.2, 1.3), mirror, MIRROR_GLOW)

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

    def shelf(self) -> None:
        """A board on a wall with a row of books and other boxes on it."""
        rng, shell = self.rng, self.shell
        width, deep, z = rng.uniform(0.4, 1.4), rng.uniform(0.15, 0.3), rng.uniform(0.9, 1.8)
        spot = shell.wall_spot(width, z - 0.1, z + 0.4)
        if spot is None:
            return
        start, along, normal, _ = shell.wall_frame(spot[0])
        turn = float(np.arctan2(along[1], along[0]))
        low = start + along * (spot[1] - width / 2) + normal * 0.003 + [0, 0, z]
        wood = finish(np.ones((256, 256, 3)) * color(rng, 0.15, 0.95, 0.1) * patterns.grain(rng) / 255)
        self.box(
            shell.name('shelf'),
            low - [0, 0, 0.025],
            np.array([width, deep, 0.025]),
            turn,
            shell.texture(wood),
        )
        bottom = low - [0, 0, 0.025]
        shell.quad(len(shell.names) - 1, bottom, along * width, normal * deep, len(shell.textures) - 1)
        covers = [shell.texture(patterns.page(rng)), shell.texture(self.cloth()), shell.texture(poster(rng))]
        books, at = shell.name('book'), rng.uniform(0, 0.1)
        while at < width - 0.06:
            size = np.array([rng.uniform(0.012, 0.06), deep * rng.uniform(0.5, 0.95), rng.uniform(0.15, 0.3)])
            self.box(books, low + along * at, size, turn, covers[rng.integers(3)])
            at += size[0] + 0.001 + (rng.uniform(0.05, 0.3) if rng.random() < 0.12 else 0)

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


def mirror(rng: np.random.Generator) -> np.ndarray:
    """Glass in a frame; the renderer puts what it reflects inside."""
    return finish(np.ones((256, 256, 3)) * color(rng, 0.05, 0.9, 0.1))


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
