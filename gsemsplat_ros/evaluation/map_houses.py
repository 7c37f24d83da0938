"""The scores of `eval map`: pipeline and mapper in houses that change between two rounds of a robot."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np

from gsemsplat_ros.evaluation.boxes import box_scores, boxes_of
from gsemsplat_ros.evaluation.held_out_rooms import words
from gsemsplat_ros.evaluation.map_identity import MIN_SEEN, MOMENTS, Identity, Sighting, standing
from gsemsplat_ros.evaluation.map_scores import Record, drift, right_pose, world_from_map, wrongly_removed
from gsemsplat_ros.evaluation.map_walk import Keyframe, Walker, noisy, sequential_pair, stereo_pair, surface
from gsemsplat_ros.evaluation.metrics import bootstrap_interval, mean
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.rooms.house import House, sample_house
from gsemsplat_ros.rooms.renderer import RoomRenderer
from gsemsplat_ros.scene.scene import Scene

SETTINGS = 'stereo', 'stereo_tf', 'sequential', 'sequential_tf'
HOUSES, ELSEWHERE = 2_000_000, 3_000_000  # first seeds
# m and Gaussians: nothing goes for want of room; at the node's 3 cm a million is too few for four rooms
VOXEL, BUDGET = 0.05, 2_000_000
PROBES = 10  # places in the house, and as many elsewhere, that a map which was loaded has to tell
# measure -> its meaning, in the order of the table
MEASURES = {
    'drift_m': 'error of the position at the end of the first round, back at its start, before loops are '
    'closed [m]',
    'drift_closed_m': 'the same after loops were closed',
    'path_error_m': 'error of the position, mean over the first round, after loops were closed [m]',
    'still_error_m': 'rival of path_error_m: no chaining, each camera is taken for the first [m]',
    'given_error_m': 'rival of path_error_m with TF: the given poses themselves [m]',
    'drift_percent': 'error of the last position placed in the first round, of the way until there [%]',
    'fused_share': 'part of the keyframes that are in the map',
    'stale_share': "part of the gone things' Gaussians in the map after three views looked through (never "
    'forgetting: 1)',
    'wrongly_removed_share': 'part of the places of what stands that the map had and lost (never forgetting: '
    '0)',
    'relocalised_share': 'part of the places in the house that the map, as if loaded, tells within 0.3 m, '
    '10 deg, by one of two scenes in a row',
    'false_relocalisations': 'number of places told wrongly: of these, of as many in another house, and '
    'after lost links',
    'id_switches': 'number of times that a thing changed its id (asked by name four times)',
    'objects_precision': 'part of the boxes found by the names of things that are a standing one of the name',
    'objects_recall': 'part of the things that stand that have such a box (IoU 0.25; by chance about 0)',
    'seconds_keyframe': 'of fusing a keyframe, mean',
    'seconds_pipeline': 'of making its scene, mean',
}
# why a measure is null
ABSENT = {
    'drift_m': 'a link was lost in the first round, or its end is not in the map',
    'drift_closed_m': 'the end of the first round is not in the map',
    'stale_share': 'no keyframes of the second round in the map look at what has gone',
    'wrongly_removed_share': 'nothing is in the map',
    'relocalised_share': 'nothing is in the map',
    'false_relocalisations': 'nothing is in the map',
    'id_switches': 'no thing was found by its name',
    'objects_precision': 'nothing was found, or too little is in the map to compare it with the house',
    'objects_recall': 'too little is in the map to compare it with the house',
}


@dataclass
class Setting:
    """A mapper in one of SETTINGS, and its record. given: the noisy poses of all keyframes, None without TF;
    seconds: of the pipeline."""

    name: str
    mapper: Mapper
    record: Record
    given: list[np.ndarray] | None
    seconds: list[float] = field(default_factory=list)
    identity: Identity = field(default_factory=Identity)

    @property
    def stereo(self) -> bool:
        return self.name.startswith('stereo')

    def pair(self, keyframe: Keyframe, before: Keyframe | None) -> Pair | None:
        """The pair of a keyframe; None where there is none before."""
        given, camera = self.given, self.record.camera
        if self.stereo:
            return stereo_pair(keyframe, camera, given[keyframe.number] if given else None)
        if before is None:
            return None
        poses = (given[keyframe.number], given[before.number]) if given else None
        return sequential_pair(keyframe, before, camera, poses)


def walkers(renderer: RoomRenderer, seed: int) -> tuple[Walker, Walker]:
    """The robot in house number `seed`, and in one that it has never seen."""
    here, there = (
        Walker(sample_house(renderer.furniture, np.random.default_rng(number)), renderer, number)
        for number in (HOUSES + seed, ELSEWHERE + seed)
    )
    return here, there


def evaluate_house(
    pipeline: Pipeline,
    walker: Walker,
    elsewhere: Walker | None,
    keyframes: int,
    settings: Sequence[str] = SETTINGS,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, dict]:
    """The scores of one house by setting: MEASURES and `reasons`, why keyframes were left out.

    elsewhere: another house, whose places the map must not take for its own. tick: called after each
    keyframe.
    """
    house, gone = walker.house, walker.house.taken | walker.house.moved
    poses = [pose for _, pose in walker.way(keyframes)]
    running = [
        Setting(
            name,
            Mapper(Map.empty('map', VOXEL), BUDGET),
            Record(walker.camera, gone),
            noisy(poses, np.random.default_rng((seed, 2))) if name.endswith('tf') else None,
        )
        for name in settings
    ]
    by_camera = sorted(running, key=lambda setting: setting.stereo)  # most encodings are reused so
    seen: list[Sighting] = []
    moments = {round(keyframes * k / (2 * MOMENTS)) - 1 for k in range(1, 2 * MOMENTS + 1)}
    before: Keyframe | None = None
    for keyframe in walker.rounds(keyframes):
        seen.append(Sighting(keyframe.round, *surface(keyframe, walker.camera)))
        of_stereo: tuple[Scene, float] | None = None  # the same for both: it does not depend on TF
        for setting in by_camera:
            pair = setting.pair(keyframe, before)
            if pair is None:
                continue
            scene, seconds = (setting.stereo and of_stereo) or timed(pipeline.build, pair)
            if setting.stereo:
                of_stereo = scene, seconds
            setting.seconds.append(seconds)
            fusion, seconds = timed(setting.mapper.add, scene, pair)
            setting.record.add(keyframe, scene, fusion, setting.mapper.map, seconds)
            if keyframe.number in moments:
                setting.identity.look(pipeline, setting.mapper, setting.record, house, seen)
        before = keyframe
        tick()
    probes = [probe_scenes(pipeline, walker, running, True)]
    if elsewhere is not None:
        probes.append(probe_scenes(pipeline, elsewhere, running, False))
    places = relocalised(running, chain.from_iterable(probes))
    return {
        setting.name: {
            **drift(setting.record),
            'given_error_m': given_error(setting),
            'fused_share': float(np.mean([pose is not None for pose in setting.record.poses])),
            'stale_share': setting.record.old.share if setting.record.old else None,
            'wrongly_removed_share': wrongly_removed(setting.record),
            **places[setting.name],
            'id_switches': setting.identity.score,
            **objects_found(pipeline, setting, house, *standing(seen, gone)),
            'seconds_keyframe': mean([setting.record.seconds]),
            'seconds_pipeline': mean([setting.seconds]),
            'gaussians': len(setting.mapper.map),
            'reasons': setting.record.reasons,
        }
        for setting in running
    }


def timed(work: Callable, *arguments: object) -> tuple:
    """The result of `work` with these arguments, and its seconds."""
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start


def given_error(setting: Setting) -> float | None:
    """Mean error [m] of the given poses of the first round's keyframes."""
    if setting.given is None:
        return None
    return mean(
        [
            [float(np.linalg.norm(given[:3, 3] - true[:3, 3]))]
            for given, true, i in zip(setting.given, setting.record.truth, setting.record.rounds)
            if i == 1
        ]
    )


