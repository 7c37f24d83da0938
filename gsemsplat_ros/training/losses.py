"""What the small network is taught: points, names of things, and Gaussians that draw the next view.

Letters: B pairs, (H, W) image, (h, w) the network's output, K names. Everything in the frame of the first
camera.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render_plain import render_windows
from gsemsplat_ros.network.model import Prediction, ViewPrediction
from gsemsplat_ros.semantics.decoder import CODE, Decoders
from gsemsplat_ros.training.batches import Batch

CONF_ALPHA = 0.2  # weight of the log-confidence term (DUSt3R)
MAX_CONF = 20.0  # an error of 1 % asks for this much; more would let one surprise throw the heads
TEMPERATURE = 0.1  # of the cosines: LERF's factor 10, so what is learnt is what relevancy reads
LABEL_PIXELS = 512  # pixels of each view whose name is asked for
SMALL = 0.005  # of the view: what fills more is asked for as often as all else, for a name counts as a name
WINDOW = 32  # side of the drawn windows [px]
WINDOWS = 2  # of the target view of every pair
WEIGHTS = {'points': 2.0, 'aligned': 0.5, 'names': 0.5, 'colour': 4.0, 'opacity': 0.1, 'drawn_names': 0.25}
DRAWN = 'colour', 'opacity', 'drawn_names'  # terms of drawings, which a prediction without Gaussians lacks


def point_losses(points: Tensor, conf: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Relative metric point error with confidence, and the plain one after the median scale of each pair.

    points (B, 2, h, w, 3), conf (B, 2, h, w). Errors enter as log(1 + e): the network's distances are
    exponentials, and a far outlier would else throw the whole step. Confidence weighs the metric error alone:
    an error that ignores scale, weighed up, lets the scale drift until exponentials overflow.
    """
    target, valid = batch.points, batch.valid
    distance = target.norm(dim=-1).clamp(min=0.1)
    with torch.no_grad():
        ratio = torch.where(valid, distance / points.norm(dim=-1).clamp(min=1e-3), torch.nan)
        scale = ratio.flatten(1).nanmedian(1).values.clamp(0.2, 5)
    aligned = ((scale[:, None, None, None, None] * points - target).norm(dim=-1) / distance).log1p()
    metric = ((points - target).norm(dim=-1) / distance).log1p()
    conf = conf.clamp(max=MAX_CONF)
    confident = conf * metric - CONF_ALPHA * conf.log()
    count = valid.sum().clamp(min=1)
    return (confident * valid).sum() / count, (aligned * valid).sum() / count


def name_loss(
    codes: Tensor, labels: Tensor, decoders: Decoders, names: Tensor, generator: torch.Generator
) -> Tensor:
    """Cross-entropy of the region code's decoded feature among all `names` (K, C), small things nearly as
    likely as walls.

    codes (M, 16) of M pixels of one view, labels (M,) rows of `names`, -1 for nothing.
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


def item(prediction: Prediction, b: int) -> Prediction:
    """Pair `b` of a batch, as a batch of one."""

    def one(view: ViewPrediction) -> ViewPrediction:
        return ViewPrediction(
            **{f.name: None if (t := getattr(view, f.name)) is None else t[b : b + 1] for f in fields(view)}
        )

    return Prediction(one(prediction.first), one(prediction.second))


def on_true_points(prediction: Prediction, batch: Batch, b: int) -> Gaussians:
    """The Gaussians of pair `b` moved onto the true points (their offsets kept), transparent where these are
    not known.

    Drawing from true geometry teaches sizes, opacities, colours and codes without blurring them over wrong
    depths.
    """
    pair = item(prediction, b)
    moved = Prediction(
        *(
            replace(
                view,
                means=view.means - view.pts3d.detach() + batch.points[b, i][None],
                opacities=view.opacities * batch.valid[b, i],
            )
            for i, view in enumerate((pair.first, pair.second))
        )
    )
    return Gaussians.from_prediction(moved, 'first')


def drawing_losses(
    prediction: Prediction, batch: Batch, decoders: Decoders, generator: torch.Generator
) -> dict[str, Tensor]:
    """Colour, opacity and names in random windows of the target views, where a context view saw the
    surface.
    """
    height, width = batch.target.shape[-2:]
    colour, opacity, drawn_names = [], [], []
    for b, camera in enumerate(batch.cameras):
        gaussians = on_true_points(prediction, batch, b)
        ys = torch.randint(0, height - WINDOW + 1, (WINDOWS,), generator=generator).tolist()
        xs = torch.randint(0, width - WINDOW + 1, (WINDOWS,), generator=generator).tolist()
        drawings = render_windows(
            gaussians, camera, batch.target_from_first[b], [(x, y, WINDOW, WINDOW) for x, y in zip(xs, ys)]
        )
        for x, y, drawing in zip(xs, ys, drawings):
            part = (b, ..., slice(y, y + WINDOW), slice(x, x + WINDOW))
            seen = batch.target_seen[part]
            if not seen.any():
                continue
            true = batch.target[part].permute(1, 2, 0)
            colour.append((drawing.rgb - true)[seen].square().mean())
            opacity.append((1 - drawing.alpha)[seen].mean())
            labels = torch.where(seen, batch.target_labels[part], -1).flatten()
            drawn_names.append(
                name_loss(drawing.codes[..., :CODE].flatten(0, 1), labels, decoders, batch.names, generator)
            )
    return (
        {
            'colour': torch.stack(colour).mean(),
            'opacity': torch.stack(opacity).mean(),
            'drawn_names': torch.stack(drawn_names).mean(),
        }
        if colour
        else {}
    )


def losses(
    prediction: Prediction, batch: Batch, decoders: Decoders, generator: torch.Generator
) -> dict[str, Tensor]:
    """Every term, unweighted, those of drawings where there are Gaussians; `total` is their sum by
    WEIGHTS.
    """
    views = prediction.first, prediction.second
    out = {}
    out['points'], out['aligned'] = point_losses(
        torch.stack([v.pts3d for v in views], 1), torch.stack([v.conf for v in views], 1), batch
    )
    out['names'] = torch.stack(
        [
            name_loss(
                view.codes[b, ..., :CODE].flatten(0, 1),
                batch.labels[b, i].flatten(),
                decoders,
                batch.names,
                generator,
            )
            for i, view in enumerate(views)
            for b in range(len(batch.labels))
        ]
    ).mean()
    if prediction.first.means is not None:
        out.update(drawing_losses(prediction, batch, decoders, generator))
    out['total'] = sum(WEIGHTS[name] * value for name, value in out.items())
    return out
