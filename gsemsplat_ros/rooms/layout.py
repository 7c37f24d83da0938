"""The description of a furnished room, where each kind of model belongs, and collisions of footprints.

World frame: x and y along the walls, z up, origin in one corner of the floor, metres.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from gsemsplat_ros.rooms.furniture import Model

SEAT = re.compile(r'chair|stool|pouf|school chair|armchair|ottoman|piano bench')
TABLE = re.compile(r'table$|table with|table on|desk$|workbench')
RUG = re.compile(r'rug|carpet|bathmat|doormat|air mattress|sleeping bag')
CEILING = re.compile(r'ceiling|chandelier|pendant|hanging light|fluorescent|projector')
HUNG = re.compile(
    r'picture|white board|upper|wall|range hood|air conditioner|clock|towel rack|radiator|water heater|'
    r'dart|intercom|cctv|surveillance|dispenser|calendar|flat television|urinal|boiler|spotlight|hanger'
)
MIRROR_GLOW = 0.4  # of mirrors, whose texture is a view that has its light already


@dataclass(frozen=True)
class Piece:
    """One placed model. position (3,) m: middle of its bottom; yaw rad about z; color (3,3): RGB matrix of
    tint and hue rotation; finish: number that determines the materials of its parts, None: as modelled."""

    model: int
    name: str
    position: tuple[float, float, float]
    yaw: float
    color: np.ndarray
    finish: int | None = None


@dataclass(frozen=True)
class Quad:
    """A textured parallelogram: corner + a * u + b * v with a, b in [0, 1] [m].

    instance: id; texture: index into `Room.textures`; tiling: repeats of the texture along u and v; glow:
    from 0, lit by the lamps, to 1, self-luminous; gloss: from 0, dull, to 1, polished.
    """

    instance: int
    corner: np.ndarray
    u: np.ndarray
    v: np.ndarray
    texture: int
    tiling: tuple[float, float] = (1.0, 1.0)
    glow: float = 0.0
    gloss: float = 0.0


@dataclass(frozen=True)
class Sheet:
    """A curved textured surface: points (n, m, 3) m, the texture's u along m and v along n; the rest as of a
    Quad."""

    instance: int
    points: np.ndarray
    texture: int
    tiling: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Light:
    """A light: position (3,) m, color (3,) RGB power; normal (3,): of a window, zero: shines everywhere;
    radius m: half of its size."""

    position: np.ndarray
    color: np.ndarray
    normal: np.ndarray = field(default_factory=lambda: np.zeros(3))
    radius: float = 0.0


@dataclass(frozen=True)
class Photographic:
    """What a room needs to look like a photograph. sky, ground (3,) RGB: light of the surroundings from above
    and below, linear; exposure: factor of linear values; details: (256,256,3) uint8 each, patterns for parts
    without a texture."""

    sky: np.ndarray
    ground: np.ndarray
    exposure: float
    details: list[np.ndarray]


@dataclass(frozen=True)
class Room:
    """A furnished room.

    size (3,) m; names: by instance id (0: void); pieces: piece k has the instance id `first_piece + k`;
    textures: (256,256,3) uint8 each; footprints (n,5): x, y, half width, half depth [m], yaw [rad] of the
    pieces on the floor; photographic: None for plain shading.
    """

    size: np.ndarray
    names: list[str]
    first_piece: int
    pieces: list[Piece]
    quads: list[Quad]
    lights: list[Light]
    ambient: float
    textures: list[np.ndarray]
    footprints: np.ndarray
    sheets: list[Sheet] = field(default_factory=list)
    photographic: Photographic | None = None


def kind_of(model: Model) -> str:
    """Where a model is placed: rug, ceiling, hung, small, seat, table or big."""
    wide, high = max(model.size[:2]), model.size[2]
    if RUG.search(model.name) and high < 0.3:
        return 'rug' if wide > 0.4 else 'small'
    if CEILING.search(model.name):
        return 'ceiling'
    if HUNG.search(model.name):
        return 'hung'
    if SEAT.search(model.name):
        return 'seat' if wide < 1.3 else 'big'
    if TABLE.search(model.name) and wide > 0.4:
        return 'table'
    return 'small' if wide < 0.75 and high < 0.8 and wide * high < 0.4 else 'big'


def corners(box: np.ndarray) -> np.ndarray:
    """Corners (4,2) m, counter-clockwise, of a footprint (x, y, half width, half depth, yaw)."""
    x, y, w, d, yaw = box
    c, s = np.cos(yaw), np.sin(yaw)
    local = np.array([[-w, -d], [w, -d], [w, d], [-w, d]])
    return local @ np.array([[c, s], [-s, c]]) + [x, y]


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two footprints (x, y, half width, half depth, yaw) intersect, by separating axes."""
    if np.hypot(*(a[:2] - b[:2])) > np.hypot(*a[2:4]) + np.hypot(*b[2:4]):
        return False
    p, q = corners(a), corners(b)
    for yaw in (a[4], a[4] + np.pi / 2, b[4], b[4] + np.pi / 2):
        axis = np.array([np.cos(yaw), np.sin(yaw)])
        m, n = p @ axis, q @ axis
        if m.max() <= n.min() or n.max() <= m.min():
            return False
    return True
