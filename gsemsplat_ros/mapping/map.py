"""One map from many scenes: at most one Gaussian a voxel, merged by certainty, within a budget.

A map never changes: `merged` and `moved` make new ones, so a running query keeps reading its own. It lies in
tiles, and a new map shares those in which nothing is new with the one before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import TENSORS, Gaussians
from gsemsplat_ros.gaussians.rotations import multiply_quats, rotation_to_quat
from gsemsplat_ros.mapping.known_objects import KnownObjects
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe
from gsemsplat_ros.mapping.pose_graph import PoseGraph
from gsemsplat_ros.mapping.tile import MISSES_TO_GO, Arrays, Tile, merged
from gsemsplat_ros.mapping.voxels import runs, voxel_keys
from gsemsplat_ros.scene.scene import is_metric

MIN_OPACITY = 0.05  # fainter Gaussians are haze and are left out
MIN_DISTANCE = 0.3  # m: certainty does not grow below this distance
SPARE = 1 / 16  # of the budget: choosing what goes copies the map, so it must be rare
UP_OF_MAP = (0.0, 0.0, 1.0)  # REP 103


class Found(NamedTuple):
    """What a map has in K voxels: whether there is a Gaussian (K,) bool, and its last_seen, counts and owners
    (K,) int32, 0 where there is none."""

    there: np.ndarray
    last_seen: np.ndarray
    counts: np.ndarray
    owners: np.ndarray


@dataclass(frozen=True, eq=False)
class Map:
    """Gaussians in `frame`, [m] where the map is `metric`, at most one a voxel.

    voxel: edge [m]. tiles: by their keys (voxels.py), ascending; none is empty. scenes: number fused.
    scale_source: of the first scene ('' for an empty map). keyframes: by which it is known again; graph: of
    the places of its scenes; objects: that queries found in it. `merged` and `moved` leave these as they are.
    """

    frame: str
    voxel: float
    tiles: Mapping[int, Tile] = field(default_factory=dict, repr=False)
    scenes: int = 0
    scale_source: str = ''
    keyframes: tuple[MapKeyframe, ...] = ()
    graph: PoseGraph = field(default_factory=PoseGraph.empty)
    objects: KnownObjects = field(default_factory=KnownObjects)

    def __post_init__(self) -> None:
        assert self.voxel > 0, self.voxel
        assert all(len(tile) and tile.gaussians.frame == self.frame for tile in self.tiles.values())

    @classmethod
    def empty(cls, frame: str, voxel: float) -> Map:
        """A map without Gaussians; `voxel`: edge [m]. The first scene brings the width of the codes."""
        return cls(frame, voxel)

    @cached_property
    def count(self) -> int:
        """Number of Gaussians."""
        return sum(map(len, self.tiles.values()))

    def __len__(self) -> int:
        return self.count

    @property
    def metric(self) -> bool:
        """Whether lengths are metres, by the first scene; otherwise they are in the network's own unit."""
        return is_metric(self.scale_source)

    @cached_property
    def whole(self) -> Tile:
        """All tiles in one, a copy of the map: nothing that runs for every keyframe may ask for it."""
        tiles = [*self.tiles.values()]
        return tiles[0] if len(tiles) == 1 else Tile.joined(tiles or [Tile.empty(self.frame)])

    @property
    def gaussians(self) -> Gaussians:
        """Those of the `whole`."""
        return self.whole.gaussians

    @property
    def keys(self) -> Tensor:
        """Those of the `whole`."""
        return self.whole.keys

    def with_objects(self, objects: KnownObjects) -> Map:
        """The map with other objects; what was computed of its Gaussians is kept."""
        new = copy.copy(self)
        object.__setattr__(new, 'objects', objects)
        return new

    def lookup(self, keys: np.ndarray) -> Found:
        """What the map has in the voxels of these keys (K,) int64, in any order."""
        there = np.zeros(len(keys), bool)
        last_seen, counts, owners = (np.zeros(len(keys), np.int32) for _ in range(3))
        order = np.argsort(keys)
        for key, rows in runs(keys[order]):
            tile, asked = self.tiles.get(key), order[rows]
            if tile is None:
                continue
            found = np.searchsorted(tile.arrays.keys, keys[asked]).clip(max=len(tile) - 1)
            same = tile.arrays.keys[found] == keys[asked]
            there[asked] = same
            last_seen[asked] = np.where(same, tile.arrays.last_seen[found], 0)
            counts[asked] = np.where(same, tile.arrays.counts[found], 0)
            owners[asked] = np.where(same, tile.arrays.owners[found], 0)
        return Found(there, last_seen, counts, owners)

    def merged(
        self,
        gaussians: Gaussians,
        camera_position: np.ndarray,
        budget: int,
        scale_source: str = '',
        misses: Mapping[int, np.ndarray] | None = None,
    ) -> Map:
        """The map with one more scene in it.

        gaussians: in the map's frame and unit; camera_position (3,): from which they were seen; budget:
        Gaussians to keep at most, those with the highest certainty over the number of scenes since they were
        last seen (if there are more, SPARE of it is made free too, for the next scenes); misses: those of
        this map's Gaussians after the scene, (N,) uint8 of each tile in which they are others now. The
        scene's Gaussians that are haze, not finite or beyond the grid are left out. The map's with
        MISSES_TO_GO go; what the scene has in their voxels begins anew.
        """
        assert gaussians.frame == self.frame, (gaussians.frame, self.frame)
        number = self.scenes + 1
        new, good = seen_first(gaussians, camera_position, self.voxel, number)
        tiles = dict(self.tiles)
        for key, of_tile in (misses or {}).items():
            tiles[key] = replace(tiles[key], misses=torch.from_numpy(of_tile))
        rows = by_tile(new.keys, good)
        tiles = self._with(tiles, rows.keys(), lambda key: (new, rows[key]))
        if sum(map(len, tiles.values())) > budget:
            tiles = likeliest(tiles, budget - int(SPARE * budget), number)
        return replace(self, tiles=tiles, scenes=number, scale_source=self.scale_source or scale_source)

    def moved(self, map_new_from_map_old: np.ndarray, ratios: np.ndarray) -> Map:
        """The map with each Gaussian where its owner is now: x -> R (ratio x) + t.

        map_new_from_map_old (S + 1, 4, 4) rigid and ratios (S + 1,): by the number of the owner, of all S
        scenes; those of 0 are the identity and 1. Those that meet in a voxel are merged: the counts of ones
        that moved are the largest, since they are mostly of the same scenes, plus those of one that stayed.
        Tiles that nothing leaves and nothing enters stay the same objects.
        """
        poses, ratios = np.asarray(map_new_from_map_old, np.float64), np.asarray(ratios, np.float64)
        assert poses.shape == (self.scenes + 1, 4, 4) and ratios.shape == (self.scenes + 1,), poses.shape
        stay = (poses == np.eye(4)).all((1, 2)) & (ratios == 1)
        assert stay[0], (poses[0], ratios[0])
        if stay.all():
            return self  # as at most keyframes, without a look at the owners
        tiles, on_the_way = {}, []
        for key, tile in self.tiles.items():
            leaves = torch.from_numpy(~stay[tile.arrays.owners])
            if leaves.any():
                leaving = tile if leaves.all() else tile.select(leaves)
                on_the_way.append(placed_anew(leaving, poses, ratios))
                tile = tile.select(~leaves)
            tiles[key] = tile
        return replace(self, tiles=self._with_moved(tiles, on_the_way)) if on_the_way else self

    def joined(self, new: Tile) -> Map:
        """The map with Gaussians that have a history, in its frame and unit, wherever their keys say they
        are. Those that meet in a voxel are merged, and counts are added to the map's."""
        return replace(self, tiles=self._with_moved(self.tiles, [new]))

    def _with_moved(self, tiles: Mapping[int, Tile], moved: Sequence[Tile]) -> dict[int, Tile]:
        """`tiles`, which may be empty ones, with Gaussians merged into them whose keys may be old."""
        arrivals: dict[int, list[tuple[Tile, Tensor]]] = {}
        for tile in moved:
            keys, inside = voxel_keys(tile.arrays.means, self.voxel)
            placed = replace(tile, keys=torch.from_numpy(keys))
            for key, rows in by_tile(keys, np.flatnonzero(inside)).items():
                arrivals.setdefault(key, []).append((placed, torch.from_numpy(rows)))

        def arriving(key: int) -> tuple[Arrays, np.ndarray]:
            new = Tile.joined([tile.select(rows) for tile, rows in arrivals[key]]).arrays
            return new, np.argsort(new.keys, kind='stable')

        return self._with(tiles, arrivals.keys(), arriving)

    def _with(
        self,
        tiles: Mapping[int, Tile],
        entered: Collection[int],
        arriving: Callable[[int], tuple[Arrays, np.ndarray]],
    ) -> dict[int, Tile]:
        """`tiles`, which may be empty ones, without what has MISSES_TO_GO. arriving: what is merged into the
        tile of each key that is `entered`, as `merged` takes it."""
        nothing, none = Tile.empty(self.frame), np.zeros(0, np.int64)
        left = [key for key, tile in tiles.items() if tile.arrays.misses.max(initial=0) >= MISSES_TO_GO]
        changed = {*entered, *left}

        def after(key: int) -> Tile:
            tile = tiles.get(key, nothing)
            return merged(tile, *(arriving(key) if key in entered else (tile.arrays, none)))

        with ThreadPoolExecutor(2) as pool:  # merging leaves Python's lock
            joined = {**tiles, **dict(zip(changed, pool.map(after, changed)))}
        return {key: joined[key] for key in sorted(joined) if len(joined[key])}


