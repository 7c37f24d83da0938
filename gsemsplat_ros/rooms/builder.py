"""A room under construction: chooses furniture and finds free places for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gsemsplat_ros.rooms import materials
from gsemsplat_ros.rooms.furniture import TOP, Furniture, Model
from gsemsplat_ros.rooms.layout import Light, Piece, corners, kind_of, overlap
from gsemsplat_ros.rooms.shell import Shell

THEMES = {
    'living': 'Living room',
    'bedroom': 'Bedroom',
    'kitchen': 'Kitchen',
    'office': 'Office',
    'bathroom': 'Bathroom',
    'storage': 'Miscellaneous',
}


def _hue_matrix(rng: np.random.Generator, textured: bool) -> np.ndarray:
    gain = np.diag(rng.uniform(0.85, 1.1) * rng.uniform(0.93, 1.07, 3))
    if textured or rng.random() < 0.5:
        return gain
    angle = rng.uniform(-np.pi, np.pi)
    k = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return gain @ (np.cos(angle) * np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) / 3)


@dataclass(kw_only=True)
class Builder(Shell):
    """kinds: kind -> models to choose from; small_boxes: footprints of objects on top of others; kept_free:
    footprints where no piece may stand."""

    furniture: Furniture
    kinds: dict[str, list[int]]
    pieces: list[Piece] = field(default_factory=list)
    small_boxes: list[np.ndarray] = field(default_factory=list)
    kept_free: list[np.ndarray] = field(default_factory=list)

    def choose(self, kind: str) -> int | None:
        """Index of a random model of a kind; None if the kind has none.

        Models of the room's theme weigh six times as much; a name with n models weighs sqrt(n), or in a
        photographic room as much as any other, so that rare names come about as often as common ones.
        """
        indices = self.kinds.get(kind, [])
        if not indices:
            return None
        models = [self.furniture.models[i] for i in indices]
        counts: dict[str, int] = {}
        for m in models:
            counts[m.name] = counts.get(m.name, 0) + 1
        power = 1.0 if self.photographic else 0.5
        weight = np.array(
            [(6.0 if m.category == THEMES.get(self.theme) else 1.0) / counts[m.name] ** power for m in models]
        )
        return indices[self.rng.choice(len(indices), p=weight / weight.sum())]

    def add(self, model: int, x: float, y: float, z: float, yaw: float, solid: bool = True) -> None:
        m = self.furniture.models[model]
        textured = bool((self.furniture.mesh(model).textures >= 0).mean() > 0.5)
        self.name(m.name)
        tint = _hue_matrix(self.rng, textured)
        finish = int(self.rng.integers(1 << 31)) if self.photographic else None
        self.pieces.append(Piece(model, m.name, (float(x), float(y), float(z)), float(yaw), tint, finish))
        if solid:
            self.boxes.append(np.array([x, y, m.size[0] / 2, m.size[1] / 2, yaw]))

    def fits(self, box: np.ndarray, margin: float = 0.02) -> bool:
        grown = box + np.array([0, 0, margin, margin, 0])
        box_corners = corners(grown)
        inside = (box_corners > 0.005).all() and (box_corners < self.size[:2] - 0.005).all()
        return bool(inside) and not any(overlap(grown, other) for other in (*self.boxes, *self.kept_free))

    def against_wall(self, model: int) -> bool:
        m = self.furniture.models[model]
        for _ in range(10):
            wall = int(self.rng.integers(4))
            start, along, normal, length = self.wall_frame(wall)
            if m.size[0] + 0.1 > length:
                continue
            corner = self.rng.random() < 0.3
            s = (
                m.size[0] / 2 + 0.03
                if corner
                else self.rng.uniform(m.size[0] / 2 + 0.03, length - m.size[0] / 2 - 0.03)
            )
            middle = start + along * s + normal * (m.size[1] / 2 + self.rng.uniform(0.03, 0.08))
            a, b = s - m.size[0] / 2, s + m.size[0] / 2
            hidden = any(
                k == wall and a < q and b > p and m.size[2] > z0 + 0.15 for k, p, q, z0, _ in self.walls
            )
            box = np.array([*middle[:2], m.size[0] / 2, m.size[1] / 2, np.arctan2(normal[0], -normal[1])])
            if not hidden and self.fits(box, 0.01):
                self.add(model, middle[0], middle[1], 0.0, box[4])
                self.walls.append((wall, a, b, 0.0, m.size[2]))
                return True
        return False

    def anywhere(self, model: int, free_turn: bool) -> bool:
        m = self.furniture.models[model]
        for _ in range(10):
            yaw = (
                self.rng.uniform(-np.pi, np.pi)
                if free_turn
                else self.rng.integers(4) * np.pi / 2 + self.rng.normal(0, 0.05)
            )
            x, y = self.rng.uniform(0.2, self.size[:2] - 0.2)
            box = np.array([x, y, m.size[0] / 2, m.size[1] / 2, yaw])
            if self.fits(box, 0.05):
                self.add(model, x, y, 0.0, yaw)
                return True
        return False

    def table_group(self, seats: int) -> None:
        """Place a table or desk with seats that face it."""
        model = self.choose('table')
        if model is None:
            return
        m = self.furniture.models[model]
        alone = self.against_wall(model) if 'desk' in m.name else self.anywhere(model, False)
        if not alone:
            return
        x, y, w, d, yaw = self.boxes[-1]
        seat = self.choose('seat')
        sides = [0] if 'desk' in m.name else list(self.rng.permutation(4))
        if seat is None:
            return
        s = self.furniture.models[seat]
        for side in sides[:seats]:
            reach = (d if side % 2 == 0 else w) + s.size[1] / 2 + self.rng.uniform(-0.0, 0.25)
            angle = yaw + (0, np.pi / 2, np.pi, -np.pi / 2)[side]  # side 0: in front (-y of the table)
            at = np.array([x, y]) + reach * np.array([np.sin(angle), -np.cos(angle)])
            turn = angle + np.pi + self.rng.normal(0, 0.15)
            if self.fits(np.array([*at, s.size[0] / 2, s.size[1] / 2, turn]), 0.0):
                self.add(seat, at[0], at[1], 0.0, turn)

    def on_top(self, carrier: int, model: int) -> bool:
        """Put a small model on a flat part of the carrier's upper surface, found in its height map."""
        piece, small = self.pieces[carrier], self.furniture.models[model]
        base = self.furniture.models[piece.model]
        turn = self.rng.normal(0, 0.4) + (np.pi if self.rng.random() < 0.1 else 0)
        cell = np.array(base.size[:2]) / TOP
        half = (
            np.abs(np.cos(turn)) * np.array(small.size[:2]) / 2
            + np.abs(np.sin(turn)) * np.array(small.size[1::-1]) / 2
        )
        room = np.array(base.size[:2]) / 2 - half - 0.01
        if (room <= 0).any():
            return False
        for _ in range(6):
            at = self.rng.uniform(-room, room)
            lo = np.floor((at - half) / cell + TOP / 2).astype(int)
            hi = np.ceil((at + half) / cell + TOP / 2).astype(int)
            patch = base.top[max(lo[1], 0) : hi[1], max(lo[0], 0) : hi[0]]
            z = float(patch.max())
            if (
                z - np.quantile(patch, 0.1) > 0.025
                or not 0.2 < z < 1.6
                or z + small.size[2] > self.size[2] - 0.1
            ):
                continue
            c, s = np.cos(piece.yaw), np.sin(piece.yaw)
            x, y = np.array([c * at[0] - s * at[1], s * at[0] + c * at[1]]) + piece.position[:2]
            box = np.array([x, y, small.size[0] / 2, small.size[1] / 2, piece.yaw + turn])
            if any(overlap(box, other) for other in self.small_boxes):
                continue
            self.small_boxes.append(box)
            self.add(model, x, y, z, piece.yaw + turn, solid=False)
            return True
        return False

    def lay_rug(self) -> None:
        """Lay a rectangular rug at a random place on the floor."""
        half = np.minimum(self.rng.uniform(0.5, 1.4, 2), self.size[:2] / 2 - 0.3)
        x, y = self.rng.uniform(half + 0.1, self.size[:2] - half - 0.1)
        self.quad(
            self.name('rug'),
            (x - half[0], y - half[1], 0.008),
            (2 * half[0], 0, 0),
            (0, 2 * half[1], 0),
            self.texture(materials.rug(self.rng)),
        )

    def place_larger_pieces(self) -> None:
        """Place pieces up to a random total of 6 to 18, or until they cover 42 % of the floor; in a
        photographic room 6 to 30 and 50 %."""
        most, full = (31, 0.5) if self.photographic else (19, 0.42)
        budget = int(self.rng.integers(6, most))
        for _ in range(40):
            filled = sum(4 * box[2] * box[3] for box in self.boxes) / (self.size[0] * self.size[1])
            if len(self.pieces) >= budget or filled > full:
                break
            kind = str(self.rng.choice(['big', 'big', 'big', 'seat', 'table']))
            model = self.choose(kind)
            if model is None:
                continue
            if self.rng.random() < (0.85 if kind == 'big' else 0.3):
                if not self.against_wall(model):
                    self.anywhere(model, True)
            else:
                self.anywhere(model, kind == 'seat')

    def place_clutter(self) -> None:
        """Place small objects on tables and large pieces, and a few on the floor."""
        most = 9 if self.photographic else 5
        for carrier in range(len(self.pieces)):
            flat = kind_of(self.furniture.models[self.pieces[carrier].model]) in ('table', 'big')
            for _ in range(self.rng.integers(1, most) if flat and self.rng.random() < 0.75 else 0):
                small = self.choose('small')
                if small is not None:
                    self.on_top(carrier, small)
        for _ in range(self.rng.integers(0, most - 1)):
            model = self.choose(str(self.rng.choice(['small', 'rug'])))
            if model is not None:
                self.anywhere(model, True)

    def hang(self) -> None:
        """Hang a model on a free part of a wall, if there is one."""
        model = self.choose('hung')
        if model is None:
            return
        m = self.furniture.models[model]
        bottom = self.hang_height(m)
        if bottom + m.size[2] >= self.size[2] - 0.05:
            return
        spot = self.wall_spot(m.size[0], bottom, bottom + m.size[2])
        if spot is None:
            return
        wall, s = spot
        start, along, normal, _ = self.wall_frame(wall)
        x, y, _ = start + along * s + normal * (m.size[1] / 2 + 0.005)
        self.add(model, x, y, bottom, np.arctan2(normal[0], -normal[1]), solid=False)

    def hang_height(self, m: Model) -> float:
        """Height of the lower edge of a hanging model [m]: the catalogue's if the model then fits."""
        if 0 < m.elevation < self.size[2] - m.size[2]:
            return m.elevation
        return 0.1 if m.name == 'radiator' else 1.2

    def hang_from_ceiling(self) -> None:
        """Hang a lamp near the middle of the ceiling."""
        model = self.choose('ceiling')
        if model is None:
            return
        x, y = self.rng.uniform(0.35, 0.65, 2) * self.size[:2]
        z = self.size[2] - self.furniture.models[model].size[2]
        self.add(model, x, y, z, self.rng.integers(4) * np.pi / 2, solid=False)

    def light(self) -> Light:
        """A random light in the upper part of the room."""
        size, rng = self.size, self.rng
        position = np.array([*(rng.uniform(0.2, 0.8, 2) * size[:2]), size[2] - rng.uniform(0.15, 0.5)])
        power = rng.uniform(0.35, 0.8)
        return Light(
            position, power * np.clip([1.0, rng.normal(0.94, 0.05), rng.normal(0.86, 0.1)], 0.5, 1.1)
        )
