"""The losses of the small network: points, names, and rendered new views.

Letters: K names, C text space. Everything is in the frame of the first camera.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.gaussians.render_plain import render_windows
from gsemsplat_ros.network.config import CODE_DIM
from gsemsplat_ros.network.model import GSemSplat, Prediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.training.batches import RoomBatch
from gsemsplat_ros.training.matching_loss import ANCHORS, matching_loss
from gsemsplat_ros.training.objective import Objective, on_true_points, point_losses, predicted

TEMPERATURE = 0.1  # of the cosines: LERF's factor 10, as in the relevancy of queries
LABEL_PIXELS = 512  # pixels per view in the name loss
SMALL = 0.005  # share of the view: names that fill much more are sampled equally often
WINDOW = 32  # side of the rendered windows [px]
WINDOWS = 2  # per pair, in its target view
WEIGHTS = {
    'points': 2.0,
    'aligned': 0.5,
    'names': 0.5,
    'matching': 0.1,
    'colour': 4.0,
    'opacity': 0.1,
    'drawn_names': 0.25,
}
DRAWN = 'colour', 'opacity', 'drawn_names'  # terms of renderings


class RoomObjective(Objective):
    """draws: whether Gaussians are predicted and rendered in this step; if not, their terms are NaN."""

    terms = ('total', *WEIGHTS)

    def __init__(self, model: GSemSplat, decoders: Decoders):
        super().__init__(model, decoders)
        self.draws = True

    def predict(self, images: Tensor) -> Prediction:
        return self.model(*images, descriptors=True, gaussians=self.draws, context=False)

    def losses(
        self, prediction: Prediction, batch: RoomBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        terms = {}
        terms['points'], terms['aligned'] = point_losses(prediction, batch)
        named = [
            name_loss(
                predicted(view.codes)[0, ..., :CODE_DIM].flatten(0, 1),
                batch.labels[0, i].flatten(),
                self.codec,
                batch.names,
                generator,
            )
            for i, view in enumerate((prediction.first, prediction.second))
        ]
        terms['names'] = torch.stack(named).mean()
        first, second = predicted(prediction.first.desc), predicted(prediction.second.desc)
        uniform = torch.rand(1, ANCHORS, generator=generator).to(first.device)
        terms['matching'] = matching_loss(first, second, batch.partner, uniform).mean()
        if self.draws:
            terms |= drawing_losses(prediction, batch, self.codec, generator)
        zero = batch.images.new_zeros(())
        terms['total'] = sum((WEIGHTS[name] * value for name, value in terms.items()), zero)
        return terms if self.draws else terms | dict.fromkeys(DRAWN, zero + torch.nan)


def name_loss(
    codes: Tensor, labels: Tensor, decoders: Decoders, names: Tensor, generator: torch.Generator
) -> Tensor:
    """Cross-entropy over all `names` (K, C) of decoded region codes, small objects nearly as likely as walls.

    codes (M, 16): of M pixels of one view; labels (M,): rows of `names`, -1 for none.
    """
    counts = torch.bincount(labels.clamp(min=0), minlength=len(names)).float()
    chance = torch.where(labels >= 0, 1 / (counts[labels] + SMALL * len(labels)), 0.0)
    if not chance.sum() > 0:
        return codes.sum() * 0
    drawn = torch.multinomial(chance.cpu(), LABEL_PIXELS, replacement=True, generator=generator).to(
        chance.device
    )
    features = decoders.language_decoder_sam(codes[drawn].T[None, :, :, None])[0, :, :, 0].T  # (M', C)
    return F.cross_entropy(F.normalize(features, dim=1) @ names.T / TEMPERATURE, labels[drawn])


def drawing_losses(
    prediction: Prediction, batch: RoomBatch, decoders: Decoders, generator: torch.Generator
) -> dict[str, Tensor]:
    """Colour, opacity and name losses in random windows of the target, over surfaces seen by a context view.

    Empty if there are none.
    """
    target = batch.target
    height, width = target.seen.shape
    ys = torch.randint(0, height - WINDOW + 1, (WINDOWS,), generator=generator).tolist()
    xs = torch.randint(0, width - WINDOW + 1, (WINDOWS,), generator=generator).tolist()
    windows = [(x, y, WINDOW, WINDOW) for x, y in zip(xs, ys)]
    gaussians = on_true_points(prediction, batch)
    drawings = render_windows(gaussians, target.camera, target.camera_from_first, windows)
    terms: dict[str, list[Tensor]] = {name: [] for name in DRAWN}
    for x, y, drawing in zip(xs, ys, drawings):
        part = (..., slice(y, y + WINDOW), slice(x, x + WINDOW))
        seen = target.seen[part]
        if not seen.any():
            continue
        true = target.image[part].permute(1, 2, 0)
        codes = drawing.codes[..., :CODE_DIM].flatten(0, 1)
        labels = torch.where(seen, target.labels[part], -1).flatten()
        terms['colour'].append((drawing.rgb - true)[seen].square().mean())
        terms['opacity'].append((1 - drawing.alpha)[seen].mean())
        terms['drawn_names'].append(name_loss(codes, labels, decoders, batch.names, generator))
    return {name: torch.stack(values).mean() for name, values in terms.items() if values}
