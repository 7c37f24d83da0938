"""The splats of each mode, made once for all pages that show the same."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gsemsplat_ros.gaussians.ply import write_ply
from gsemsplat_ros.live import colors as colours
from gsemsplat_ros.live.shown import World
from gsemsplat_ros.live.source import Found

MODES = 'Colour', 'Relevancy', 'Semantics', 'Depth'
KEPT = 12  # arrays: up to 16 MB each for half a million Gaussians


class Pictures:
    """Splats (view_colours.packed) of a world, by mode, answer and level. Any thread may ask."""

    def __init__(self):
        self._lock = threading.RLock()
        self._made: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def _once(self, key: tuple, make: Callable[[], object]):
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]

    def plain(self, world: World) -> np.ndarray:
        """The light level in its own colours: what all pages share."""
        return self._painted(world, 'Colour', None, False, lambda: colours.own_colors(world))

    def of(
        self,
        world: World,
        mode: str,
        answer: Found | None,
        meanings: Callable[[World], np.ndarray | None],
        full: bool,
    ) -> np.ndarray | None:
        """As `mode` shows them, in full or light; None: as all pages share them. Raises ValueError for a mode
        that this world does not have."""
        mode, answer = self._shown(mode, answer)
        if (mode, answer) == ('Colour', None) and (not full or len(world.light[0]) == len(world.shown)):
            return None
        return self._painted(world, mode, answer, full, lambda: self._colors(world, mode, answer, meanings))

    @staticmethod
    def _shown(mode: str, answer: Found | None) -> tuple[str, Found | None]:
        """The mode that is really shown, and the answer where it takes part."""
        if mode not in MODES:
            raise ValueError(f'no such mode: wanted one of {", ".join(MODES)}')
        if (mode == 'Relevancy' and answer is None) or (
            mode == 'Colour' and (answer is None or not answer.lit.any())
        ):
            return 'Colour', None
        return mode, answer if mode in ('Colour', 'Relevancy') else None

    def _painted(self, world: World, mode: str, answer: Found | None, full: bool, make) -> np.ndarray:
        rows, grown = (slice(None), 1.0) if full else world.light

        def paint() -> np.ndarray:
            splats = self._once((world, 'splats', full), lambda: colours.packed(world, rows, grown))
            return colours.painted(splats, self._once((world, mode, answer), make)[rows])

        return self._once((world, mode, answer, full), paint)

    def _colors(self, world: World, mode: str, answer: Found | None, meanings) -> np.ndarray:
        own = colours.own_colors(world)
        if mode == 'Colour':
            return own if answer is None else colours.highlighted(own, answer.lit)
        if mode == 'Relevancy':
            relevancy = answer.relevancy
            if relevancy is None:  # only boxes are known
                relevancy = np.where(answer.lit, np.float32(answer.score), np.float32(0))
            return colours.relevancy_colors(own, relevancy, answer.found)
        if mode == 'Depth':
            return colours.depth_colors(world)[0]
        codes = world.gaussians.codes.numpy()
        if not codes.shape[1]:
            raise ValueError('these Gaussians carry no codes, so their meaning has no colours')
        meant = meanings(world)
        return (
            colours.semantic_colors(codes[world.shown], world.gaussians.opacities.numpy()[world.shown])
            if meant is None
            else meant
        )

    def colors(
        self, world: World, mode: str, answer: Found | None, meanings: Callable[[World], np.ndarray | None]
    ) -> np.ndarray:
        """(M, 3) in [0, 1] of what is shown, as `mode` shows it."""
        mode, answer = self._shown(mode, answer)
        return self._once((world, mode, answer), lambda: self._colors(world, mode, answer, meanings))

    def ends(self, world: World | None, mode: str) -> tuple[float, float] | None:
        """Near and far of the depth's colours; None: not that mode."""
        if world is None or mode != 'Depth':
            return None
        return self._once((world, 'ends'), lambda: colours.depth_colors(world)[1:])

    def ply(self, world: World) -> bytes:
        """All the world's Gaussians, without codes, as the bytes of a PLY file."""
        gaussians = replace(world.gaussians, codes=world.gaussians.codes[:, :0])
        with tempfile.TemporaryDirectory(prefix='gsemsplat') as folder:
            path = Path(folder) / 'scene.ply'
            write_ply(path, gaussians)
            return path.read_bytes()
