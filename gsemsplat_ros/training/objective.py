"""The objective that both trainings extend: point losses, and Gaussians moved onto the true points.

Letters: (h, w) network output. Everything is in the frame of the first camera.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gsemsplat_ros.network.inference import has_bfloat16
from gsemsplat_ros.network.model import GSemSplat, Prediction, ViewPrediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.training.batches import Batch

CONF_ALPHA = 0.2  # weight of the log-confidence term (DUSt3R)
MAX_CONF = 20.0  # optimal at an error of 1 %; higher, one outlier could ruin the heads


class Objective(nn.Module, ABC):
    """Network, decoders and losses as one module: from the pairs of a step to the loss.

    terms: names of the returned means; the first, 'total', is minimised. The decoders are called `codec` in
    the states of runs.
    """

    terms: tuple[str, ...]

    def __init__(self, model: GSemSplat, decoders: Decoders):
        super().__init__()
        self.model, self.codec = model, decoders

    def forward(self, batch: Any) -> Tensor:
        """The mean of every term over the pairs, (len(terms),); a term that a pair lacks counts as 0.

        Each pair has its own random numbers, so its losses do not depend on the process.
        """
        with fast_type(batch.images.device):
            prediction = self.predict(batch)
        terms = self.losses(prediction, batch)
        return torch.stack([terms[name] for name in self.terms])

    @abstractmethod
    def predict(self, batch: Any) -> Prediction:
        """The network's prediction for a batch."""

    @abstractmethod
    def losses(self, prediction: Prediction, batch: Any) -> dict[str, Tensor]:
        """The unweighted terms, means over the pairs, and 'total', their weighted sum."""


def fast_type(device: torch.device) -> AbstractContextManager[None]:
    """Inside, the network runs in bfloat16 where the device has units for it, else in float32."""
    return torch.autocast(device.type, torch.bfloat16) if has_bfloat16(device) else nullcontext()


def pair_of(prediction: Prediction, b: int) -> Prediction:
    """Pair `b` of a batch, as a batch of one."""

    def one(view: ViewPrediction) -> ViewPrediction:
        tensors = {name: tensor[b : b + 1] for name, tensor in vars(view).items() if tensor is not None}
        return replace(view, **tensors)

    return Prediction(one(prediction.first), one(prediction.second))


def predicted(tensor: Tensor | None) -> Tensor:
    """`tensor`, which not every network predicts, from one that does."""
    assert tensor is not None, 'a network without Gaussians or codes'
    return tensor


def mean_where(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Means (V,) of `values` (V, ...) where `mask` (V, ...) holds, 0 where it never does; and whether it does
    anywhere, (V,) bool."""
    count = mask.flatten(1).sum(1)
    total = torch.where(mask, values, 0).flatten(1).sum(1)
    return total / count.clamp(min=1), count > 0


def point_losses(prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
    """Confidence-weighted relative point error, and the unweighted error after a pair's median scale.

    Errors enter as log(1 + e), because the network's distances are exponentials and a far outlier would ruin
    the step. Confidence weighs the metric error only: weighing the scale-free error would let the scale drift
    until the exponentials overflow.
    """
    views = prediction.first, prediction.second
    points = torch.stack([view.pts3d for view in views], 1)  # (B, 2, h, w, 3)
    conf = torch.stack([view.conf for view in views], 1).clamp(max=MAX_CONF)  # (B, 2, h, w)
    target, valid = batch.points, batch.valid
    distance = target.norm(dim=-1).clamp(min=0.1)
    with torch.no_grad():
        ratio = torch.where(valid, distance / points.norm(dim=-1).clamp(min=1e-3), torch.nan)
        scale = ratio.flatten(1).nanmedian(1).values.clamp(0.2, 5)
    aligned = ((scale[:, None, None, None, None] * points - target).norm(dim=-1) / distance).log1p()
    metric = ((points - target).norm(dim=-1) / distance).log1p()
    confident = conf * metric - CONF_ALPHA * conf.log()
    return mean_where(confident, valid)[0].mean(), mean_where(aligned, valid)[0].mean()


def on_true_points(prediction: Prediction, batch: Batch) -> Prediction:
    """The Gaussians of pairs moved onto the true points, offsets kept; transparent if those are unknown.

    On true geometry, wrong depths do not blur the learnt sizes, opacities, colours and codes.
    """
    moved = [
        replace(
            view,
            means=predicted(view.means) - view.pts3d.detach() + batch.points[:, i],
            opacities=predicted(view.opacities) * batch.valid[:, i],
        )
        for i, view in enumerate((prediction.first, prediction.second))
    ]
    return Prediction(moved[0], moved[1])
