"""The known objects of a map as tensors of its file: each value of all objects one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.mapping.keyframe_file import flat
from gsemsplat_ros.mapping.known_objects import MOST, SAMPLE, KnownObject, KnownObjects
from gsemsplat_ros.scene.coded_file import plain
from gsemsplat_ros.scene.gaussian_columns import LARGEST
from gsemsplat_ros.semantics.object_history import MOST_TEXTS, History, State
from gsemsplat_ros.semantics.objects import Object

# whole: the next id, then these of each object; real: centre, size and score
WHOLE = (
    'id',
    'state',
    'first_seen_ns',
    'last_seen_ns',
    'gone_ns',
    'times_seen',
    'voxels',
    'owner',
    'keys',  # how many
    'texts',  # how many
)
REAL = 7
LARGEST_ID = 2**32 - 1  # of a message
LARGEST_WHOLE = 2**62  # of a stamp, and of what else has no bound of its own
DTYPES = {
    'object_whole': torch.int64,
    'object_real': torch.float64,
    'object_keys': torch.int64,
    'object_texts': torch.uint8,  # one a line
    'object_scores': torch.float64,  # of the texts
}


def tensors_of(known: KnownObjects) -> dict[str, Tensor]:
    """The tensors of a file."""
    counts = [{'keys': len(one.keys), 'texts': len(one.history.texts)} for one in known.objects]
    whole = [
        np.array([({**vars(one), **vars(one.history)} | count)[name] for name in WHOLE])
        for one, count in zip(known.objects, counts)
    ]
    texts = [text for one in known.objects for text, _ in one.history.texts]
    values: dict[str, list[np.ndarray]] = {
        'whole': [np.array([known.next_id]), *whole],
        'real': [np.array([*one.thing.center, *one.thing.size, one.thing.score]) for one in known.objects],
        'keys': [one.keys for one in known.objects],
        'texts': [np.frombuffer('\n'.join(texts).encode(), np.uint8)],
        'scores': [np.array([score for _, score in one.history.texts]) for one in known.objects],
    }
    return {f'object_{name}': flat(parts, DTYPES[f'object_{name}']) for name, parts in values.items()}


def objects_of(tensors: Mapping[str, Tensor]) -> KnownObjects:
    """The objects of a checked file; none for a file of an earlier version."""
    if 'object_whole' not in tensors:
        return KnownObjects()
    next_id, whole, real = _columns(tensors)
    pairs = list(zip(_texts(tensors), tensors['object_scores'].tolist()))
    objects = []
    for row, numbers, keys, end in zip(
        zip(*(column.tolist() for column in whole.values())),
        real.tolist(),
        np.split(tensors['object_keys'].numpy(), np.cumsum(whole['keys'])[:-1]),
        np.cumsum(whole['texts']).tolist(),
    ):
        one = dict(zip(WHOLE, row))
        history = History(
            one['id'],
            State(one['state']),
            tuple(pairs[end - one['texts'] : end]),
            one['first_seen_ns'],
            one['last_seen_ns'],
            one['times_seen'],
            one['gone_ns'],
        )
        thing = Object(tuple(numbers[:3]), tuple(numbers[3:6]), numbers[6], history)
        objects.append(KnownObject(thing, keys, one['voxels'], one['owner']))
    return KnownObjects(tuple(objects), next_id)


def defect(tensors: Mapping[str, Tensor], scenes: int) -> str:
    """What is wrong with the objects of a map of so many scenes, in words; '' when nothing is."""
    sizes = {name.removeprefix('object_'): len(tensors[name]) for name in DTYPES}
    count, rest = divmod(sizes['whole'] - 1, len(WHOLE))
    if not 0 <= count <= MOST or rest or sizes['real'] != REAL * count:
        return 'its objects are cut off'
    next_id, whole, real = _columns(tensors)
    if not (np.diff(whole['id'], prepend=0, append=next_id) > 0).all() or next_id > LARGEST_ID:
        return 'ids of objects are not in order'
    for name, low, high in (
        ('state', min(State), max(State)),
        ('first_seen_ns', 0, LARGEST_WHOLE),
        ('last_seen_ns', 0, LARGEST_WHOLE),
        ('gone_ns', 0, LARGEST_WHOLE),
        ('times_seen', 0, scenes),
        ('voxels', 1, LARGEST_WHOLE),
        ('owner', 0, scenes),
        ('keys', 1, SAMPLE),
        ('texts', 1, MOST_TEXTS),
    ):
        if not ((whole[name] >= low) & (whole[name] <= high)).all():
            return f'{name} of objects is out of its range, {low} to {high}'
    if sizes['keys'] != whole['keys'].sum() or sizes['scores'] != whole['texts'].sum():
        return 'voxels or texts of objects are cut off'
    scores = np.concatenate((tensors['object_scores'].numpy(), real[:, 6]))
    if not ((scores >= 0) & (scores <= 1)).all():
        return 'scores of objects are out of their range, 0 to 1'
    if not (np.abs(real) <= LARGEST).all() or not (real[:, 3:6] >= 0).all():
        return f'boxes of objects are out of their range, {LARGEST:g}'
    if not (tensors['object_keys'] >= 0).all():
        return 'voxels of objects are outside the grid'
    try:
        texts = _texts(tensors)
    except UnicodeDecodeError:
        texts = []
    if len(texts) != max(sizes['scores'], 1) or not all(map(plain, texts)):
        return 'texts of objects are no short texts'
    return ''


def _columns(tensors: Mapping[str, Tensor]) -> tuple[int, dict[str, np.ndarray], np.ndarray]:
    """The next id, the columns WHOLE (K,) and the reals (K, REAL) of a file's objects."""
    first, whole = np.split(tensors['object_whole'].numpy(), [1])
    rows = whole.reshape(-1, len(WHOLE))
    return int(first[0]), dict(zip(WHOLE, rows.T)), tensors['object_real'].numpy().reshape(-1, REAL)


def _texts(tensors: Mapping[str, Tensor]) -> list[str]:
    """The texts of a file's objects, an empty one where there are none. Raises UnicodeDecodeError."""
    return bytes(tensors['object_texts'].numpy()).decode().split('\n')
