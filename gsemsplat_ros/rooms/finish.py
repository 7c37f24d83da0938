"""Random materials for the parts of furniture: colours, gloss, patterns; lamps that shine, and
screens that show something."""

from __future__ import annotations

import re

import numpy as np

from gsemsplat_ros.rooms.layout import Piece
from gsemsplat_ros.rooms.mesh import Mesh

SOFT = re.compile(r'bed|sofa|couch|chair|seat|pouf|futon|stool|ottoman|towel|clothes|bag|mattress|toy|doll')
SCREEN = re.compile(r'screen|television|laptop|tablet|desktop computer|phone')
LAMP = re.compile(r'lamp|light|chandelier|fluorescent|candle')
PATTERNED = 0.6  # share of the untextured parts that get a pattern


class Finishes:
    """The layers of the patterns: `first` and the `count - 1` after it; the last quarter are pictures."""

    def __init__(self, first: int, count: int):
        self.first, self.pictures = first, count // 4
        self.patterns = count - self.pictures

    def apply(self, part: np.ndarray, mesh: Mesh, piece: Piece) -> None:
        """Change vertices (VERTEX) of a piece, the same way for all of a part: vertices of one colour and
        texture."""
        rng = np.random.default_rng(piece.finish)
        key = mesh.colors.astype(np.int64) @ [1, 256, 65536] + (mesh.textures.astype(np.int64) << 24)
        kinds, inverse = np.unique(key, return_inverse=True)
        bare = np.zeros(len(kinds), bool)
        bare[inverse] = mesh.textures < 0
        gain = np.exp(rng.normal(0, 0.2, (len(kinds), 1)) + rng.normal(0, 0.06, (len(kinds), 3)))
        part['color'][:, :3] = np.clip(part['color'][:, :3] * gain[inverse], 4, 255)
        gloss = rng.random(len(kinds)) ** 3 * (0.2 if SOFT.search(piece.name) else 1.0)
        part['normal'][:, 3] = (255 * gloss)[inverse]
        layer = self.first + rng.integers(0, self.patterns, len(kinds))
        scale = np.exp(rng.uniform(np.log(0.8), np.log(5.0), len(kinds)))  # repeats per metre
        patterned = bare & (rng.random(len(kinds)) < PATTERNED)
        chosen = patterned[inverse]
        shift = rng.uniform(0, 1, 3)
        part['uv'][chosen] = (mesh.vertices * scale[inverse, None] + shift)[chosen]
        part['layer_id'][chosen, 0] = -layer[inverse][chosen]
        if LAMP.search(piece.name) and rng.random() < 0.6:
            brightness = mesh.colors.astype(int).sum(1)
            mine = inverse == inverse[brightness.argmax()]
            part['color'][mine] = 255, 240, 215, int(rng.uniform(60, 255))
        if SCREEN.search(piece.name) and self.pictures and rng.random() < 0.6:
            self.show(part, mesh, inverse, rng)

    def show(self, part: np.ndarray, mesh: Mesh, inverse: np.ndarray, rng: np.random.Generator) -> None:
        """Let the darkest untextured part shine with a picture, as large as the part."""
        light = mesh.colors.astype(float).sum(1) + 1000 * (mesh.textures >= 0)
        if light.min() >= 1000:
            return
        mine = inverse == inverse[light.argmin()]
        low, high = mesh.vertices[mine].min(0), mesh.vertices[mine].max(0)
        place = (mesh.vertices[mine] - low) / np.maximum(high - low, 1e-3)
        part['uv'][mine] = place * [1, 1, -1] + [0, 0, 1]
        part['layer_id'][mine, 0] = -(self.first + self.patterns + rng.integers(self.pictures))
        part['color'][mine] = 255, 255, 255, int(rng.uniform(40, 160))
