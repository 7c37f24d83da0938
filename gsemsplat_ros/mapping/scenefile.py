"""Scenes of one pair on disk: one safetensors file that answers words again exactly as the pair did, and shows its images.

Its Gaussians are kept as they are, one for each pixel of both images; a map (mapfile.py) merges them by voxel. What
queries read is drawn again from them when the file is loaded. A file appears whole or not at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.mapping.mapfile import CodeSpace, fingerprint, write_whole
from gsemsplat_ros.mapping.scene import Keyframe, Scene
from gsemsplat_ros.semantics.codec import Codec
from gsemsplat_ros.views.view import Camera, Window

CARD_KEY = 'gsemsplat_scene'
VERSION = 1
JPEG = 92                  # quality of the images: they are shown, not measured
MAX_IMAGE = 1 << 26        # bytes of a file's image
DTYPES = {'means': torch.float32, 'quats': torch.float16, 'log_scales': torch.float16, 'opacities': torch.float16,
          'colors': torch.float16, 'codes': torch.float16, 'image': torch.uint8, 'second_image': torch.uint8}


def save_scene(path: str | Path, scene: Scene, second_image: np.ndarray, space: CodeSpace) -> None:
    """Write `scene` and the pair's `second_image` (H, W, 3) uint8 RGB. Raises ValueError when the disk will not."""
    gaussians, keyframe = scene.gaussians.to('cpu'), scene.keyframe
    tensors = {'means': gaussians.means, 'quats': gaussians.quats,
               'log_scales': gaussians.scales.clamp(min=torch.finfo(torch.float32).tiny).log(),
               'opacities': gaussians.opacities, 'colors': gaussians.colors, 'codes': gaussians.codes,
               'image': encoded(keyframe.image), 'second_image': encoded(second_image)}
    tensors = {name: tensor.detach().to(DTYPES[name]).contiguous() for name, tensor in tensors.items()}
    pose = scene.first_from_second
    card = {'version': VERSION, 'frame': gaussians.frame, 'camera': asdict(keyframe.camera),
            'window': asdict(keyframe.window), 'stamp_ns': int(keyframe.stamp_ns),
            'first_from_second': None if pose is None else np.asarray(pose, np.float64).tolist(),
            'scale': float(scene.scale), 'scale_source': scene.scale_source, 'inliers': int(scene.inliers),
            'points': int(scene.points), 'timings': {name: float(s) for name, s in scene.timings.items()}, **asdict(space)}
    card['sha256'] = fingerprint(card, tensors)
    try:
        write_whole(Path(path), save(tensors, {CARD_KEY: json.dumps(card)}))
    except OSError as error:
        raise ValueError(f'cannot write the scene {path} ({error.strerror or error}): is there space, and may this user '
                         'write there?') from None


def load_scene(path: str | Path, space: CodeSpace, codec: Codec, negatives: np.ndarray) -> tuple[Scene, np.ndarray]:
    """The scene at `path` and the pair's second image (H, W, 3) uint8 RGB.

    `codec`, `negatives` and `space`: of the pipeline that will be asked. Raises ValueError, in one line, for a file that is
    missing, damaged or none of ours, and for one whose codes other decoders read.
    """
    gaussians, card, image, second = read_scene(path)
    theirs = [card['text_encoder'], card['decoders']]
    if theirs != [space.text_encoder, space.decoders]:
        raise ValueError(f"{path} was made with {card['weights']} ({card['text_encoder']}), whose decoders are not those of "
                         f'{space.weights} ({space.text_encoder}): give that checkpoint as --weights')
    camera, window = Camera(**card['camera']), Window(**card['window'])
    device = next(codec.parameters()).device
    gaussians = gaussians.to(device)
    rendering = render(gaussians, camera, np.eye(4))
    keyframe = Keyframe(camera, rendering, codec.prepare(rendering.codes, negatives), image, window, card['frame'],
                        card['stamp_ns'])
    pose = card['first_from_second']
    scene = Scene(gaussians, keyframe, None if pose is None else np.array(pose), card['scale'], card['scale_source'],
                  card['inliers'], card['points'], card['timings'])
    return scene, second


def read_scene(path: str | Path) -> tuple[Gaussians, dict, np.ndarray, np.ndarray]:
    """What the file holds, without a pipeline: Gaussians on the CPU, its card, both images (H, W, 3) uint8 RGB.

    Raises ValueError in one line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no scene at {path}: give a file that `gsemsplat infer` wrote')
    try:
        with safe_open(path, 'pt') as file:
            card = json.loads((file.metadata() or {})[CARD_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no scene, or only a part of one ({type(error).__name__}): give a file that `gsemsplat '
                         'infer` wrote') from None
    if not isinstance(card, dict) or card.get('version') != VERSION:
        version = card.get('version') if isinstance(card, dict) else None
        raise ValueError(f'{path} is a scene of version {version}, wanted {VERSION}: use the release that wrote it')
    images = {}
    problem = defect(card, tensors) or next(
        (f'{name} is no picture' for name in ('image', 'second_image')
         if images.setdefault(name, decoded(tensors[name])) is None), '')
    if problem:
        raise ValueError(f'{path} is damaged: {problem}; run `gsemsplat infer` again')
    values = {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}
    gaussians = Gaussians(values['means'], torch.nn.functional.normalize(values['quats'], dim=1), values['log_scales'].exp(),
                          values['opacities'], values['colors'], values['codes'], card['frame'])
    return gaussians, card, images['image'], images['second_image']


def defect(card: dict, tensors: dict[str, Tensor]) -> str:
    """What is wrong with a scene's parts, in words; '' when nothing is."""
    kinds = {'frame': str, 'stamp_ns': int, 'scale': float, 'scale_source': str, 'inliers': int, 'points': int,
             'timings': dict, 'weights': str, 'text_encoder': str, 'decoders': str}
    wrong = [name for name, kind in kinds.items() if not isinstance(card.get(name), kind)]
    if wrong:
        return f'its card lacks {wrong[0]}'
    if tensors.keys() != DTYPES.keys():
        return f'its tensors are {sorted(tensors)}, wanted {sorted(DTYPES)}'
    count = len(tensors['means']) if tensors['means'].ndim else 0
    shapes = {'means': (count, 3), 'quats': (count, 4), 'log_scales': (count, 3), 'opacities': (count,),
              'colors': (count, 3), 'codes': (count, 32)}
    for name, tensor in tensors.items():
        shape = shapes.get(name, (tensor.numel(),))
        if tensor.dtype != DTYPES[name] or tuple(tensor.shape) != shape:
            return f'{name} is {tensor.dtype} {tuple(tensor.shape)}, wanted {DTYPES[name]} {shape}'
        if name in ('means', 'quats', 'codes') and not torch.isfinite(tensor).all():
            return f'{name} holds numbers that are not finite'
    if card.get('sha256') != fingerprint(card, tensors):
        return 'its contents are not those that were saved'
    try:
        Camera(**card['camera']), Window(**card['window'])
        pose = card['first_from_second']
        assert pose is None or np.array(pose, np.float64).shape == (4, 4)
    except (AssertionError, KeyError, TypeError, ValueError):
        return 'its cameras do not make sense'
    return ''


def encoded(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 RGB as the bytes of a JPEG."""
    done, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG])
    assert done, image.shape
    return torch.from_numpy(data.reshape(-1))


def decoded(data: Tensor) -> np.ndarray | None:
    """The bytes of a JPEG as (H, W, 3) uint8 RGB; None: they are none."""
    if not 0 < data.numel() <= MAX_IMAGE:
        return None
    image = cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[..., ::-1])