@dataclass(frozen=True)
class Probe:
    """Two scenes in a row without a given pose, each with its pair and its true pose, world_from_camera, in
    the house or (`here` False) in another."""

    scenes: tuple[tuple[Scene, Pair, np.ndarray], ...]
    stereo: bool
    here: bool


def probe_scenes(
    pipeline: Pipeline, walker: Walker, running: Sequence[Setting], here: bool
) -> Iterator[Probe]:
    """PROBES probes of a house, for each kind of camera that is `running`."""
    kinds = sorted({setting.stereo for setting in running})
    for keyframes in walker.probes(PROBES):
        for stereo in kinds:
            scenes = []
            for before, keyframe in pairwise(keyframes):
                pair = (
                    stereo_pair(keyframe, walker.camera)
                    if stereo
                    else sequential_pair(keyframe, before, walker.camera)
                )
                scenes.append((pipeline.build(pair), pair, keyframe.world_from_camera))
            yield Probe(tuple(scenes), stereo, here)


def relocalised(running: Sequence[Setting], probes: Iterable[Probe]) -> dict[str, dict[str, float | None]]:
    """By setting: each probe asked of the map as if that was loaded: its first scene, and if that was not
    placed the next, by the same mapper."""
    asked, right = Counter[str](), Counter[str]()
    wrong = {setting.name: setting.record.misplaced for setting in running}
    for probe in probes:  # one at a time: a scene has 100 MB
        for setting in running:
            if setting.stereo == probe.stereo and len(setting.mapper.map):
                asked[setting.name] += probe.here
                good = placed_rightly(setting, probe)
                if good is not None:
                    right[setting.name] += good
                    wrong[setting.name] += not good
    return {
        name: {
            'relocalised_share': right[name] / asked[name] if asked[name] else None,
            'false_relocalisations': float(wrong[name]) if asked[name] else None,
        }
        for name in wrong
    }


