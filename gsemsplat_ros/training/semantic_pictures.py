"""What a network in semantic training does with one pair, for the eye."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.datasets.sources import SceneViews
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.training.losses import on_true_points
from gsemsplat_ros.training.semantic_batches import Views
from gsemsplat_ros.training.semantic_losses import context_at

SPREAD = 2.5  # standard deviations from the mean colour to black or white


def colours(wanted: Tensor, found: Tensor, known: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Two maps of features (H, W, C) to RGB by the main directions of the first, where it is `known` (H,
    W).
    """
    rows = F.normalize(wanted[known], dim=-1)
    if not len(rows):
        return (np.zeros((*known.shape, 3), np.uint8),) * 2
    mean = rows.mean(0)
    axes = torch.linalg.svd(rows[:: max(1, len(rows) // 4096)] - mean, full_matrices=False).Vh[:3]
    axes = F.pad(axes, (0, 0, 0, 3 - len(axes)))
    spread = ((rows - mean) @ axes.T).std(0).clamp(min=1e-3) * 2 * SPREAD

    def rgb(features: Tensor) -> np.ndarray:
        x = ((F.normalize(features, dim=-1) - mean) @ axes.T / spread + 0.5).clamp(0, 1)
        return (255 * x * known[..., None]).byte().cpu().numpy()

    return rgb(wanted), rgb(found)


@torch.no_grad()
def pictures(model: GSemSplat, decoders: Decoders, sample: SceneViews, views: Views) -> np.ndarray:
    """(2 H, 4 W, 3) uint8 RGB of a sample and its batch.

    Above: both context views, the first target, the same as the network draws it. Below: region-specific and
    context-aware features of the target in main colours, each as it should be and as it is drawn; black is
    what no loss asks for.
    """
    with torch.autocast(views.images.device.type, dtype=torch.bfloat16):
        prediction = model(*views.images)
    gaussians = (
        on_true_points(prediction, views, 0)
        if model.config.stem
        else Gaussians.from_prediction(prediction, 'first')
    )
    drawing = render(gaussians, views.cameras[0], views.target_from_first[0])
    region, context = decoders.decode(drawing.codes)  # (H, W, C) each
    seen, ids, features = views.seen[0], views.ids[0], views.features[0]
    table = torch.cat((features.new_zeros(1, context.shape[-1]), features))
    v, u = torch.meshgrid(*(torch.arange(n, device=ids.device) for n in ids.shape), indexing='ij')
    true_context = context_at(views.context[0], v.flatten(), u.flatten(), *ids.shape).unflatten(0, ids.shape)
    drawn = drawing.rgb.clamp(0, 1).mul(255).byte().cpu().numpy()
    above = [*(frame.image for frame in sample.frames[:3]), drawn]
    below = [*colours(table[ids], region, seen & (ids > 0)), *colours(true_context, context, seen)]
    height, width = drawn.shape[:2]
    return np.vstack(
        [np.hstack([cv2.resize(picture, (width, height)) for picture in row]) for row in (above, below)]
    )
