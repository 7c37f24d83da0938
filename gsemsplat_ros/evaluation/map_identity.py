"""Whether things keep their ids in a map: they are asked for by their names at several moments of a walk.

Counted as in tracking (CLEAR MOT, Bernardin and Stiefelhagen 2008): a thing keeps its id while any box of it
has that, else it changes to that of the best box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gsemsplat_ros.evaluation.boxes import MIN_IOU, box_iou, boxes_of
from gsemsplat_ros.evaluation.map_scores import Record, world_from_map
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map_index import MapIndex
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.rooms.house import House

MOMENTS = 2  # of each round, at even distances; the last is its end
MIN_SEEN = 20  # of the sampled points: a thing of which less was seen is not looked for


@dataclass(frozen=True)
class Sighting:
    """What one keyframe truly sees: points (N, 3) m in the world and their instances (N,); round: 1 or 2."""

    round: int
    points: np.ndarray
    instances: np.ndarray


def standing(seen: Sequence[Sighting], gone: frozenset[int]) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and instances (N,) of what was seen and stands where it did: in the second round the
    `gone` things of the first do not."""
    now = seen[-1].round
    parts = [
        (part.points[stays], part.instances[stays])
        for part in seen
        for stays in [~np.isin(part.instances, list(gone)) | (part.round == now)]
    ]
    points, instances = (np.concatenate(column) for column in zip(*parts))
    return points, instances


@dataclass
class Identity:
    """The id that each thing had last in one map; switches: how often one changed. A thing that was moved is
    another one at its new place."""

    ids: dict[tuple[int, int], int] = field(default_factory=dict)
    switches: int = 0
    index: MapIndex | None = None

    def look(
        self, pipeline: Pipeline, mapper: Mapper, record: Record, house: House, seen: Sequence[Sighting]
    ) -> None:
        """Ask the map for all that was seen, by name, and note which ids the true things have."""
        move = world_from_map(record)
        if move is None:
            return
        scale, rotation, translation = move
        points, instances = standing(seen, house.taken | house.moved)
        points = (points - translation) @ rotation / scale
        counts = np.bincount(instances, minlength=max(house.pieces) + 1)
        things = [i for i in house.pieces if counts[i] >= MIN_SEEN]
        parts = [points[instances == i] for i in things]
        true = np.array([(part.min(0), part.max(0)) for part in parts]).reshape(-1, 2, 3)
        map_ = mapper.map
        self.index = pipeline.index(map_, self.index)
        found: dict[
            tuple[int, int], dict[int, float]
        ] = {}  # of each thing the ids of its boxes, with the IoU
        for text in sorted({house.pieces[i] for i in things}):
            answer = mapper.note(map_, pipeline.query(self.index, text))
            for thing, overlaps in zip(answer.objects, box_iou(boxes_of(answer.objects), true)):
                best = int(overlaps.argmax())
                if overlaps[best] >= MIN_IOU:
                    place = things[best], seen[-1].round if things[best] in house.moved else 1
                    found.setdefault(place, {})[thing.id] = float(overlaps[best])
        for place, numbers in found.items():
            if self.ids.get(place) not in numbers:
                self.switches += place in self.ids
                self.ids[place] = max(numbers, key=lambda number: numbers[number])

    @property
    def score(self) -> float | None:
        """The switches; None where no thing was found."""
        return float(self.switches) if self.ids else None
