"""All triangles of a room in one array, and the layers of their textures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gsemsplat_ros.rooms.finish import Finishes
from gsemsplat_ros.rooms.furniture import TEXTURE, Furniture
from gsemsplat_ros.rooms.layout import Piece, Quad, Room, Sheet

# normal: 128 + 127 times each coordinate, and gloss; uv: a third coordinate and a negative layer where the
# texture lies along the axes of the model; color: RGB and glow
VERTEX = np.dtype(
    [('position', 'f4', 3), ('normal', 'u1', 4), ('uv', 'f4', 3), ('color', 'u1', 4), ('layer_id', 'f4', 2)]
)


@dataclass
class Triangles:
    """vertices: VERTEX; opaque, cut_out: faces (F,3) int32, the second with holes in their textures; layers
    (TEXTURE, TEXTURE, 4) uint8 each, layer 0 white. They grow by `add_...`.

    Pieces come before the walls behind them, so that most hidden fragments are never shaded.
    """

    furniture: Furniture
    room: Room
    layers: list[np.ndarray] = field(default_factory=list)
    parts: list[np.ndarray] = field(default_factory=list)
    opaque: list[np.ndarray] = field(default_factory=list)
    cut_out: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.layers.append(np.full((TEXTURE, TEXTURE, 4), 255, np.uint8))
        self.layers += [_opaque(t) for t in self.room.textures]
        look = self.room.photographic
        self.finishes = None
        if look is not None:
            self.finishes = Finishes(len(self.layers), len(look.details))
            self.layers += [_opaque(t) for t in look.details]
        self.where, self.holes = {-1: 0}, {-1: False}  # texture of the furniture -> layer; has it holes
        for k, piece in enumerate(self.room.pieces):
            self.add_piece(piece, self.room.first_piece + k)
        for sheet in self.room.sheets:
            self.add_sheet(sheet)
        for quad in self.room.quads:
            self.add_quad(quad)

    @property
    def vertices(self) -> np.ndarray:
        return np.concatenate(self.parts)

    @property
    def faces(self) -> tuple[np.ndarray, int]:
        """All faces (F,3) int32, and the number of the opaque ones, which come first."""
        none = np.zeros((0, 3), np.int32)
        opaque = np.concatenate([none, *self.opaque])
        return np.concatenate([opaque, *self.cut_out]).astype(np.int32), len(opaque)

    def add_piece(self, piece: Piece, instance: int) -> None:
        mesh = self.furniture.mesh(piece.model)
        c, s = np.cos(piece.yaw), np.sin(piece.yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
        used, inverse = np.unique(mesh.textures, return_inverse=True)
        for t in map(int, used):
            if t not in self.where:
                self.where[t] = len(self.layers)
                self.layers.append(self.furniture.texture(t))
                self.holes[t] = bool((self.layers[-1][..., 3] < 128).any())
        part = np.zeros(len(mesh.vertices), VERTEX)
        part['position'] = mesh.vertices @ turn.T + np.asarray(piece.position, np.float32)
        part['normal'][:, :3] = np.round(128 + 127 * mesh.normals @ turn.T)
        part['uv'][:, :2] = mesh.uv
        part['color'][:, :3] = np.clip(mesh.colors @ piece.color.T.astype(np.float32), 4, 255)
        part['layer_id'][:, 0] = np.array([self.where[int(t)] for t in used], np.float32)[inverse]
        part['layer_id'][:, 1] = instance
        if self.finishes is not None and piece.finish is not None:
            self.finishes.apply(part, mesh, piece)
        hole = np.array([self.holes[int(t)] for t in used])[inverse][mesh.faces[:, 0]]
        self.cut_out.append(mesh.faces[hole] + self.count)
        self._append(part, mesh.faces[~hole])

    def add_sheet(self, sheet: Sheet) -> None:
        rows, columns = sheet.points.shape[:2]
        part = np.zeros((rows, columns), VERTEX)
        part['position'] = sheet.points
        normal = np.cross(np.gradient(sheet.points, axis=1), np.gradient(sheet.points, axis=0))
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        part['normal'][..., :3] = np.round(128 + 127 * normal)
        part['uv'][..., 0] = np.linspace(0, sheet.tiling[0], columns)
        part['uv'][..., 1] = np.linspace(0, sheet.tiling[1], rows)[:, None]
        part['color'] = 255, 255, 255, 0
        part['layer_id'] = 1 + sheet.texture, sheet.instance
        at = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
        a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
        self._append(part.ravel(), np.stack([a, b, c, a, c, d], -1).reshape(-1, 3))

    def add_quad(self, q: Quad) -> None:
        part = np.zeros(4, VERTEX)
        part['position'] = q.corner + np.array([np.zeros(3), q.u, q.u + q.v, q.v])
        normal = np.cross(q.u, q.v)
        part['normal'][:, :3] = np.round(128 + 127 * normal / np.linalg.norm(normal))
        part['normal'][:, 3] = int(255 * q.gloss)
        part['uv'][:, :2] = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * q.tiling
        part['color'] = 255, 255, 255, int(255 * q.glow)
        part['layer_id'] = 1 + q.texture, q.instance
        self._append(part, np.array([(0, 1, 2), (0, 2, 3)], np.int32))

    def _append(self, part: np.ndarray, faces: np.ndarray) -> None:
        self.opaque.append(faces + self.count)
        self.parts.append(part)
        self.count += len(part)


def _opaque(texture: np.ndarray) -> np.ndarray:
    return np.dstack([texture, np.full(texture.shape[:2], 255, np.uint8)])
