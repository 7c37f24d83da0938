"""Samples of posed frames to tensors that the semantic training reads, and which pixels it may ask.

Letters: T target views, (H, W) image, (h, w) the network's output, C text space. Poses are OpenCV, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.datasets.frames import Geometry
from gsemsplat_ros.datasets.sources import SceneViews
from gsemsplat_ros.geometry.visibility import surface_points
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.supervision.features import Supervision
from gsemsplat_ros.training.batches import shrink

TOLERANCE = 0.1  # m: published, of the depth that a context view measured


@dataclass(frozen=True)
class Views:
    """One pair with its targets.

    images (2, 1, 3, H, W) in [-1, 1]; points (1, 2, h, w, 3) [m] in the first frame and valid (1, 2, h, w)
    bool, of the context views; of each target: image (3, H, W) in [0, 1], seen (H, W) bool: a context view
    sees the surface; ids (H, W) int64, rows of its features (M, C) counted from 1, 0 for nothing; context
    (h', w', C); cameras and target_from_first (4, 4).
    """

    images: Tensor
    points: Tensor
    valid: Tensor
    targets: tuple[Tensor, ...]
    seen: tuple[Tensor, ...]
    ids: tuple[Tensor, ...]
    features: tuple[Tensor, ...]
    context: tuple[Tensor, ...]
    cameras: list[Camera]
    target_from_first: list[np.ndarray]


def loss_mask(target: Geometry, contexts: list[Geometry]) -> np.ndarray:
    """(H, W) bool: the pixels of a target whose surface a context view sees; all else would teach what cannot
    be known.

    A pixel with depth is seen by a view where its point lies before the camera, falls into the picture, and
    is as far as the depth measured there, within 0.1 m (docs/published.md 37). All three must hold in one
    view: the published rule takes the picture of one and the depth of another, and points behind a camera.
    """
    points = surface_points(target.depth, target.camera, target.world_from_camera)
    mask = np.zeros(target.depth.shape, bool)
    for view in contexts:
        camera_from_world = np.linalg.inv(view.world_from_camera)
        local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        uv, in_front = view.camera.project(local, near=1e-6)
        inside = in_front & view.camera.in_image(uv)
        uv = np.where(inside[..., None], uv, 0).astype(np.float32)
        measured = cv2.remap(view.depth, uv, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask |= inside & (np.abs(local[..., 2] - measured) <= TOLERANCE + 1e-5 * np.abs(measured))
    return mask & (target.depth > 1e-6)


def collate(sample: SceneViews, supervision: list[Supervision], stride: int) -> Views:
    """A sample and what its targets are to say; `stride` of the network's output."""
    contexts, targets = sample.frames[:2], sample.frames[2:]
    poses = sample.first_from_camera
    points, valid = [], []
    for frame, pose in zip(contexts, poses):
        geometry = frame.geometry
        depth, camera = geometry.depth, geometry.camera
        if stride > 1:
            depth, _ = shrink(depth, np.zeros(depth.shape, np.int16), stride)
            camera = camera.resized(camera.width // stride, camera.height // stride)
        points.append(surface_points(depth, camera, pose))
        valid.append(depth > 0)
    geometries = [frame.geometry for frame in contexts]
    images = torch.from_numpy(np.stack([frame.image for frame in contexts]))
    return Views(
        images=(images.permute(0, 3, 1, 2).float() / 127.5 - 1)[:, None],
        points=torch.from_numpy(np.stack(points)).float()[None],
        valid=torch.from_numpy(np.stack(valid))[None],
        targets=tuple(torch.from_numpy(frame.image).permute(2, 0, 1).float() / 255 for frame in targets),
        seen=tuple(torch.from_numpy(loss_mask(frame.geometry, geometries)) for frame in targets),
        ids=tuple(torch.from_numpy(s.ids.astype(np.int64)) for s in supervision),
        features=tuple(torch.from_numpy(s.features) for s in supervision),
        context=tuple(torch.from_numpy(s.context) for s in supervision),
        cameras=[frame.geometry.camera for frame in targets],
        target_from_first=[np.linalg.inv(pose) for pose in poses[2:]],
    )
