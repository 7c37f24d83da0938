"""Pairs of posed scenes with their target views for a training step. Letters as in batches.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.datasets.coverage import loss_mask
from gsemsplat_ros.datasets.sources import SceneSampler, SceneViews
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.supervision.features import Features, Supervision
from gsemsplat_ros.training.batches import Arrays, Batch, camera_row, context_images, context_surfaces, joined


@dataclass(frozen=True)
class SceneTarget:
    """A view to render: image (3, H, W) in [0, 1]; seen (H, W) bool: a context view sees this surface too;
    camera of (H, W) px; camera_from_first (4, 4) [m]; ids (H, W) int64: rows of `features` (M, C) counted
    from 1, 0 for none; context (h', w', C)."""

    image: Tensor
    seen: Tensor
    camera: Camera
    camera_from_first: np.ndarray
    ids: Tensor
    features: Tensor
    context: Tensor


@dataclass(frozen=True)
class SceneArrays(Arrays):
    """targets: of each pair."""

    targets: tuple[tuple[SceneTarget, ...], ...]


@dataclass(frozen=True)
class SceneBatch(Batch):
    """targets: of each pair."""

    targets: tuple[tuple[SceneTarget, ...], ...]


@dataclass(frozen=True)
class ScenePlan:
    """Pairs of one step for one process: the entropy of each draw, and the seeds of the losses."""

    draws: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class SceneLoader:
    """Loads pairs and the features of their targets; `dim`: C of the text space."""

    sampler: SceneSampler
    features: Features
    dim: int

    def __call__(self, plan: ScenePlan) -> SceneArrays:
        """Raises ValueError if features do not fit."""
        drawn = [self.sampler.draw(np.random.default_rng(draw)) for draw in plan.draws]
        return joined([self.arrays(views, seed) for views, seed in zip(drawn, plan.seeds)])

    def arrays(self, views: SceneViews, seed: int) -> SceneArrays:
        """One pair. Raises ValueError if the features of a target do not fit."""
        wanted = [self.features.load(frame.scene, frame.name) for frame in views.frames[2:]]
        for frame, supervision in zip(views.frames[2:], wanted):
            if (
                supervision.features.shape[1:] != (self.dim,)
                or supervision.ids.shape != frame.image.shape[:2]
            ):
                raise ValueError(
                    f'{self.features.path(frame.scene, frame.name)} does not fit '
                    f'{self.features.folder}: delete it and prepare again'
                )
        return scene_arrays(views, wanted, seed)


def scene_arrays(views: SceneViews, supervision: Sequence[Supervision], seed: int) -> SceneArrays:
    """A scene's views, with the supervision of each target, as one pair; `seed`: of its losses."""
    contexts, frames = views.frames[:2], views.frames[2:]
    geometries = [frame.geometry for frame in contexts]
    targets = tuple(
        SceneTarget(
            image=torch.from_numpy(frame.image).permute(2, 0, 1).float() / 255,
            seen=torch.from_numpy(loss_mask(frame.geometry, geometries)),
            camera=frame.geometry.camera,
            camera_from_first=np.linalg.inv(pose),
            ids=torch.from_numpy(wanted.ids.astype(np.int64)),
            features=torch.from_numpy(wanted.features),
            context=torch.from_numpy(wanted.context),
        )
        for frame, pose, wanted in zip(frames, views.first_from_camera[2:], supervision)
    )

    def stacked(values: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(values)[None])

    return SceneArrays(
        images=stacked([frame.image for frame in contexts]),
        depth=stacked([geometry.depth.astype(np.float32) for geometry in geometries]),
        cameras=stacked([camera_row(geometry.camera) for geometry in geometries]),
        poses=stacked(list(views.first_from_camera[:2].astype(np.float32))),
        seeds=torch.tensor([seed]),
        targets=(targets,),
    )


def scene_batch(parts: Sequence[SceneArrays], stride: int) -> SceneBatch:
    """The step of these pairs, on their device; `stride`: of the network's output."""
    arrays = joined(parts)
    points, valid, _ = context_surfaces(arrays, torch.zeros_like(arrays.depth), stride)
    return SceneBatch(context_images(arrays.images), points, valid, arrays.seeds, arrays.targets)