def placed_rightly(setting: Setting, probe: Probe) -> bool | None:
    """Whether the map tells the true place of the probe; None: it tells none."""
    mapper = Mapper(setting.mapper.map, BUDGET)
    for scene, pair, true in probe.scenes:
        fusion = mapper.add(scene, pair)
        if fusion.fused:
            return probe.here and right_pose(setting.record, true, fusion)
    return None


def objects_found(
    pipeline: Pipeline, setting: Setting, house: House, points: np.ndarray, instances: np.ndarray
) -> dict[str, float | None]:
    """Queries by the names of all pieces that were seen, gone ones too, against boxes of those that stand.

    points (N, 3) m in the world, instances (N,): what was seen of what stands.
    """
    move = world_from_map(setting.record)
    if move is None:
        return {'objects_precision': None, 'objects_recall': None}
    scale, rotation, translation = move
    points = (points - translation) @ rotation / scale
    counts = np.bincount(instances, minlength=max(house.pieces) + 1)
    names = {i: name for i, name in house.pieces.items() if counts[i] >= MIN_SEEN}
    index = pipeline.index(setting.mapper.map)
    precision: list[float] = []
    right: dict[int, float] = dict.fromkeys(names, 0.0)
    for text in sorted({*names.values(), *(house.pieces[i] for i in house.taken)}):
        kind = [i for i, name in names.items() if words(text) <= words(name)]  # an office chair is a chair
        true = [(part.min(0), part.max(0)) for part in (points[instances == i] for i in kind)]
        answer = pipeline.query(index, text)
        scores = box_scores(boxes_of(answer.objects), np.array(true).reshape(-1, 2, 3))
        precision += scores['box_precision']
        right |= {i: found for i, found in zip(kind, scores['box_recall']) if names[i] == text}
    return {'objects_precision': mean([precision]), 'objects_recall': mean([list(right.values())])}


def summarise(houses: Sequence[dict[str, dict]], seed: int = 0) -> dict:
    """Means over houses by setting, with 95 % bootstrap `intervals`, and the first setting's at the top; what
    could not be measured is null, with its reason in `not_measured`."""
    settings = {}
    for name in houses[0]:
        groups = {
            key: [[house[name][key]] if house[name].get(key) is not None else [] for house in houses]
            for key in MEASURES
        }
        reasons: dict[str, int] = {}
        for house in houses:
            for reason, count in house[name]['reasons'].items():
                reasons[reason] = reasons.get(reason, 0) + count
        settings[name] = {
            **{key: mean(group) for key, group in groups.items()},
            'intervals': {key: bootstrap_interval(group, seed) for key, group in groups.items()},
            'gaussians': mean([[house[name]['gaussians']] for house in houses]),
            'left_out': reasons,
        }
    first = next(iter(settings))
    return {
        'setting': first,
        **{key: settings[first][key] for key in MEASURES},
        'settings': settings,
        'not_measured': [
            f'{name}: {key}: {why}'
            for name, scores in settings.items()
            for key, why in ABSENT.items()
            if scores[key] is None
        ],
    }
