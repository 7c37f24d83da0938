"""A house of four furnished rooms around a corner, joined by doorways, that a robot drives through in a ring.

Between its two rounds some pieces of furniture are taken away and others moved. World frame as of a room: x
and y along the walls, z up, origin in one corner of the floor of the first room, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.rooms.builder import THEMES, Builder
from gsemsplat_ros.rooms.furnish import furnish, models_by_kind
from gsemsplat_ros.rooms.furniture import Furniture
from gsemsplat_ros.rooms.layout import Light, Photographic, Piece, Quad, Room, Sheet, kind_of

WALL = 0.12  # m, thickness of the walls between rooms
DOORWAY = 0.9, 2.05  # m, width and height
WAY = 0.4  # m, kept free to either side of the route
CAMERA_HEIGHT = 1.1  # m
LOOK_ASIDE = 0.6  # rad, by which the camera looks to the outer side in the middle of a room
CELLS = (0, 0), (1, 0), (1, 1), (0, 1)  # column and row of each room, in the order of the ring
EXITS = 1, 2, 3, 0  # the wall through which the ring leaves each room (Shell.wall_frame)
TURNING = 1.5  # m, as much effort as turning by a radian: so that neighbouring keyframes overlap
STEPS = 64  # of the route between two of its corners
LAMP = 4.0  # times as strong is a lamp in a house that looks like a photograph
FARTHER = 0.7  # m, by which a moved piece moves at least


@dataclass(frozen=True)
class House:
    """rounds: the house in either round; instance ids are the same in both. taken, moved: ids of the pieces
    that stand nowhere, or elsewhere, in the second. route (n, 2) m: the closed way of the robot after
    even efforts (TURNING), without its end; headings (n,) rad: where its camera looks."""

    rounds: tuple[Room, Room]
    taken: frozenset[int]
    moved: frozenset[int]
    route: np.ndarray
    headings: np.ndarray

    @property
    def pieces(self) -> dict[int, str]:
        """Names of all pieces by instance id."""
        room = self.rounds[0]
        return {room.first_piece + k: piece.name for k, piece in enumerate(room.pieces)}

    def pose(self, phase: float, aside: float = 0.0, turn: float = 0.0) -> np.ndarray:
        """world_from_camera (4, 4) of a level camera at a part `phase` of the ring; aside [m]: to the left of
        the route; turn [rad]: to the left of its heading."""
        at = phase % 1 * len(self.route)
        low, part = int(at) % len(self.route), at % 1
        high = (low + 1) % len(self.route)
        along = self.route[high] - self.route[low]
        x, y = self.route[low] + part * along + aside * np.array([-along[1], along[0]]) / np.hypot(*along)
        change = (self.headings[high] - self.headings[low] + np.pi) % (2 * np.pi) - np.pi
        yaw = self.headings[low] + part * change + turn
        pose = np.eye(4)
        pose[:3, :3] = np.array(
            [[np.sin(yaw), 0, np.cos(yaw)], [-np.cos(yaw), 0, np.sin(yaw)], [0, -1, 0]]
        )  # columns: right, down, ahead
        pose[:3, 3] = x, y, CAMERA_HEIGHT
        return pose


def sample_house(furniture: Furniture, rng: np.random.Generator) -> House:
    """Sample a house of held-out furniture: four rooms of 3.2 to 4.2 m x 3.2 to 4.2 m."""
    sizes = room_sizes(rng)
    kinds = models_by_kind(furniture, heldout=True)
    themes = rng.choice([*THEMES, 'mixed'], 4, replace=False)
    return furnished_house(
        [
            Builder(rng, str(theme), size, furniture=furniture, kinds=kinds)
            for theme, size in zip(themes, sizes)
        ]
    )


def room_sizes(rng: np.random.Generator) -> list[np.ndarray]:
    """Sizes (3,) m of the four rooms, in the order of the ring."""
    widths, depths, height = rng.uniform(3.2, 4.2, 2), rng.uniform(3.2, 4.2, 2), rng.uniform(2.4, 2.8)
    return [np.array([widths[column], depths[row], height]) for column, row in CELLS]


def furnished_house(builders: list[Builder], photographic: Photographic | None = None) -> House:
    """Furnish four empty rooms in the order of the ring, and join them; photographic: how it is lit, None for
    plain shading."""
    rng = builders[0].rng
    corners = [np.array([column, row, 0]) * (builders[0].size + WALL) for column, row in CELLS]
    # where the ring leaves each room: the middle of the doorway along the wall, seen from either side
    leave, enter = [], []
    for k, builder in enumerate(builders):
        there = builders[(k + 1) % 4]
        wall, back = EXITS[k], (EXITS[k] + 2) % 4
        length = builder.wall_frame(wall)[3]
        leave.append(length * rng.uniform(0.4, 0.6))
        enter.append(length - leave[k])
        for room, side, s in ((builder, wall, leave[k]), (there, back, enter[k])):
            room.walls.append((side, s - DOORWAY[0] / 2, s + DOORWAY[0] / 2, 0.0, DOORWAY[1]))
    route, headings = _route(
        [
            point
            for builder, corner, wall, s in zip(builders, corners, EXITS, leave)
            for point in (corner + builder.size / 2, corner + _on_wall(builder, wall, s, WALL / 2))
        ]
    )
    rooms, lights = [], []
    for builder, corner in zip(builders, corners):
        near = route[::4] - corner[:2]
        near = near[((near > -WAY) & (near < builder.size[:2] + WAY)).all(1)]
        builder.kept_free += [np.array([x, y, WAY, WAY, 0]) for x, y in near]
        first = furnish(builder)
        rooms.append((builder, first, corner))
        light = builder.light()
        lights.append(Light(light.position + corner, light.color * (LAMP if photographic else 1.0)))
    for k, wall in enumerate(EXITS):
        _cut(builders[k], wall, leave[k])
        _cut(builders[(k + 1) % 4], (wall + 2) % 4, enter[k])
        _frame(builders[k], wall, leave[k])
    return _joined(rooms, lights, rng, route, headings, photographic)


def _on_wall(builder: Builder, wall: int, s: float, behind: float) -> np.ndarray:
    """The point (3,) at `s` along a wall and `behind` it [m]."""
    start, along, normal, _ = builder.wall_frame(wall)
    return start + along * s - normal * behind


def _route(corners: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A closed Catmull-Rom curve through the middles of rooms and doorways in turn: points (n, 2) after even
    efforts, and headings (n,): ahead in the doorways, to the outer side in the rooms."""
    p = np.array(corners)[:, :2]
    t = np.arange(len(p) * STEPS) / STEPS
    k, f = t.astype(int), (t % 1)[:, None]
    before, a, b, after = (p[(k + shift) % len(p)] for shift in (-1, 0, 1, 2))
    curve = a + f / 2 * (
        b - before + f * (2 * before - 5 * a + 4 * b - after + f * (3 * (a - b) + after - before))
    )
    ahead = np.roll(curve, -1, 0) - np.roll(curve, 1, 0)
    yaw = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0])) - LOOK_ASIDE * np.cos(np.pi * t / 2) ** 2
    x, y, yaw = np.vstack([np.column_stack([curve, yaw]), [*curve[0], yaw[0] + 2 * np.pi]]).T
    effort = np.hypot(np.diff(x), np.diff(y)) + TURNING * np.abs(np.diff(yaw))
    done = np.concatenate([[0], np.cumsum(effort)])
    even = np.linspace(0, done[-1], len(t), endpoint=False)
    x, y, yaw = (np.interp(even, done, values) for values in (x, y, yaw))
    return np.stack([x, y], 1), yaw


