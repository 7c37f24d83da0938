"""Scenes on disk: one safetensors file with the images, which gives the same answers as the scene.

Its Gaussians are stored unmerged, one for each pixel of both images; a map (map_file.py) merges them by
voxel. The rendering that queries read is drawn again on loading. A file appears whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.image_file import MAX_PIXELS
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.scene import coded_file as codedfile
from gsemsplat_ros.scene import gaussian_columns
from gsemsplat_ros.scene.coded_file import CodeSpace, Kind
from gsemsplat_ros.scene.scene import Keyframe, Scene, drawn_for_queries
from gsemsplat_ros.semantics.decoder import Decoders

JPEG = 92  # quality of the images: they are shown, not measured
MAX_IMAGE = 1 << 26  # bytes of a file's image
MAX_DRAWN = 1 << 20  # pixels of the rendering; the networks here have at most 1 << 18
IMAGES = 'image', 'second_image'
COUNTS = 'counts'  # of the picture that queries read (HiddenCodes)


def save_scene(path: str | Path, scene: Scene, second_image: np.ndarray, space: CodeSpace) -> None:
    """Write `scene` and the pair's `second_image` (H, W, 3) uint8 RGB. Errors as of coded_file.write."""
    keyframe, pose = scene.keyframe, scene.first_from_second
    card = {
        'frame': scene.gaussians.frame,
        'camera': asdict(keyframe.camera),
        'window': asdict(keyframe.window),
        'stamp_ns': int(keyframe.stamp_ns),
        'first_from_second': None if pose is None else np.asarray(pose, np.float64).tolist(),
        'focal_source': scene.focal_source,
        'focal_spread': float(scene.focal_spread),
        'scale': float(scene.scale),
        'scale_source': scene.scale_source,
        'inliers': int(scene.inliers),
        'points': int(scene.points),
        'timings': {name: float(s) for name, s in scene.timings.items()},
    }
    images = {name: encoded(image) for name, image in zip(IMAGES, (keyframe.image, second_image))}
    counts = keyframe.hidden_codes.counts
    shape = (0, 0, 0) if counts is None else tuple(counts.shape)
    flat = torch.zeros(0) if counts is None else counts.cpu().flatten()
    card['counts'] = list(shape)
    tensors = {**images, COUNTS: flat.half()}
    codedfile.write(Path(path), KIND, card, tensors, [scene.gaussians], gaussian_columns.COLUMNS, space)


def load_scene(
    path: str | Path, space: CodeSpace, decoders: Decoders, canonical: np.ndarray | Tensor
) -> tuple[Scene, np.ndarray]:
    """The scene at `path` and the pair's second image (H, W, 3) uint8 RGB.

    `decoders`, `canonical` and `space`: of the pipeline that will answer. Raises ValueError, in one line, for
    a file that is missing, damaged or of another kind, and for codes of other decoders.
    """
    gaussians, card, image, second, flat, theirs = read_file(path)
    path = Path(path)
    codedfile.check_space(path, theirs, space, 'give that checkpoint as --weights')
    if flat.numel() and card['counts'][0] != decoders.dims[1]:
        raise ValueError(
            f'{path} is damaged: it counts {card["counts"][0]} classes, and the weights have '
            f'{decoders.dims[1]}; write it again with {KIND.maker}'
        )
    camera, window = Camera(**card['camera']), Window(**card['window'])
    device = next(decoders.parameters()).device
    gaussians = gaussians.to(device)
    counts = flat.reshape(card['counts']).float().to(device) if flat.numel() else None
    rendering = render(drawn_for_queries(gaussians, counts), camera, np.eye(4))
    hidden = decoders.prepare(rendering.codes, canonical, rendering.alpha, counts)
    keyframe = Keyframe(camera, rendering, hidden, image, window, card['frame'], card['stamp_ns'])
    pose = card['first_from_second']
    scene = Scene(
        gaussians,
        keyframe,
        None if pose is None else np.array(pose),
        card['scale'],
        card['scale_source'],
        card['inliers'],
        card['points'],
        card['timings'],
        card['focal_source'],
        card['focal_spread'],
    )
    return scene, second


def read_scene(path: str | Path) -> tuple[Gaussians, dict, np.ndarray, np.ndarray]:
    """Gaussians on the CPU, card and both images (H, W, 3) uint8 RGB of a file, without a pipeline.

    Raises ValueError in one line.
    """
    gaussians, card, image, second, _, _ = read_file(path)
    return gaussians, card, image, second


