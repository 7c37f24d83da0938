"""The keyframes of a map as tensors of its file: each value of all keyframes one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.geometry.pose import all_rigid
from gsemsplat_ros.geometry.retrieval import feature_kinds
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.mapping.map_keyframe import CELLS, FEATURES, FEWEST, MOST, MapKeyframe
from gsemsplat_ros.scene.coded_file import plain
from gsemsplat_ros.scene.gaussian_columns import LARGEST

# whole: number, stamp_ns, count of features, height of the picture in small; real: pose, row by row, scale,
# fx, fy, cx, cy of that picture
WHOLE, REAL = 4, 21
TALLEST = 50 * CELLS  # cells: no image is so much higher than wide
VECTOR_ROUNDING = 0.01
DTYPES = {
    'keyframe_frames': torch.uint8,  # one a line
    'keyframe_whole': torch.int64,
    'keyframe_real': torch.float64,
    'keyframe_gray': torch.uint8,
    'keyframe_depth': torch.float16,  # 0: not measured
    'keyframe_points': torch.float32,
    'keyframe_descriptors': torch.uint8,
    'keyframe_vectors': torch.float16,
}


def tensors_of(keyframes: Sequence[MapKeyframe]) -> dict[str, Tensor]:
    """The tensors of a file."""
    whole = [(kept.number, kept.stamp_ns, len(kept.points), len(kept.gray)) for kept in keyframes]
    real = [
        np.array([*kept.map_from_camera.ravel(), kept.scale, *intrinsics(kept.camera)]) for kept in keyframes
    ]
    values: dict[str, Sequence[np.ndarray]] = {
        'frames': [np.frombuffer('\n'.join(kept.frame for kept in keyframes).encode(), np.uint8)],
        'whole': [np.array(row) for row in whole],
        'real': real,
        'gray': [kept.gray for kept in keyframes],
        'depth': [np.nan_to_num(kept.depth) for kept in keyframes],
        'points': [kept.points for kept in keyframes],
        'descriptors': [kept.descriptors for kept in keyframes],
        'vectors': [kept.vector for kept in keyframes],
    }
    return {f'keyframe_{name}': flat(parts, DTYPES[f'keyframe_{name}']) for name, parts in values.items()}


def intrinsics(camera: Camera) -> tuple[float, float, float, float]:
    """Focal lengths and principal point [px]."""
    return camera.fx, camera.fy, camera.cx, camera.cy


def flat(parts: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
    """All values of arrays of one type, one after the other."""
    if not parts:
        return torch.empty(0, dtype=dtype)
    return torch.from_numpy(np.concatenate([part.ravel() for part in parts])).to(dtype)


def keyframes_of(tensors: Mapping[str, Tensor]) -> tuple[MapKeyframe, ...]:
    """The keyframes of a checked file; none for a file of an earlier version."""
    if 'keyframe_whole' not in tensors:
        return ()
    values = {name.removeprefix('keyframe_'): tensors[name].numpy() for name in DTYPES}
    frames = bytes(values['frames']).decode().split('\n')
    whole, real = values['whole'].reshape(-1, WHOLE), values['real'].reshape(-1, REAL)
    features, cells = whole[:, 2], whole[:, 3] * CELLS
    points, descriptors = (
        np.split(values[name].reshape(-1, width), np.cumsum(features)[:-1])
        for name, width in (('points', 3), ('descriptors', 128))
    )
    gray, depth = (np.split(values[name], np.cumsum(cells)[:-1]) for name in ('gray', 'depth'))
    vectors = values['vectors'].reshape(len(whole), -1) if len(whole) else ()
    return tuple(
        MapKeyframe(
            int(whole[k, 0]),
            real[k, :16].reshape(4, 4),
            float(real[k, 16]),
            frames[k],
            int(whole[k, 1]),
            Camera(CELLS, int(whole[k, 3]), *real[k, 17:].tolist()),
            gray[k].reshape(-1, CELLS),
            np.where(depth[k] > 0, depth[k], np.float16('nan')).reshape(-1, CELLS),
            points[k],
            descriptors[k],
            vectors[k],
        )
        for k in range(len(whole))
    )


def defect(tensors: Mapping[str, Tensor], scenes: int) -> str:
    """What is wrong with the keyframes of a map of so many scenes, in words; '' when nothing is."""
    sizes = {name.removeprefix('keyframe_'): len(tensors[name]) for name in DTYPES}
    count = sizes['whole'] // WHOLE
    whole = tensors['keyframe_whole'].numpy()
    real = tensors['keyframe_real'].numpy()
    if count > MOST or sizes['whole'] != WHOLE * count or sizes['real'] != REAL * count:
        return 'its keyframes are cut off'
    whole, real = whole.reshape(count, WHOLE), real.reshape(count, REAL)
    numbers, features, heights = whole[:, 0], whole[:, 2], whole[:, 3]
    for name, of, low, high in (
        ('numbers', numbers, 1, scenes),
        ('counts of features', features, FEWEST, FEATURES),
        ('heights', heights, 1, TALLEST),
    ):
        if not ((of >= low) & (of <= high)).all():
            return f'{name} of keyframes are out of their range, {low} to {high}'
    total, cells = int(features.sum()), int(heights.sum()) * CELLS
    wanted = {
        'gray': cells,
        'depth': cells,
        'points': 3 * total,
        'descriptors': 128 * total,
        'vectors': count * feature_kinds().size,
    }
    for name, size in wanted.items():
        if sizes[name] != size:
            return f'{name} of keyframes are {sizes[name]} values, wanted {size}'
    if not all_rigid(real[:, :16].reshape(count, 4, 4)):
        return 'poses of keyframes are not rigid'
    if not (np.abs(real) <= LARGEST).all() or not (real[:, 16:19] > 0).all():
        return f'poses, scales or cameras of keyframes are out of their range, {LARGEST:g}'
    points, depth = tensors['keyframe_points'].reshape(-1, 3), tensors['keyframe_depth']
    if not bool((points.abs() <= LARGEST).all() and (points[:, 2] > 0).all() and (depth >= 0).all()):
        return 'features of keyframes are out of their range'
    lengths = tensors['keyframe_vectors'].float().reshape(count, -1).norm(dim=1) if count else torch.zeros(0)
    if not bool((lengths <= 1 + VECTOR_ROUNDING).all()):
        return 'vectors of keyframes are longer than 1'
    try:
        frames = bytes(tensors['keyframe_frames'].numpy()).decode().split('\n')
    except UnicodeDecodeError:
        frames = []
    if len(frames) != max(count, 1) or not all(plain(frame) for frame in frames):
        return 'frames of keyframes are no short texts'
    return ''