def _cut(builder: Builder, wall: int, s: float) -> None:
    """Cut the doorway around `s` out of a wall and its skirting board."""
    start, along, normal, length = builder.wall_frame(wall)
    low, high = s - DOORWAY[0] / 2, s + DOORWAY[0] / 2
    kept: list[Quad] = []
    for quad in builder.quads:
        offset = quad.corner - start
        on_it = abs(offset @ normal) < 0.014 and abs(quad.u @ normal) < 1e-9 and abs(quad.v @ normal) < 1e-9
        if builder.names[quad.instance] != 'wall' or not on_it:
            kept.append(quad)
            continue
        top, bottom = quad.corner[2], quad.corner[2] + quad.v[2]
        parts = [(0, low, bottom), (high, length, bottom)]
        if top > DOORWAY[1]:
            parts.append((low, high, DOORWAY[1]))
        for a, b, floor in parts:
            shares = (b - a) / length, (top - floor) / (top - bottom)
            tiling = quad.tiling[0] * shares[0], quad.tiling[1] * shares[1]
            corner, u, v = quad.corner + a * along, quad.u * shares[0], quad.v * shares[1]
            kept.append(replace(quad, corner=corner, u=u, v=v, tiling=tiling))
    builder.quads = kept


def _frame(builder: Builder, wall: int, s: float) -> None:
    """Line the doorway around `s` through the thickness of a wall: floor, sides and top."""
    _, along, normal, _ = builder.wall_frame(wall)
    wide, high = along * DOORWAY[0], np.array([0, 0, DOORWAY[1]])
    corner = _on_wall(builder, wall, s - DOORWAY[0] / 2, 0.0)
    through, white = -normal * WALL, builder.texture(np.full((256, 256, 3), 225, np.uint8))
    sides = builder.name('wall')
    builder.quad(builder.name('floor'), corner, wide, through, builder.quads[0].texture)
    builder.quad(sides, corner + high, wide, through, white)
    builder.quad(sides, corner, high, through, white)
    builder.quad(sides, corner + wide, high, through, white)


