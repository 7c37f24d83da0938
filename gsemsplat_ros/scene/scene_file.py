"""Scenes on disk: one safetensors file with the images, which gives the same answers as the scene.

Its Gaussians are stored unmerged, one for each pixel of both images; a map (map_file.py) merges them by
voxel. The rendering that queries read is drawn again on loading. A file appears whole or not at all.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.scene import coded_file as codedfile
from gsemsplat_ros.scene.coded_file import CodeSpace, Kind
from gsemsplat_ros.scene.scene import Keyframe, Scene, drawn_for_queries
from gsemsplat_ros.semantics.decoder import Decoders

KIND = Kind('scene', 'gsemsplat_scene', 2, '`gsemsplat infer`')
JPEG = 92  # quality of the images: they are shown, not measured
MAX_IMAGE = 1 << 26  # bytes of a file's image
IMAGES = 'image', 'second_image'
COUNTS = 'counts'  # of the picture that queries read (HiddenCodes)


def save_scene(path: str | Path, scene: Scene, second_image: np.ndarray, space: CodeSpace) -> None:
    """Write `scene` and the pair's `second_image` (H, W, 3) uint8 RGB. Errors as of coded_file.write."""
    gaussians, keyframe, pose = scene.gaussians.to('cpu'), scene.keyframe, scene.first_from_second
    card = {
        'frame': gaussians.frame,
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
    tensors = {**codedfile.tensors_of(gaussians), **images, COUNTS: flat.half()}
    codedfile.write(Path(path), KIND, card, tensors, space)


def load_scene(
    path: str | Path, space: CodeSpace, decoders: Decoders, canonical: np.ndarray
) -> tuple[Scene, np.ndarray]:
    """The scene at `path` and the pair's second image (H, W, 3) uint8 RGB.

    `decoders`, `canonical` and `space`: of the pipeline that will answer. Raises ValueError, in one line, for
    a file that is missing, damaged or of another kind, and for codes of other decoders.
    """
    gaussians, card, image, second, flat = read_file(path)
    codedfile.check_space(Path(path), CodeSpace.of_card(card), space, 'give that checkpoint as --weights')
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
    return read_file(path)[:4]


def read_file(path: str | Path) -> tuple[Gaussians, dict, np.ndarray, np.ndarray, Tensor]:
    """`read_scene`, and the counts of the keyframe, flat float16, none where its codes answer."""
    card, tensors = codedfile.read(Path(path), KIND, defect)
    image, second = (decoded(tensors[name]) for name in IMAGES)
    if image is None or second is None:
        raise ValueError(f'{path} is damaged: an image of it is no picture; write it again with {KIND.maker}')
    return codedfile.gaussians_of(tensors, card['frame']), card, image, second, tensors[COUNTS]


def defect(card: dict, tensors: dict[str, Tensor]) -> str:
    """What is wrong with a scene's parts, in words; '' when nothing is."""
    kinds = {
        'frame': str,
        'stamp_ns': int,
        'focal_source': str,
        'focal_spread': float,
        'scale': float,
        'scale_source': str,
        'inliers': int,
        'points': int,
        'timings': dict,
        'counts': list,
        'weights': str,
        'text_encoder': str,
        'decoders': str,
    }
    wrong = codedfile.missing(card, kinds) or codedfile.misshapen(
        tensors,
        codedfile.DTYPES | dict.fromkeys(IMAGES, torch.uint8) | {COUNTS: torch.float16},
        codedfile.SHAPES | dict.fromkeys((*IMAGES, COUNTS)),
    )
    if wrong:
        return wrong
    try:
        Camera(**card['camera']), Window(**card['window'])
        pose = card['first_from_second']
        assert pose is None or np.array(pose, np.float64).shape == (4, 4)
        assert len(card['counts']) == 3 and math.prod(map(int, card['counts'])) == tensors[COUNTS].numel()
    except (AssertionError, KeyError, TypeError, ValueError):
        return 'its cameras or counts do not make sense'
    return ''


def encoded(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 RGB as the bytes of a JPEG."""
    done, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG])
    assert done, image.shape
    return torch.from_numpy(data.reshape(-1))


def decoded(data: Tensor) -> np.ndarray | None:
    """The bytes of a JPEG as (H, W, 3) uint8 RGB; None if they cannot be decoded."""
    if not 0 < data.numel() <= MAX_IMAGE:
        return None
    image = cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[..., ::-1])
