"""What a network in training sees in one pair, for the eye."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.pictures.labels import name_map
from gsemsplat_ros.pictures.overlay import depth_colors
from gsemsplat_ros.semantics.decoder import CODE, Decoders
from gsemsplat_ros.training.batches import Batch


@torch.no_grad()
def pictures(
    model: GSemSplat, decoders: Decoders, sample: Sample, pair: Batch, rows: dict[str, int]
) -> np.ndarray:
    """(2 H, 4 W, 3) uint8 RGB of a sample and its batch of one; `rows`: name -> row of the batch's table of
    phrases.

    Above: first and second view, the new view, the new view as the network's Gaussians draw it. Below: depth
    and names of the first view, each beside what the network says; it chooses among the names that are there.
    """
    with torch.autocast(pair.images.device.type, dtype=torch.bfloat16):
        prediction = model(*pair.images)
    view = prediction.first
    gaussians = Gaussians.from_prediction(prediction, 'first').to('cpu')
    drawn = (
        render(gaussians, pair.cameras[0], pair.target_from_first[0]).rgb.clamp(0, 1).mul(255).byte().numpy()
    )

    names = ['', *sorted({sample.names[i] for i in np.unique(sample.instance[0]) if i})]
    true = np.array([names.index(name) if i and name in names else 0 for i, name in enumerate(sample.names)])
    features = decoders.language_decoder_sam(view.codes[..., :CODE].permute(0, 3, 1, 2))[0]  # (C, h, w)
    phrases = pair.names[[rows[name] for name in names[1:]]]
    found = 1 + torch.einsum('kc,chw->khw', phrases, F.normalize(features, dim=0)).argmax(0)

    def full(small: np.ndarray) -> np.ndarray:  # (h, w, ...) to (H, W, ...)
        return cv2.resize(small, drawn.shape[1::-1], interpolation=cv2.INTER_NEAREST)

    above = [*sample.images, drawn]
    below = [
        depth_colors(sample.depth[0]),
        full(depth_colors(view.pts3d[0, ..., 2].float().cpu().numpy())),
        name_map(true[sample.instance[0]], names),
        name_map(full(found.cpu().numpy().astype(np.uint8)).astype(int), names),
    ]
    return np.vstack([np.hstack(above), np.hstack(below)])