def _changes(builder: Builder) -> tuple[int, int, Piece] | None:
    """Of one room: the index of a piece that is taken, that of one that is moved, and the latter at its new
    place; None if there are none. They stand on the floor, with nothing on them."""
    models = builder.furniture.models
    high = np.array([piece.position for piece in builder.pieces if piece.position[2] > 0.1]).reshape(-1, 3)

    def movable(piece: Piece) -> bool:
        size = models[piece.model].size
        alone = not (np.hypot(*(high[:, :2] - piece.position[:2]).T) < max(size[:2])).any()
        usual = kind_of(models[piece.model]) in ('seat', 'table', 'big') and size[2] > 0.35
        return alone and usual and max(size[:2]) < 1.6 and piece.position[2] == 0

    found = [i for i, piece in enumerate(builder.pieces) if movable(piece)]
    order = [int(i) for i in builder.rng.permutation(found)]
    for index in order:
        piece = builder.pieces[index]
        size = models[piece.model].size
        for _ in range(200):
            x, y = builder.rng.uniform(0.2, builder.size[:2] - 0.2)
            yaw = float(builder.rng.integers(4) * np.pi / 2 + builder.rng.normal(0, 0.1))
            far = np.hypot(x - piece.position[0], y - piece.position[1]) > max(FARTHER, *size[:2])
            if far and builder.fits(np.array([x, y, size[0] / 2, size[1] / 2, yaw])):
                rest = [i for i in order if i != index]
                return (rest[0], index, replace(piece, position=(x, y, 0.0), yaw=yaw)) if rest else None
    return None


def _joined(
    rooms: list[tuple[Builder, int, np.ndarray]],
    lights: list[Light],
    rng: np.random.Generator,
    route: np.ndarray,
    headings: np.ndarray,
    photographic: Photographic | None,
) -> House:
    """One Room of several, each with the id of its first piece and its corner (3,) in the house, and the same
    after the changes. What is taken comes last, so that ids stay."""
    names: list[str] = ['void']
    quads: list[Quad] = []
    sheets: list[Sheet] = []
    textures: list[np.ndarray] = []
    stay: list[tuple[Piece, Piece]] = []  # before and after
    taken: list[Piece] = []
    moved: list[int] = []
    for builder, first, corner in rooms:
        shown = [i for i in range(1, len(builder.names)) if not first <= i < first + len(builder.pieces)]
        ids = {i: len(names) + k for k, i in enumerate(shown)}
        names += [builder.names[i] for i in shown]
        for quad in builder.quads:
            place = {'corner': quad.corner + corner, 'texture': quad.texture + len(textures)}
            quads.append(replace(quad, instance=ids[quad.instance], **place))
        for sheet in builder.sheets:
            place = {'points': sheet.points + corner, 'texture': sheet.texture + len(textures)}
            sheets.append(replace(sheet, instance=ids[sheet.instance], **place))
        textures += builder.textures
        changes = _changes(builder)
        for i, piece in enumerate(builder.pieces):
            before = _shifted(piece, corner)
            if changes is not None and i == changes[0]:
                taken.append(before)
            elif changes is not None and i == changes[1]:
                moved.append(len(stay))
                stay.append((before, _shifted(changes[2], corner)))
            else:
                stay.append((before, before))
    first_piece = len(names)
    names += [piece.name for piece, _ in stay] + [piece.name for piece in taken]
    room = Room(
        size=rooms[2][0].size + rooms[2][2],
        names=names,
        first_piece=first_piece,
        pieces=[piece for piece, _ in stay] + taken,
        quads=quads,
        lights=lights,
        ambient=float(rng.uniform(0.4, 0.5)),
        textures=textures,
        footprints=np.zeros((0, 5)),
        sheets=sheets,
        photographic=photographic,
    )
    return House(
        (room, replace(room, pieces=[piece for _, piece in stay])),
        frozenset(first_piece + len(stay) + k for k in range(len(taken))),
        frozenset(first_piece + k for k in moved),
        route,
        headings,
    )


def _shifted(piece: Piece, corner: np.ndarray) -> Piece:
    x, y, z = np.add(piece.position, corner).tolist()
    return replace(piece, position=(x, y, z))