def read_file(path: str | Path) -> tuple[Gaussians, dict, np.ndarray, np.ndarray, Tensor, CodeSpace]:
    """`read_scene`, the counts of the keyframe, flat float16, none where its codes answer, and the space of
    the codes."""
    file = codedfile.read(Path(path), KIND)
    image, second = (decoded(file.tensors[name]) for name in IMAGES)
    window = file.card['window']
    if (
        image is None
        or second is None
        or image.shape[1::-1] != (window['input_width'], window['input_height'])
    ):
        raise codedfile.damaged(
            file.path, file.kind, 'an image of it is no picture, or of another size than its camera'
        )
    gaussians = gaussian_columns.gaussians_of(file.rows(0, file.count), file.card['frame'])
    return gaussians, file.card, image, second, file.tensors[COUNTS], file.space


def defect(card: dict, tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with a scene's parts, in words; '' when nothing is."""
    for name, kind in (('camera', Camera), ('window', Window)):
        if not fits(card[name], kind):
            return f'its {name} makes no sense'
    camera, window = card['camera'], card['window']
    if camera['width'] * camera['height'] > MAX_DRAWN:
        return f'its camera has {camera["width"]}x{camera["height"]} px'
    if not (window['scale_x'] > 0 and window['scale_y'] > 0 and camera['fx'] > 0 and camera['fy'] > 0):
        return 'its camera or window has no positive scale'
    pose = card.get('first_from_second')
    if not (pose is None or is_pose(pose)):
        return 'first_from_second is no pose'
    if not (card['scale'] > 0 and card['focal_spread'] >= 0 and card['inliers'] >= 0 and card['points'] >= 0):
        return 'scale, spread or counts of measurements are negative'
    if not all(codedfile.plain(name) and is_finite(value) for name, value in card['timings'].items()):
        return 'its timings are no numbers'
    counts = card['counts']
    if len(counts) != 3 or not all(type(side) is int and side >= 0 for side in counts):
        return 'the sides of its counts are no sizes'
    if math.prod(counts) != tensors[COUNTS].numel():
        return f'it has {tensors[COUNTS].numel()} counts, wanted {math.prod(counts)}'
    return ''


def fits(values: object, kind: type[Camera] | type[Window]) -> bool:
    """Whether `values` of a card are those of `kind`: sizes in (0, 2^16), finite numbers."""
    if not isinstance(values, dict) or values.keys() != {field.name for field in fields(kind)}:
        return False
    return all(
        type(values[field.name]) is int and 0 < values[field.name] < 1 << 16
        if field.type == 'int'
        else is_finite(values[field.name])
        for field in fields(kind)
    )


def is_finite(value: Any) -> bool:
    """Whether a value of a card is a number that a float can hold."""
    return type(value) in (int, float) and abs(value) < 1e30


def is_pose(rows: object) -> bool:
    """Whether `rows` of a card are a rigid transform (4, 4)."""
    if not isinstance(rows, list) or len(rows) != 4:
        return False
    if not all(isinstance(row, list) and len(row) == 4 and all(map(is_finite, row)) for row in rows):
        return False
    matrix = np.array(rows, np.float64)
    turn = matrix[:3, :3]
    return bool(
        np.allclose(turn @ turn.T, np.eye(3), atol=1e-3)
        and np.linalg.det(turn) > 0
        and np.allclose(matrix[3], (0, 0, 0, 1))
    )


KIND = Kind(
    'scene',
    'gsemsplat_scene',
    2,
    '`gsemsplat infer`',
    gaussian_columns.DTYPES | dict.fromkeys(IMAGES, torch.uint8) | {COUNTS: torch.float16},
    gaussian_columns.SHAPES | dict.fromkeys((*IMAGES, COUNTS)),
    {
        'frame': str,
        'camera': dict,
        'window': dict,
        'stamp_ns': int,
        'focal_source': str,
        'focal_spread': float,
        'scale': float,
        'scale_source': str,
        'inliers': int,
        'points': int,
        'timings': dict,
        'counts': list,
    },
    defect,
)


def encoded(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 RGB as the bytes of a JPEG."""
    done, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG])
    assert done, image.shape
    return torch.from_numpy(data.reshape(-1))


def decoded(data: Tensor) -> np.ndarray | None:
    """The bytes of a JPEG as (H, W, 3) uint8 RGB; None if they cannot be decoded, or to too many pixels."""
    if not 0 < data.numel() <= MAX_IMAGE:
        return None
    try:
        with Image.open(BytesIO(data.numpy().tobytes()), formats=('JPEG',)) as picture:
            if math.prod(picture.size) > MAX_PIXELS:
                return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image = cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else np.ascontiguousarray(image[..., ::-1])
