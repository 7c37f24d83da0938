"""The pose graph of a map: where each of its scenes stands, and what was measured of that.

A scene's place is a similarity: map = scale * rotation * scene + translation. A link measures the place of
one scene in another; a link from MAP, which stands still, is a place that was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.geometry.similarity import Similarity

MAP = 0  # the map itself among the numbers of its scenes, which begin at 1


@dataclass(frozen=True, eq=False)
class GraphLink:
    """One measurement: scene `second` as scene `first` sees it.

    first_from_second (4, 4) float64: its camera, in the unit of `first`; ratio: units of `first` per unit of
    `second`. sigmas: standard deviations of the turn [rad] and of the position [unit of `first`], about and
    along each axis, and of the logarithm of the ratio. doubtful: it may be wrong as a whole, as a place known
    again is, and can be outvoted.
    """

    first: int
    second: int
    first_from_second: np.ndarray
    ratio: float
    sigmas: tuple[float, float, float]
    doubtful: bool = False


@dataclass(frozen=True, eq=False)
class PoseGraph:
    """K scenes of a map, all but those fused by an earlier release; it never changes.

    numbers (K,) int64, ascending, 1 for the first scene of the map; poses (K, 4, 4) float64:
    map_from_camera; scales (K,): map units per unit of the scene; stamps_ns (K,) int64.
    """

    numbers: np.ndarray
    poses: np.ndarray
    scales: np.ndarray
    stamps_ns: np.ndarray
    links: tuple[GraphLink, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def empty(cls) -> PoseGraph:
        """Of a map without scenes."""
        whole = np.zeros(0, np.int64)
        return cls(whole, np.zeros((0, 4, 4)), np.zeros(0), whole)

    def row(self, number: int) -> int | None:
        """Of the scene with this number; None: it is not in the graph."""
        row = int(np.searchsorted(self.numbers, number))
        return row if row < len(self) and self.numbers[row] == number else None

    def stamp_ns(self, number: int) -> int | None:
        """When the scene with this number was seen; None: unknown."""
        row = self.row(number)
        return None if row is None else int(self.stamps_ns[row])

    def with_scene(
        self, number: int, pose: np.ndarray, scale: float, stamp_ns: int, links: Sequence[GraphLink]
    ) -> PoseGraph:
        """With the newest scene, at `pose` (4, 4), and what was measured of it."""
        assert not len(self) or number > self.numbers[-1], (number, self.numbers[-1])
        return PoseGraph(
            np.append(self.numbers, number),
            np.concatenate((self.poses, pose[None])),
            np.append(self.scales, scale),
            np.append(self.stamps_ns, stamp_ns),
            (*self.links, *links),
        )

    def place(self, row: int) -> Similarity:
        """Of the scene in a row."""
        return Similarity(self.poses[row], float(self.scales[row]))

    def with_links(self, links: Sequence[GraphLink]) -> PoseGraph:
        """The same scenes, with these links alone."""
        return replace(self, links=tuple(links))
