"""Which known object each box of an answer is, and what became of the known ones after a scene.

An object is a box of an answer, and the voxels of the phrase's Gaussians in it. Two boxes are one object
where they are alike, whatever the texts: an office chair is the chair, but the cushion on it is not. Of the
same text it is enough that they share half of the voxels of the smaller: a chair that was seen from the front
only is later a whole one. Each box takes one known object at most, and each object one box; those that are
most alike come first. What has gone is never found again: what stands there later has a new id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gsemsplat_ros.mapping.forgetting import MISSED, SEEN, FreeSpace, compare
from gsemsplat_ros.mapping.known_objects import SAMPLE, KnownObject, KnownObjects
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.voxels import keys_of, voxel_cells, voxel_keys
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.object_history import History, State

MIN_OVERLAP = 0.4  # of two boxes that are alike: intersection over union
MIN_SHARED = 0.5  # of the voxels of the smaller of two boxes of one object that one text found
SHOWN = 0.2  # of its voxels: a keyframe that compares so much of an object tells something of it
LEFT = 0.3  # of its voxels: what has less in the map has gone
# quantiles over voxels: of the scenes that show an object, each sees a part
OFTEN, EARLY, LATE = 0.9, 0.1, 0.8
# a cell, and those that share a face, an edge or a corner with it, nearest first
AROUND = np.array(sorted(np.ndindex(3, 3, 3), key=lambda cell: sum(abs(i - 1) for i in cell))) - 1


def observed(known: KnownObjects, map_: Map, answer: Answer) -> tuple[KnownObjects, Answer]:
    """What is known after an `answer` of `map_`, and the answer with the history of each of its objects and
    with what has gone."""
    answer = replace(answer, gone=known.gone_of(answer.text))
    voxels = voxels_of(map_, answer)
    objects, found, next_id = list(answer.objects), [], known.next_id
    for row, (keys, before) in enumerate(zip(voxels, matches(known, answer, voxels))):
        thing = objects[row]
        if not len(keys):
            continue
        if before is None:
            history = first_history(next_id, map_, keys, answer.text, thing.score)
            next_id += 1
        else:
            history = before.history.found_by(answer.text, thing.score)
        sample = keys[np.linspace(0, len(keys) - 1, min(SAMPLE, len(keys))).astype(int)]
        owner = int(np.bincount(map_.lookup(sample).owners).argmax())
        objects[row] = replace(thing, history=history)
        found.append(KnownObject(objects[row], sample, len(keys), owner))
    return known.changed(found), replace(answer, objects=tuple(objects))


def recognised(map_: Map, answer: Answer) -> Answer:
    """An `answer` of `map_` with the history of those of its objects that the map knows, and with what has
    gone; nothing is noted."""
    matched = matches(map_.objects, answer, voxels_of(map_, answer))
    objects = tuple(
        replace(thing, history=before.history) if before else thing
        for thing, before in zip(answer.objects, matched)
    )
    return replace(answer, objects=objects or answer.objects, gone=map_.objects.gone_of(answer.text))


def matches(known: KnownObjects, answer: Answer, voxels: Sequence[np.ndarray]) -> list[KnownObject | None]:
    """The known object that each object of the answer is, None for a new one; voxels: the keys of each."""
    pairs = []
    for row, (thing, keys) in enumerate(zip(answer.objects, voxels)):
        for before in known.objects:
            if before.gone or not len(keys):
                continue
            overlap = thing.overlap(before.thing)
            if not overlap:
                continue
            of_known = float(np.isin(before.keys, keys, assume_unique=True).mean())
            of_new = min(of_known * before.voxels / len(keys), 1.0)
            same_text = answer.text in dict(before.history.texts)
            if overlap >= MIN_OVERLAP or (same_text and max(of_known, of_new) >= MIN_SHARED):
                pairs.append((overlap + min(of_known, of_new), row, before))
    taken: set[int] = set()
    matched: list[KnownObject | None] = [None] * len(voxels)
    for _, row, before in sorted(pairs, key=lambda pair: -pair[0]):
        if matched[row] is None and before.history.id not in taken:
            matched[row] = before
            taken.add(before.history.id)
    return matched


def first_history(number: int, map_: Map, keys: np.ndarray, text: str, score: float) -> History:
    """The history of object `number`, which `text` found first, from what the map has in its voxels (K,)."""
    found = map_.lookup(keys)
    first, last = (
        map_.graph.stamp_ns(int(np.quantile(column, share, method='nearest')))
        for column, share in ((found.owners, EARLY), (found.last_seen, LATE))
    )
    times = int(np.quantile(found.counts, OFTEN, method='nearest'))
    return History(number, State.THERE, ((text, score),), first or 0, last or 0, times)


def after(known: KnownObjects, map_: Map, space: FreeSpace, stamp_ns: int) -> KnownObjects:
    """What is known after a scene was fused, which gave `map_`; space: what its keyframe of `stamp_ns` tells.

    A keyframe that sees most of what it compares of an object shows it: the object is there. One that looks
    through most of it is evidence against it: the object was not seen lately. It has gone when, besides,
    forgetting has removed most of its voxels from the map. What a keyframe compares little of stays as it
    was; so what the budget alone removed has not gone.
    """
    there = [one for one in known.objects if not one.gone]
    if not there:
        return known
    keys, sizes = np.concatenate([one.keys for one in there]), [len(one.keys) for one in there]
    which = np.repeat(np.arange(len(there)), sizes)
    told, _ = compare(centres(keys, map_.voxel).astype(np.float32), space)
    seen, missed = (np.bincount(which, told == kind, len(there)) / sizes for kind in (SEEN, MISSED))
    changed = []
    for row in np.flatnonzero(np.maximum(seen, missed) >= SHOWN):
        one, history = there[row], there[row].history
        if seen[row] >= missed[row]:
            history = replace(
                history, state=State.THERE, last_seen_ns=stamp_ns, times_seen=history.times_seen + 1
            )
        elif map_.lookup(one.keys).there.mean() < LEFT:
            history = replace(history, state=State.GONE, gone_ns=stamp_ns)
        else:
            history = replace(history, state=State.NOT_SEEN_LATELY)
        changed.append(one.with_history(history))
    return known.changed(changed)


def moved(
    known: KnownObjects, map_: Map, map_new_from_map_old: np.ndarray, ratios: np.ndarray
) -> KnownObjects:
    """What is known after `Map.moved` with the same similarities (S + 1, 4, 4), (S + 1,) gave `map_`: each
    object moves with its owner; boxes stay aligned with the axes."""
    changed = []
    for one in known.objects:
        move, ratio = map_new_from_map_old[one.owner], float(ratios[one.owner])
        if ratio == 1 and np.array_equal(move, np.eye(4)):
            continue
        scaled = ratio * np.vstack((one.thing.center, centres(one.keys, map_.voxel)))
        (center, *_), places = np.split(scaled @ move[:3, :3].T + move[:3, 3], [1])
        keys, inside = voxel_keys(places, map_.voxel)
        width, depth, height = one.thing.size
        size = ratio * width, ratio * depth, ratio * height
        thing = replace(one.thing, center=tuple(center.tolist()), size=size)
        changed.append(replace(one, thing=thing, keys=nearest_in(map_, np.unique(keys[inside]))))
    return known.changed(changed)


def voxels_of(map_: Map, answer: Answer) -> list[np.ndarray]:
    """The voxels (K,) of the phrase in each object of an answer, ascending; none for one of boxes only."""
    if answer.gaussians is None or not answer.objects:
        return []
    rows, start = answer.gaussians.lit_rows, 0
    parts = []
    for tile in map_.tiles.values():
        first, last = np.searchsorted(rows, (start, start + len(tile)))
        parts.append(tile.arrays.keys[rows[first:last] - start])
        start += len(tile)
    lit = np.concatenate(parts)
    places = centres(lit, map_.voxel)
    return [
        lit[(np.abs(places - thing.center) <= (np.asarray(thing.size) + map_.voxel) / 2).all(1)]
        for thing in answer.objects
    ]


def centres(keys: np.ndarray, voxel: float) -> np.ndarray:
    """The centres (K, 3) of the voxels of keys (K,), in the map's unit."""
    return (voxel_cells(keys) + 0.5) * voxel


def nearest_in(map_: Map, keys: np.ndarray) -> np.ndarray:
    """Voxels (K,), each as it is where the map has something in it or in none beside it, else the first one
    beside it with something: Gaussians that moved with another owner may have come to lie there."""
    cells = voxel_cells(keys)[:, None] + AROUND
    beside = keys_of(cells.reshape(-1, 3))
    there = map_.lookup(beside).there.reshape(-1, len(AROUND))
    return np.unique(beside.reshape(there.shape)[np.arange(len(keys)), there.argmax(1)])
