"""One map of two: all that both hold, where the second stands in the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from gsemsplat_ros.scene.alignment import Alignment
from gsemsplat_ros.scene.known_objects import KnownObject, KnownObjects
from gsemsplat_ros.scene.map import Map, placed_anew
from gsemsplat_ros.scene.map_keyframe import MapKeyframe, apart_from, with_keyframe
from gsemsplat_ros.scene.object_identity import MIN_OVERLAP, centres, moved
from gsemsplat_ros.scene.pose_graph import MAP, GraphLink, PoseGraph
from gsemsplat_ros.scene.tile import Tile
from gsemsplat_ros.scene.voxels import voxel_keys
from gsemsplat_ros.semantics.object_history import History


def together(a: Map, b: Map, where: Alignment) -> Map:
    """All that `a` and `b` hold, in frame, unit and voxels of `a`; the scenes of b come after those of a.

    Gaussians that meet in a voxel are merged by their certainties. Of keyframes that see the same those of a
    stay, as when a scene is fused. Objects of b have new ids, unless they are some of a. What one of them has
    and the other saw go stays, until a keyframe looks through it.
    """
    there = moved_gaussians(a, b, where)
    return replace(
        a.joined(there),
        scenes=a.scenes + b.scenes,
        keyframes=joined_keyframes(a, b, where),
        graph=joined_graph(a, b, where),
        objects=joined_objects(a, moved_objects(a, b, where, there)),
    )


def moves(b: Map, where: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """The same similarity for every owner: (S + 1, 4, 4), (S + 1,)."""
    return np.repeat(where.a_from_b[None], b.scenes + 1, 0), np.full(b.scenes + 1, where.scale)


def moved_gaussians(a: Map, b: Map, where: Alignment) -> Tile:
    """The Gaussians of b in a, with the numbers that their scenes have there."""
    tile = placed_anew(b.whole, *moves(b, where))
    return replace(
        tile,
        gaussians=replace(tile.gaussians, frame=a.frame),
        last_seen=tile.last_seen + a.scenes,
        owners=torch.where(tile.owners > 0, tile.owners + a.scenes, 0).to(tile.owners.dtype),
    )


def joined_keyframes(a: Map, b: Map, where: Alignment) -> tuple[MapKeyframe, ...]:
    """The keyframes of both."""
    keyframes = a.keyframes
    for kept in b.keyframes:
        moved = kept.moved(where.a_from_b, where.scale, a.scenes)
        if not (apart_from(a.keyframes, moved.map_from_camera) < 1).any():
            keyframes = with_keyframe(keyframes, moved)
    return keyframes


def joined_graph(a: Map, b: Map, where: Alignment) -> PoseGraph:
    """The graphs of both: what was measured in b from the map itself is measured from a."""

    def renumbered(link: GraphLink) -> GraphLink:
        second = link.second + a.scenes
        if link.first != MAP:
            return replace(link, first=link.first + a.scenes, second=second)
        turn, way, ratio = link.sigmas
        return replace(
            link,
            second=second,
            first_from_second=where.placed(link.first_from_second),
            ratio=where.scale * link.ratio,
            sigmas=(turn, where.scale * way, ratio),
        )

    return PoseGraph(
        np.concatenate((a.graph.numbers, b.graph.numbers + a.scenes)),
        np.concatenate((a.graph.poses, where.placed(b.graph.poses))),
        np.concatenate((a.graph.scales, where.scale * b.graph.scales)),
        np.concatenate((a.graph.stamps_ns, b.graph.stamps_ns)),
        (*a.graph.links, *map(renumbered, b.graph.links)),
    )


def moved_objects(a: Map, b: Map, where: Alignment, there: Tile) -> list[KnownObject]:
    """The objects of b in a, with the numbers that their scenes have there; there: its Gaussians."""
    if not b.objects.objects:
        return []
    known = moved(b.objects, Map.empty(a.frame, b.voxel).joined(there), *moves(b, where))
    turn = np.abs(where.a_from_b[:3, :3])  # of a box to the one around it that is aligned with the axes of a
    return [
        replace(
            one,
            thing=replace(one.thing, size=tuple((turn @ one.thing.size).tolist())),
            keys=np.unique(voxel_keys(centres(one.keys, b.voxel), a.voxel)[0]),
            voxels=max(1, round(one.voxels * (b.voxel * where.scale / a.voxel) ** 3)),
            owner=one.owner + a.scenes if one.owner else 0,
        )
        for one in known.objects
    ]


def joined_objects(a: Map, others: Sequence[KnownObject]) -> KnownObjects:
    """The objects of a, and `others` with new ids. Two that are there, in about the same box and found by one
    text, are one; its box is the one that was seen last."""
    here = {one.history.id: one for one in a.objects.objects}
    next_id, changed = a.objects.next_id, []
    for one in others:
        same = max(here.values(), key=lambda known: likeness(known, one), default=None)
        if same is None or likeness(same, one) < MIN_OVERLAP:
            changed.append(one.with_history(replace(one.history, id=next_id)))
            next_id += 1
            continue
        del here[same.history.id]
        newest = max(same, one, key=lambda known: known.history.last_seen_ns)
        changed.append(newest.with_history(joined_history(same.history, one.history)))
    return replace(a.objects, next_id=next_id).changed(changed)


def likeness(a: KnownObject, b: KnownObject) -> float:
    """Intersection over union of two objects that may be one; 0 for those that are not."""
    common = dict(a.history.texts).keys() & dict(b.history.texts).keys()
    return a.thing.overlap(b.thing) if common and not (a.gone or b.gone) else 0.0


def joined_history(a: History, b: History) -> History:
    """Of one object in two maps: the id is that of the first one, the state of the one that saw it last."""
    joined = replace(
        a,
        state=max(a, b, key=lambda history: history.last_seen_ns).state,
        first_seen_ns=min(a.first_seen_ns or b.first_seen_ns, b.first_seen_ns or a.first_seen_ns),
        last_seen_ns=max(a.last_seen_ns, b.last_seen_ns),
        times_seen=a.times_seen + b.times_seen,
    )
    for text, score in b.texts:
        joined = joined.found_by(text, max(score, dict(a.texts).get(text, 0.0)))
    return joined
