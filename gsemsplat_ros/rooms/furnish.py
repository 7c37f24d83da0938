"""A random furnished room, as plain numbers: models and their poses, surfaces, lights.

World frame: x and y along the walls, z up, origin in one corner of the floor, metres.
"""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.rooms import materials
from gsemsplat_ros.rooms.builder import THEMES, Builder
from gsemsplat_ros.rooms.furniture import Furniture
from gsemsplat_ros.rooms.illumination import illumination
from gsemsplat_ros.rooms.layout import Room, kind_of
from gsemsplat_ros.rooms.props import Props, framed


def sample_room(furniture: Furniture, rng: np.random.Generator, heldout: bool = False) -> Room:
    """Sample a room of 3-7 m x 3-7 m x 2.4-3 m with 6 and more larger pieces, clutter and lights.

    heldout: use the held-out models instead of those for training, and plain shading, so that scores stay
    comparable over versions.
    """
    size = np.array([rng.uniform(3, 7), rng.uniform(3, 7), rng.uniform(2.4, 3.0)])
    theme = str(rng.choice([*THEMES, 'mixed']))
    kinds = models_by_kind(furniture, heldout)
    builder = Builder(rng, theme, size, furniture=furniture, kinds=kinds, photographic=not heldout)
    first = furnish(builder)
    lights = [builder.light() for _ in range(rng.integers(2, 5))]
    photographic = None
    if builder.photographic:
        lights, photographic = illumination(rng, size, builder.quads, builder.names)
    return Room(
        size=size,
        names=builder.names,
        first_piece=first,
        pieces=builder.pieces,
        quads=builder.quads,
        lights=lights,
        ambient=float(rng.uniform(0.25, 0.5)),
        textures=builder.textures,
        footprints=np.array(builder.boxes).reshape(-1, 5),
        sheets=builder.sheets,
        photographic=photographic,
    )


def models_by_kind(furniture: Furniture, heldout: bool) -> dict[str, list[int]]:
    """Indices of the models of one split by kind (`kind_of`)."""
    kinds: dict[str, list[int]] = {}
    for i, m in enumerate(furniture.models):
        if m.heldout == heldout:
            kinds.setdefault(kind_of(m), []).append(i)
    return kinds


def furnish(builder: Builder) -> int:
    """Fill an empty room: shell, furniture, pictures; returns the instance id of the first piece."""
    rng, rich = builder.rng, builder.photographic
    builder.shell()
    if rng.random() < 0.4:
        builder.lay_rug()
    first = len(builder.names)  # from here on each name belongs to a piece, until the pictures
    for _ in range(rng.integers(0, 3)):
        builder.table_group(int(rng.integers(1, 5)))
    builder.place_larger_pieces()
    builder.place_clutter()
    for _ in range(rng.integers(0, 8 if rich else 4)):
        builder.hang()
    if rng.random() < 0.5:
        builder.hang_from_ceiling()
    assert len(builder.names) - first == len(builder.pieces)
    picture = framed if rich else materials.picture
    for _ in range(rng.integers(0, 7 if rich else 4)):
        builder.opening('picture', (0.25, 0.9), (0.25, 0.8), rng.uniform(1.1, 1.5), picture)
    if rich:
        Props(builder, builder.furniture, builder.pieces, first).add()
    return first
