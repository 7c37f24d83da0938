"""One map of two: all that both hold, where the second stands in the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from gsemsplat_ros.mapping.alignment import Alignment
from gsemsplat_ros.mapping.correction import Correction
from gsemsplat_ros.mapping.graph_solver import solved
from gsemsplat_ros.mapping.known_objects import KnownObject, KnownObjects
from gsemsplat_ros.mapping.links import link_of_place
from gsemsplat_ros.mapping.map import Map, placed_anew
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe, apart_from, with_keyframe
from gsemsplat_ros.mapping.object_identity import MIN_OVERLAP, centres, moved
from gsemsplat_ros.mapping.pose_graph import MAP, GraphLink, PoseGraph
from gsemsplat_ros.mapping.tile import Tile
from gsemsplat_ros.mapping.voxels import voxel_keys
from gsemsplat_ros.semantics.object_history import History


def together(a: Map, b: Map, where: Alignment) -> Map:
    """All that `a` and `b` hold, in frame, unit and voxels of `a`; the scenes of b come after those of a.

    The keyframes that agree on the place tie both pose graphs together, and the scenes of both move to where
    all fits best. Gaussians that meet in a voxel are merged by their certainties. Of keyframes that see the
    same those of a stay, as when a scene is fused. Objects of b have new ids, unless they are some of a. What
    one of them has and the other saw go stays, until a keyframe looks through it.
    """
    graph = joined_graph(a, b, where)
    if where.agreeing and graph.links:
        graph = solved(graph, a.metric).graph
    correction = Correction.of(a, graph)
    merged = correction.moved(a)
    known = correction.moved_objects(a.objects, merged)
    moves = moves_of(a, b, where, merged.graph)
    there = moved_gaussians(a, b, moves)
    return replace(
        merged.joined(there),
        scenes=a.scenes + b.scenes,
        keyframes=joined_keyframes(merged.keyframes, b, moves, a.scenes),
        objects=joined_objects(known, moved_objects(a, b, moves, there)),
    )


class Moves(NamedTuple):
    """a_from_b (S + 1, 4, 4) and ratios (S + 1,): similarities by the number of the scene, as of
    `Map.moved`."""

    a_from_b: np.ndarray
    ratios: np.ndarray


def moves_of(a: Map, b: Map, where: Alignment, graph: PoseGraph) -> Moves:
    """What takes each scene of b to where the joined graph has it."""
    poses, ratios = np.repeat(where.a_from_b[None], b.scenes + 1, 0), np.full(b.scenes + 1, where.scale)
    for row, number in enumerate(b.graph.numbers):
        poses[number], ratios[number] = graph.place(len(a.graph) + row) @ b.graph.place(row).inverse
    return Moves(poses, ratios)


def joined_graph(a: Map, b: Map, where: Alignment) -> PoseGraph:
    """The graphs of both, tied by the keyframes that agree. Poses that were given in b tell of one another,
    and not of a."""
    given = [link for link in b.graph.links if link.first == MAP]
    links = [*a.graph.links]
    for link in b.graph.links:
        if link.first != MAP:
            links.append(replace(link, first=link.first + a.scenes, second=link.second + a.scenes))
        elif link is not given[0]:
            links.append(between(given[0], link, a.scenes))
    for kept, place in where.agreeing:
        if b.graph.row(kept.number) is not None:
            links.append(link_of_place(place, where.scale * kept.scale, kept.number + a.scenes, a.graph))
    return PoseGraph(
        np.concatenate((a.graph.numbers, b.graph.numbers + a.scenes)),
        np.concatenate((a.graph.poses, where.placed(b.graph.poses))),
        np.concatenate((a.graph.scales, where.scale * b.graph.scales)),
        np.concatenate((a.graph.stamps_ns, b.graph.stamps_ns)),
        tuple(links),
    )


def between(first: GraphLink, second: GraphLink, later: int) -> GraphLink:
    """The link from one scene to another of which both have a given pose; later: scenes before them."""
    pose = np.linalg.inv(first.first_from_second) @ second.first_from_second
    pose[:3, 3] /= first.ratio
    turn, way, ratio = np.hypot(first.sigmas, second.sigmas).tolist()
    sigmas = turn, way / first.ratio, ratio
    return GraphLink(first.second + later, second.second + later, pose, second.ratio / first.ratio, sigmas)


def moved_gaussians(a: Map, b: Map, moves: Moves) -> Tile:
    """The Gaussians of b in a, with the numbers that their scenes have there."""
    tile = placed_anew(b.whole, *moves)
    return replace(
        tile,
        gaussians=replace(tile.gaussians, frame=a.frame),
        last_seen=tile.last_seen + a.scenes,
        owners=torch.where(tile.owners > 0, tile.owners + a.scenes, 0).to(tile.owners.dtype),
    )


def joined_keyframes(
    keyframes: tuple[MapKeyframe, ...], b: Map, moves: Moves, later: int
) -> tuple[MapKeyframe, ...]:
    """The keyframes of a, and those of b; later: number of scenes of a."""
    joined = keyframes
    for kept in b.keyframes:
        moved = kept.moved(moves.a_from_b[kept.number], moves.ratios[kept.number], later)
        if not (apart_from(keyframes, moved.map_from_camera) < 1).any():
            joined = with_keyframe(joined, moved)
    return joined


def moved_objects(a: Map, b: Map, moves: Moves, there: Tile) -> list[KnownObject]:
    """The objects of b in a, with the numbers that their scenes have there; there: its Gaussians."""
    if not b.objects.objects:
        return []
    known = moved(b.objects, Map.empty(a.frame, b.voxel).joined(there), *moves)
    turns = np.abs(moves.a_from_b[:, :3, :3])  # of a box to the one around it that lies along the axes of a
    return [
        replace(
            one,
            thing=replace(one.thing, size=tuple((turns[one.owner] @ one.thing.size).tolist())),
            keys=np.unique(voxel_keys(centres(one.keys, b.voxel), a.voxel)[0]),
            voxels=max(1, round(one.voxels * (b.voxel * float(moves.ratios[one.owner]) / a.voxel) ** 3)),
            owner=one.owner + a.scenes if one.owner else 0,
        )
        for one in known.objects
    ]


def joined_objects(known: KnownObjects, others: Sequence[KnownObject]) -> KnownObjects:
    """The `known` objects, and `others` with new ids. Two that are there, in about the same box and found by
    one text, are one; its box is the one that was seen last."""
    here = {one.history.id: one for one in known.objects}
    next_id, changed = known.next_id, []
    for one in others:
        same = max(here.values(), key=lambda before: likeness(before, one), default=None)
        if same is None or likeness(same, one) < MIN_OVERLAP:
            changed.append(one.with_history(replace(one.history, id=next_id)))
            next_id += 1
            continue
        del here[same.history.id]
        newest = max(same, one, key=lambda known: known.history.last_seen_ns)
        changed.append(newest.with_history(joined_history(same.history, one.history)))
    return replace(known, next_id=next_id).changed(changed)


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
