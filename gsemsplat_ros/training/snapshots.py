"""Pictures of the predictions for one pair, for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.datasets.sources import SceneViews
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import Rendering, render
from gsemsplat_ros.network.config import CODE_DIM
from gsemsplat_ros.pictures.labels import name_map
from gsemsplat_ros.pictures.overlay import ROOM, depth_picture
from gsemsplat_ros.pictures.principal import Principal
from gsemsplat_ros.training.objective import fast_type, predicted
from gsemsplat_ros.training.room_batches import RoomBatch
from gsemsplat_ros.training.room_losses import RoomObjective
from gsemsplat_ros.training.scene_batches import SceneBatch
from gsemsplat_ros.training.semantic_losses import SemanticObjective, context_at


@torch.no_grad()
def room_snapshot(
    objective: RoomObjective, sample: Sample, batch: RoomBatch, rows: dict[str, int]
) -> np.ndarray:
    """(2 H, 4 W, 3) uint8 RGB of a sample and its batch; `rows`: name -> row of the batch's `names`.

    Above: first and second view, target, rendered target. Below, for the first view: true and predicted
    depth, true and predicted names, predicted among the names in the view.
    """
    with fast_type(batch.images.device):
        prediction = objective.model(*batch.images, context=False)
    view = prediction.first
    gaussians = Gaussians.from_prediction(prediction, 'first').to('cpu')
    drawing = render(gaussians, sample.camera, np.linalg.inv(sample.first_from_camera[2]))
    names = ['', *sorted({sample.names[i] for i in np.unique(sample.instance[0]) if i})]
    true = np.array([names.index(name) if i and name in names else 0 for i, name in enumerate(sample.names)])
    features = objective.codec.language_decoder_sam(
        predicted(view.codes)[..., :CODE_DIM].permute(0, 3, 1, 2)
    )[0]  # (C, h, w)
    phrases = batch.names[[rows[name] for name in names[1:]]]
    found = 1 + torch.einsum('kc,chw->khw', phrases, F.normalize(features, dim=0)).argmax(0)
    depth = view.pts3d[0, ..., 2].float().cpu().numpy()
    below = [
        depth_picture(sample.depth[0], ROOM)[0],
        depth_picture(depth, ROOM)[0],
        name_map(true[sample.instance[0]], names),
        name_map(full(found.cpu().numpy(), sample.instance.shape[1:]), names),
    ]
    return sheet([*sample.images, rgb_picture(drawing)], below)


@torch.no_grad()
def scene_snapshot(objective: SemanticObjective, views: SceneViews, batch: SceneBatch) -> np.ndarray:
    """(2 H, 4 W, 3) uint8 RGB of a pair with its targets and their batch.

    Above: both context views, first target, rendered target. Below: wanted and rendered region-specific
    features of the target, then context-aware ones, by principal components; pixels without a loss are black.
    """
    with fast_type(batch.images.device):
        prediction = objective.model(*batch.images)
    [(target, *_)] = batch.targets
    gaussians = Gaussians.from_prediction(objective.gaussians(prediction, batch), 'first')
    drawing = render(gaussians, target.camera, target.camera_from_first)
    region, context = objective.codec.decode(drawing.codes)  # (H, W, C) each
    table = torch.cat((target.features.new_zeros(1, context.shape[-1]), target.features))
    height, width = target.ids.shape
    v, u = torch.meshgrid(*(torch.arange(n, device=context.device) for n in (height, width)), indexing='ij')
    true_context = context_at(target.context, v.flatten(), u.flatten(), height, width)
    below = [
        *feature_pictures(table[target.ids], region, target.seen & (target.ids > 0)),
        *feature_pictures(true_context.unflatten(0, (height, width)), context, target.seen),
    ]
    return sheet([*(frame.image for frame in views.frames[:3]), rgb_picture(drawing)], below)


def rgb_picture(drawing: Rendering) -> np.ndarray:
    """(H, W, 3) uint8."""
    return drawing.rgb.clamp(0, 1).mul(255).byte().cpu().numpy()


def feature_pictures(wanted: Tensor, found: Tensor, known: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Two feature maps (H, W, C) as RGB by the first's principal components, black unless `known` (H, W)."""
    if not known.any():
        black = np.zeros((*known.shape, 3), np.uint8)
        return black, black
    principal = Principal.fit(F.normalize(wanted[known], dim=-1).cpu().numpy())
    components = torch.as_tensor(principal.components).to(wanted)

    def picture(features: Tensor) -> np.ndarray:
        colors = principal.colors((F.normalize(features, dim=-1) @ components.T).cpu().numpy())
        return (255 * colors * known[..., None].cpu().numpy()).astype(np.uint8)

    return picture(wanted), picture(found)


def sheet(above: Sequence[np.ndarray], below: Sequence[np.ndarray]) -> np.ndarray:
    """Two rows of pictures (H, W, 3) uint8, all resized to the first one."""
    size = above[0].shape[:2]
    return np.vstack([np.hstack([full(picture, size) for picture in row]) for row in (above, below)])


def full(small: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize a picture or a map of ids (h, w, ...) to `size` (H, W), nearest neighbour."""
    kind = small.dtype
    large = cv2.resize(small.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return large.astype(kind)
