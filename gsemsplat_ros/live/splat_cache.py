"""The splats of each mode, made once for all visitors."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gsemsplat_ros.formats.ply import write_ply
from gsemsplat_ros.live import colors
from gsemsplat_ros.live.page_answer import PageAnswer
from gsemsplat_ros.live.shared_state import SemanticColors
from gsemsplat_ros.live.shown_scene import ShownScene

MODES = 'Colour', 'Relevancy', 'Semantics', 'Depth'
KEPT = 12  # arrays: up to 16 MB each for half a million Gaussians
T = TypeVar('T')


class SplatCache:
    """Splats (colors.packed) of a scene by mode, answer and level of detail. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._made: OrderedDict[tuple, Any] = OrderedDict()

    def _once(self, key: tuple, make: Callable[[], T]) -> T:
        """The kept value of this key, made by `make` the first time."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]

    def plain(self, shown: ShownScene) -> np.ndarray:
        """The light level in its own colours, shared by all pages."""
        return self._painted(shown, 'Colour', None, False, lambda: colors.own_colors(shown))

    def of(
        self,
        shown: ShownScene,
        mode: str,
        answer: PageAnswer | None,
        semantic_colors: SemanticColors,
        full: bool,
    ) -> np.ndarray | None:
        """Splats in the colours of `mode`, full or light; None if they equal the shared ones.

        Raises ValueError for a mode that does not exist or that this scene lacks.
        """
        mode, answer = self._shown(mode, answer)
        if (mode, answer) == ('Colour', None) and (not full or shown.light is None):
            return None
        return self._painted(
            shown, mode, answer, full, lambda: self._colors(shown, mode, answer, semantic_colors)
        )

    @staticmethod
    def _shown(mode: str, answer: PageAnswer | None) -> tuple[str, PageAnswer | None]:
        """The mode that can be shown, and the answer if the mode uses it."""
        if mode not in MODES:
            raise ValueError(f'no such mode: wanted one of {", ".join(MODES)}')
        if (mode == 'Relevancy' and answer is None) or (
            mode == 'Colour' and (answer is None or not answer.lit.any())
        ):
            return 'Colour', None
        return mode, answer if mode in ('Colour', 'Relevancy') else None

    def _painted(
        self,
        shown: ShownScene,
        mode: str,
        answer: PageAnswer | None,
        full: bool,
        make_colors: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """The splats in the colours (M, 3) returned by `make_colors`."""
        light = None if full else shown.light

        def paint() -> np.ndarray:
            splats = self._once(
                (shown, 'splats', full), lambda: colors.packed(light.gaussians if light else shown.drawn)
            )
            painted = self._once((shown, mode, answer), make_colors)
            return colors.painted(splats, light.mean(painted) if light else painted)

        return self._once((shown, mode, answer, full), paint)

    def _colors(
        self, shown: ShownScene, mode: str, answer: PageAnswer | None, semantic_colors: SemanticColors
    ) -> np.ndarray:
        own = colors.own_colors(shown)
        if mode == 'Colour':
            return own if answer is None else colors.highlighted(own, answer.lit)
        if mode == 'Relevancy' and answer is not None:
            relevancy = answer.relevancy
            if relevancy is None:  # only boxes are known
                relevancy = np.where(answer.lit, np.float32(answer.answer.score), np.float32(0))
            return colors.relevancy_colors(own, relevancy, answer.answer.found)
        if mode == 'Depth':
            return colors.depth_colors(shown)[0]
        codes = shown.gaussians.codes.numpy()
        if not codes.shape[1]:
            raise ValueError('these Gaussians carry no codes, so their meaning has no colours')
        decoded = semantic_colors(shown)
        if decoded is not None:
            return decoded
        return colors.code_colors(codes[shown.rows], shown.gaussians.opacities.numpy()[shown.rows])

    def colors(
        self, shown: ShownScene, mode: str, answer: PageAnswer | None, semantic_colors: SemanticColors
    ) -> np.ndarray:
        """Colours (M, 3) in [0, 1] of the drawn Gaussians in `mode`."""
        mode, answer = self._shown(mode, answer)
        return self._once((shown, mode, answer), lambda: self._colors(shown, mode, answer, semantic_colors))

    def ends(self, shown: ShownScene | None, mode: str) -> tuple[float, float] | None:
        """Nearest and farthest distance of the depth colours; None in other modes."""
        if shown is None or mode != 'Depth':
            return None
        return self._once((shown, 'ends'), lambda: colors.depth_colors(shown)[1:])

    def ply(self, shown: ShownScene) -> bytes:
        """All Gaussians of the scene, without codes, as the bytes of a PLY file."""
        gaussians = replace(shown.gaussians, codes=shown.gaussians.codes[:, :0])
        with tempfile.TemporaryDirectory(prefix='gsemsplat') as folder:
            path = Path(folder) / 'scene.ply'
            write_ply(path, gaussians)
            return path.read_bytes()