def by_tile(keys: np.ndarray, rows: np.ndarray) -> dict[int, np.ndarray]:
    """The rows (K,) of keys (N,) in each tile, by voxel and then as they come."""
    order = rows[np.argsort(keys[rows], kind='stable')]
    return {key: order[part] for key, part in runs(keys[order])}


def seen_first(
    gaussians: Gaussians, camera_position: np.ndarray, voxel: float, number: int
) -> tuple[Arrays, np.ndarray]:
    """A scene's Gaussians as they come into a map as scene `number`, and the rows that do: those that are no
    haze, finite and in the grid."""
    count = len(gaussians)
    new = Arrays.of(
        gaussians,
        keys=np.zeros(count, np.int64),
        weights=np.zeros(count, np.float32),
        counts=np.ones(count, np.int32),
        last_seen=np.full(count, number, np.int32),
        misses=np.zeros(count, np.uint8),
        owners=np.full(count, number, np.int32),
    )
    keys, inside = voxel_keys(new.means, voxel)
    weights = certainties(new.means, new.opacities, camera_position)
    good = inside & (new.opacities >= MIN_OPACITY)
    with np.errstate(invalid='ignore'):
        for name in TENSORS:
            columns = np.atleast_2d(getattr(new, name).T)
            good &= np.zeros(len(columns), np.float32) @ columns == 0  # false where one is not finite
    return new._replace(keys=keys, weights=weights), np.flatnonzero(good)


