"""Pairs of packed rooms for a training step: what the loading processes do, and the rest on the device.

Letters as in batches.py; N windows of a target, (y, x) their sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.datasets.packed_rooms import VIEWS, PackedRoom
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.training.batches import (
    Arrays,
    Batch,
    camera_row,
    context_images,
    context_surfaces,
    joined,
    output_cameras,
)
from gsemsplat_ros.training.matching_loss import partners
from gsemsplat_ros.training.surfaces import inverse, moved, seen_by, unproject


@dataclass(frozen=True)
class RoomArrays(Arrays):
    """labels (B, V, H, W) int16: rows of the step's names, -1 for none; names (K,) int64: the phrases of the
    step, rows of the embeddings. V is 3 in steps that draw the target, else 2."""

    labels: Tensor
    names: Tensor = field(metadata={'shared': True})


@dataclass(frozen=True)
class PairPlan:
    """One pair to load: its room and number in it; whether it is reversed, if it is no stereo pair, and
    mirrored; the seed of its losses."""

    room: PackedRoom
    number: int
    reverse: bool
    mirror: bool
    seed: int


@dataclass(frozen=True)
class RoomPlan:
    """Pairs of one step for one process: the step's phrases as rows of the embeddings (K,) int64, and the row
    among these of each name; draws: whether the target is needed."""

    pairs: tuple[PairPlan, ...]
    phrases: np.ndarray
    rows: dict[str, int]
    draws: bool


@dataclass(frozen=True)
class Windows:
    """Parts of the targets: image (B, N, y, x, 3) in [0, 1]; labels (B, N, y, x); seen (B, N, y, x) bool: a
    context view sees this surface too."""

    image: Tensor
    labels: Tensor
    seen: Tensor


@dataclass(frozen=True)
class RoomTargets:
    """A view of each pair to draw, with the context views that see parts of it: images (B, H, W, 3) uint8;
    labels (B, H, W); depth (B, 3, H, W) [m]; cameras (B, 4) of all three; first_from_camera (B, 3, 4, 4)."""

    images: Tensor
    labels: Tensor
    depth: Tensor
    cameras: Tensor
    first_from_camera: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the views."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def camera_from_first(self) -> Tensor:
        """Poses of the targets (B, 4, 4)."""
        return inverse(self.first_from_camera[:, 2])

    def windows(self, ys: Tensor, xs: Tensor, height: int, width: int) -> Windows:
        """The windows of (`height`, `width`) px whose first pixels are at `ys` and `xs` (B, N) int64."""
        device, shape = ys.device, (*ys.shape, height, width)
        v = ys[..., None, None] + torch.arange(height, device=device)[:, None]
        u = xs[..., None, None] + torch.arange(width, device=device)
        v, u = (place.expand(shape).flatten(1) for place in (v, u))  # (B, M)
        index = v * self.size[1] + u

        def read(maps: Tensor) -> Tensor:  # (B, H, W) -> (B, M)
            return maps.flatten(1).gather(1, index)

        depth = read(self.depth[:, 2])
        points = moved(unproject(depth, v, u, self.cameras), self.first_from_camera[:, 2])
        seen = [
            seen_by(points, self.depth[:, i], self.cameras, inverse(self.first_from_camera[:, i]))
            for i in range(2)
        ]
        image = torch.stack([read(self.images[..., c]) for c in range(3)], -1).float() / 255
        labels, visible = read(self.labels), (seen[0] | seen[1]) & (depth > 0)
        return Windows(image.unflatten(1, shape[1:]), labels.view(shape), visible.view(shape))


@dataclass(frozen=True)
class RoomBatch(Batch):
    """labels (B, 2, h, w) int64: rows of `names` (K, C), -1 for none; partner (B, h, w): pixel of the second
    view that shows the same point as one of the first (matching_loss.partners); targets: None in steps that
    do not draw."""

    labels: Tensor
    names: Tensor
    partner: Tensor
    targets: RoomTargets | None


def load_rooms(plan: RoomPlan) -> RoomArrays:
    """The pairs of a plan. Raises ValueError for damaged files and rooms of several sizes."""
    parts = []
    for pair in plan.pairs:
        sample = pair.room.sample(pair.number, VIEWS if plan.draws else 2)
        if pair.reverse and not sample.stereo:
            sample = sample.reversed()
        if pair.mirror:
            sample = sample.mirrored()
        parts.append(room_arrays(sample, plan.rows, plan.phrases, pair.seed))
    return joined(parts)


def room_arrays(sample: Sample, rows: dict[str, int], phrases: np.ndarray, seed: int) -> RoomArrays:
    """A sample as one pair; `rows`: name -> row of `phrases` (K,); `seed`: of its losses."""
    table = np.array([-1, *(rows[name] for name in sample.names[1:])], np.int16)
    cameras = np.repeat(camera_row(sample.camera)[None], len(sample.images), 0)
    return RoomArrays(
        images=torch.from_numpy(sample.images)[None],
        depth=torch.from_numpy(sample.depth)[None],
        cameras=torch.from_numpy(cameras)[None],
        poses=torch.from_numpy(sample.first_from_camera.astype(np.float32))[None],
        seeds=torch.tensor([seed]),
        labels=torch.from_numpy(table[sample.instance])[None],
        names=torch.from_numpy(phrases),
    )


def room_batch(parts: Sequence[RoomArrays], embeddings: Tensor, stride: int) -> RoomBatch:
    """The step of these pairs, on their device; `embeddings` (M, C) of all phrases; `stride`: of the
    network's output. Raises ValueError for pairs of several sizes."""
    arrays = joined(parts)
    points, valid, labels = context_surfaces(arrays, arrays.labels, stride)
    targets = None
    if arrays.images.shape[1] == VIEWS:
        targets = RoomTargets(
            arrays.images[:, 2], arrays.labels[:, 2].long(), arrays.depth, arrays.cameras[:, 2], arrays.poses
        )
    names = embeddings.index_select(0, arrays.names)
    partner = partners(points, valid, output_cameras(arrays, stride)[:, 1], inverse(arrays.poses[:, 1]))
    images = context_images(arrays.images)
    return RoomBatch(images, points, valid, arrays.seeds, labels.long(), names, partner, targets)
