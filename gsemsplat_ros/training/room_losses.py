"""The losses of the small network: points, names, and rendered new views.

Letters: B pairs, K names, C text space. Everything is in the frames of the first cameras.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render_views
from gsemsplat_ros.gaussians.render_plain import Rendering, render_windows
from gsemsplat_ros.network.config import CODE_DIM
from gsemsplat_ros.network.model import Prediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.training.batches import camera_of
from gsemsplat_ros.training.matching_loss import ANCHORS, at_pixels, matching_loss
from gsemsplat_ros.training.objective import (
    Objective,
    mean_where,
    on_true_points,
    pair_of,
    point_losses,
    predicted,
)
from gsemsplat_ros.training.random_numbers import pick, uniforms
from gsemsplat_ros.training.room_batches import RoomBatch, RoomTargets, Windows
from gsemsplat_ros.training.surfaces import intrinsics

TEMPERATURE = 0.1  # of the cosines: LERF's factor 10, as in the relevancy of queries
LABEL_PIXELS = 512  # pixels per view in the name loss
SMALL = 0.005  # share of the view: names that fill much more are sampled equally often
WINDOW = 32  # side of the windows of a target that the CPU renders [px]; a GPU renders all of it
WINDOWS = 2  # per pair, on the CPU
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
PLACES, NAMED, DRAWN_NAMED, MATCHED = range(4)  # streams of random numbers


class RoomObjective(Objective):
    """Steps without targets predict no Gaussians; their terms of renderings are NaN."""

    terms = ('total', *WEIGHTS)

    def predict(self, batch: RoomBatch) -> Prediction:
        draws = batch.targets is not None
        return self.model(*batch.images, descriptors=True, gaussians=draws, context=False)

    def losses(self, prediction: Prediction, batch: RoomBatch) -> dict[str, Tensor]:
        terms = {}
        terms['points'], terms['aligned'] = point_losses(prediction, batch)
        codes = torch.stack(
            [predicted(view.codes)[..., :CODE_DIM] for view in (prediction.first, prediction.second)], 1
        )  # (B, 2, h, w, 16)
        named, _ = name_losses(
            codes.flatten(2, 3).flatten(0, 1),
            batch.labels.flatten(2).flatten(0, 1),
            self.codec,
            batch.names,
            uniforms(batch.seeds, NAMED, 2 * LABEL_PIXELS).view(-1, LABEL_PIXELS),
        )
        terms['names'] = named.mean()
        first, second = (
            at_pixels(predicted(view.desc), batch.partner.shape[1:])
            for view in (prediction.first, prediction.second)
        )
        numbers = uniforms(batch.seeds, MATCHED, ANCHORS)
        terms['matching'] = matching_loss(first, second, batch.partner, numbers).mean()
        if batch.targets is not None:
            terms |= drawing_losses(prediction, batch, batch.targets, self.codec)
        zero = batch.images.new_zeros(())
        terms['total'] = sum((WEIGHTS[name] * value for name, value in terms.items()), zero)
        return dict.fromkeys(DRAWN, zero + torch.nan) | terms


def name_losses(
    codes: Tensor, labels: Tensor, decoders: Decoders, names: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (V,) over all `names` (K, C) of decoded region codes, small objects nearly as likely as
    walls; and whether a view has any name, (V,) bool, without which its loss is 0.

    codes (V, M, 16): of M pixels of V views; labels (V, M): rows of `names`, -1 for none; numbers (V, P):
    uniform, of the P pixels that are drawn.
    """
    known = labels >= 0
    counts = torch.zeros(len(labels), len(names), device=labels.device)
    counts.scatter_add_(1, labels.clamp(min=0), known.float())
    chances = known / (counts.gather(1, labels.clamp(min=0)) + SMALL * labels.shape[1])
    drawn = pick(chances, numbers)
    wanted = labels.gather(1, drawn)
    picked = codes.gather(1, drawn[..., None].expand(-1, -1, codes.shape[2]))  # (V, P, 16)
    features = decoders.language_decoder_sam(picked.transpose(1, 2)[..., None])[..., 0]  # (V, C, P)
    cosines = F.normalize(features, dim=1).transpose(1, 2) @ names.T  # (V, P, K)
    away = F.cross_entropy(cosines.transpose(1, 2) / TEMPERATURE, wanted.clamp(min=0), reduction='none')
    return mean_where(away, wanted >= 0)


def drawing_losses(
    prediction: Prediction, batch: RoomBatch, targets: RoomTargets, decoders: Decoders
) -> dict[str, Tensor]:
    """Colour, opacity and name losses of rendered targets, over surfaces seen by a context view; 0 where
    there are none."""
    windows, drawing = draw(on_true_points(prediction, batch), batch, targets)
    pairs, count = windows.labels.shape[:2]
    seen = windows.seen.flatten(0, 1)  # (V, y, x) of V = pairs * count windows
    differences = (drawing.rgb - windows.image).square().mean(-1).flatten(0, 1)
    colour, visible = mean_where(differences, seen)
    opacity, _ = mean_where(1 - drawing.alpha.flatten(0, 1), seen)
    labels = torch.where(seen, windows.labels.flatten(0, 1), -1).flatten(1)
    codes = drawing.codes[..., :CODE_DIM].flatten(2, 3).flatten(0, 1)
    numbers = uniforms(batch.seeds, DRAWN_NAMED, count * LABEL_PIXELS).view(-1, LABEL_PIXELS)
    named, _ = name_losses(codes, labels, decoders, batch.names, numbers)
    terms = zip(DRAWN, (colour, opacity, named))
    of_pair = visible.view(pairs, count)
    return {name: mean_where(values.view(pairs, count), of_pair)[0].mean() for name, values in terms}


def draw(prediction: Prediction, batch: RoomBatch, targets: RoomTargets) -> tuple[Windows, Rendering]:
    """Windows of the targets and their renderings (B, N, y, x, ...): of whole views on a GPU, all at once, of
    random places on the CPU, by the plain renderer."""
    height, width = targets.size
    if batch.images.device.type != 'cpu':
        origin = torch.zeros_like(batch.seeds)[:, None]
        Ks = intrinsics(targets.cameras)
        whole = render_views(prediction, Ks, targets.camera_from_first, height, width)
        maps = {name: tensor[:, None] for name, tensor in vars(whole).items()}
        return targets.windows(origin, origin, height, width), Rendering(**maps)
    places = uniforms(batch.seeds, PLACES, 2 * WINDOWS).view(-1, 2, WINDOWS)
    ys, xs = (places * places.new_tensor([height - WINDOW + 1, width - WINDOW + 1])[:, None]).long().unbind(1)
    drawings = [
        drawing
        for b in range(len(ys))
        for drawing in render_windows(
            Gaussians.from_prediction(pair_of(prediction, b), 'first'),
            camera_of(targets.cameras[b], height, width),
            targets.camera_from_first[b].numpy(),
            [(x, y, WINDOW, WINDOW) for y, x in zip(ys[b].tolist(), xs[b].tolist())],
        )
    ]
    maps = {
        name: torch.stack([getattr(drawing, name) for drawing in drawings]).unflatten(0, (-1, WINDOWS))
        for name in vars(drawings[0])
    }
    return targets.windows(ys, xs, WINDOW, WINDOW), Rendering(**maps)