def likeliest(tiles: Mapping[int, Tile], most: int, number: int) -> dict[int, Tile]:
    """The `most` Gaussians of more with the highest certainty over the number of scenes, of `number`, since
    they were last seen."""
    value = np.concatenate(
        [tile.arrays.weights / (1 + number - tile.arrays.last_seen) for tile in tiles.values()]
    )
    stay = np.zeros(len(value), bool)
    stay[np.argpartition(-value, most)[:most]] = True
    kept, start = {}, 0
    for key, tile in tiles.items():
        mine = stay[start : start + len(tile)]
        start += len(tile)
        if mine.any():
            kept[key] = tile if mine.all() else tile.select(torch.from_numpy(mine))
    return kept


def placed_anew(tile: Tile, poses: np.ndarray, ratios: np.ndarray) -> Tile:
    """The tile's Gaussians after the similarities (S + 1, 4, 4), (S + 1,) of their owners. Their keys are
    still the old ones."""
    before, owners = tile.gaussians, tile.arrays.owners
    ratio = torch.from_numpy(ratios[owners])
    present, row = np.unique(owners, return_inverse=True)
    turns = np.stack([rotation_to_quat(poses[owner, :3, :3]) for owner in present])
    pose = torch.from_numpy(poses[owners])
    means = (pose[:, :3, :3] @ (ratio[:, None] * before.means.double())[..., None])[..., 0] + pose[:, :3, 3]
    gaussians = replace(
        before,
        means=means.float(),
        quats=multiply_quats(torch.from_numpy(turns[row]), before.quats.double()).float(),
        scales=(ratio[:, None] * before.scales.double()).float(),
    )
    return replace(tile, gaussians=gaussians, weights=(tile.weights / ratio**2).float())


def cut(whole: Tile) -> dict[int, Tile]:
    """Gaussians that are ordered by voxel as the tiles of a map, which share their memory."""
    return {key: whole.select(rows) for key, rows in runs(whole.arrays.keys)}


def certainties(means: np.ndarray, opacities: np.ndarray, camera_position: np.ndarray) -> np.ndarray:
    """Weights (N,) [1/m^2] of Gaussians seen from `camera_position` (3,): opacity / distance^2."""
    away = means - np.asarray(camera_position, np.float32)
    return opacities / np.maximum(np.einsum('ij,ij->i', away, away), np.float32(MIN_DISTANCE**2))
