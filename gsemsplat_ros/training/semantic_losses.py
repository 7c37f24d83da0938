"""The losses of the semantic heads: rendered and decoded codes against both feature maps, and colours.

The maps, the colour losses and their weights are the paper's; the semantic losses and the number of sampled
pixels are ours (docs/training.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.checkpoints.lpips import LPIPS, SMALLEST
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.gaussians.render_plain import Rendering, render_windows
from gsemsplat_ros.network.config import CODE_DIM
from gsemsplat_ros.network.model import GSemSplat, Prediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.training.objective import (
    Objective,
    mean_where,
    on_true_points,
    pair_of,
    point_losses,
    predicted,
)
from gsemsplat_ros.training.random_numbers import pick, uniforms
from gsemsplat_ros.training.scene_batches import SceneBatch, SceneTarget

WEIGHTS = {'region': 1.0, 'context': 1.0, 'colour': 1.0, 'perceptual': 0.25, 'points': 0.05}
PIXELS = 16384  # decoded pixels per rendered window
WINDOW = 64  # side of the windows of a target that the CPU renders [px]; a GPU renders all of it
WINDOWS = 2  # per target, on the CPU
DRAWN = 'region', 'context', 'colour', 'perceptual'  # terms of renderings

Window = tuple[int, int, int, int]  # x0, y0, width, height [px]


class SemanticObjective(Objective):
    """perceptual: None for no perceptual loss; tuned: the backbone is trained too, so its points have a loss
    against the measured ones."""

    terms = ('total', *WEIGHTS)

    def __init__(self, model: GSemSplat, decoders: Decoders, perceptual: LPIPS | None, tuned: bool):
        super().__init__(model, decoders)
        self.perceptual, self.tuned = perceptual, tuned

    def train(self, mode: bool = True) -> SemanticObjective:
        """Stay in evaluation mode, which keeps the statistics of batch norms in public decoders."""
        return super().train(False)

    def predict(self, batch: SceneBatch) -> Prediction:
        return self.model(*batch.images)

    def losses(self, prediction: Prediction, batch: SceneBatch) -> dict[str, Tensor]:
        """Targets are drawn one after the other, because each has its own number of features."""
        moved = self.gaussians(prediction, batch)
        of_pairs = [
            self.pair_losses(
                Gaussians.from_prediction(pair_of(moved, b), 'first'), targets, batch.seeds[b : b + 1]
            )
            for b, targets in enumerate(batch.targets)
        ]
        terms = {name: torch.stack([terms[name] for terms in of_pairs]).mean() for name in of_pairs[0]}
        # a pair without visible pixels must have a gradient too: zeros
        zero = 0 * predicted(prediction.first.means).sum() + 0 * predicted(prediction.first.codes).sum()
        terms['points'] = point_losses(prediction, batch)[0] if self.tuned else zero.detach()
        terms['total'] = sum((WEIGHTS[name] * value for name, value in terms.items()), zero)
        return terms

    def gaussians(self, prediction: Prediction, batch: SceneBatch) -> Prediction:
        """The Gaussians of pairs; of the small network, whose geometry is coarse, on the measured points."""
        return on_true_points(prediction, batch) if self.model.config.stem else prediction

    def pair_losses(
        self, gaussians: Gaussians, targets: tuple[SceneTarget, ...], seed: Tensor
    ) -> dict[str, Tensor]:
        """The terms of one pair, means over the windows that have visible pixels; seed (1,)."""
        values: dict[str, list[Tensor]] = {name: [] for name in DRAWN}
        found: dict[str, list[Tensor]] = {name: [] for name in DRAWN}
        for i, target in enumerate(targets):
            height, width = target.seen.shape
            windows = windows_of(height, width, seed, 2 * i)
            for window, drawing in zip(windows, drawings(gaussians, target, windows)):
                numbers = uniforms(seed, 2 * i + 1, PIXELS)
                for name, (value, known) in self.window_losses(drawing, window, target, numbers).items():
                    values[name].append(value)
                    found[name].append(known)
        return {
            name: mean_where(torch.stack(values[name], 1), torch.stack(found[name], 1))[0][0]
            for name in values
        }

    def window_losses(
        self, drawing: Rendering, window: Window, target: SceneTarget, numbers: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The terms of one rendered window of a target and whether there are pixels for them, (1,) each.

        Means are over the pixels of the mask and, for colours, over their three channels (docs/published.md
        39: the published expression divides by the pixels only, and mixes up the masks of several targets).
        numbers (1, PIXELS): uniform, of the decoded pixels in a larger window.
        """
        x0, y0, width, height = window
        part = (..., slice(y0, y0 + height), slice(x0, x0 + width))
        seen = target.seen[part]
        rgb, true = drawing.rgb.permute(2, 0, 1), target.image[part]  # (3, h, w)
        out = {'colour': mean_where((rgb - true).square().mean(0, True), seen[None])}
        out['perceptual'] = rgb.new_zeros(1), seen.new_zeros(1)
        if self.perceptual is not None and min(height, width) >= SMALLEST:
            masked = [(picture.clamp(0, 1) * seen)[None] for picture in (rgb, true)]
            out['perceptual'] = mean_where(self.perceptual(*masked), seen[None])
        flat, known = torch.arange(height * width, device=seen.device), seen.flatten()
        if len(flat) > PIXELS:
            flat = pick(known[None].double(), numbers)[0]
            known = known[flat]
        v, u = flat // width + y0, flat % width + x0
        context = context_at(target.context, v, u, *target.seen.shape)
        found = decode(self.codec.language_decoder_patch, drawing.codes[..., CODE_DIM:], flat)
        out['context'] = mean_where(away(found, context)[None], known[None])
        ids = target.ids[v, u]
        found = decode(self.codec.language_decoder_sam, drawing.codes[..., :CODE_DIM], flat)
        features = torch.cat((target.features.new_zeros(1, target.features.shape[1]), target.features))
        named = away(found, features.index_select(0, ids))
        out['region'] = mean_where(named[None], (known & (ids > 0))[None])
        return out


def drawings(gaussians: Gaussians, target: SceneTarget, windows: list[Window]) -> list[Rendering]:
    """Differentiable renderings of windows of a target: the whole view on a GPU, each by the plain renderer
    on the CPU."""
    if gaussians.means.device.type == 'cpu':
        return render_windows(gaussians, target.camera, target.camera_from_first, windows)
    whole = render(gaussians, target.camera, target.camera_from_first)
    maps = whole.rgb, whole.depth, whole.alpha, whole.codes
    return [Rendering(*(m[y : y + h, x : x + w] for m in maps)) for x, y, w, h in windows]


def windows_of(height: int, width: int, seed: Tensor, stream: int) -> list[Window]:
    """The windows of a target to render: the whole view, or WINDOWS random ones on the CPU."""
    if seed.device.type != 'cpu':
        return [(0, 0, width, height)]
    high, wide = min(WINDOW, height), min(WINDOW, width)
    places = uniforms(seed, stream, 2 * WINDOWS)[0].tolist()
    return [
        (int(x * (width - wide + 1)), int(y * (height - high + 1)), wide, high)
        for x, y in zip(places[:WINDOWS], places[WINDOWS:])
    ]


def decode(stack: nn.Sequential, codes: Tensor, picks: Tensor) -> Tensor:
    """Features (M, C) of rendered `codes` (h, w, D) at the pixels `picks` (M,), rows of the flat map."""
    if all(isinstance(layer, nn.ReLU) or getattr(layer, 'kernel_size', None) == (1, 1) for layer in stack):
        return stack(codes.flatten(0, 1)[picks].T[None, :, :, None])[0, :, :, 0].T
    return stack(codes.permute(2, 0, 1)[None])[0].flatten(1).T[picks]  # larger kernels need the whole map


def context_at(context: Tensor, v: Tensor, u: Tensor, height: int, width: int) -> Tensor:
    """A dense map (h', w', C) of an image of (height, width), bilinear at pixels (v, u) (M,): (M, C)."""
    grid = torch.stack(((2 * u + 1) / width - 1, (2 * v + 1) / height - 1), -1)[None, None]  # (1, 1, M, 2)
    maps = context.permute(2, 0, 1)[None]
    return F.grid_sample(maps, grid, padding_mode='border', align_corners=False)[0, :, 0].T


def away(features: Tensor, targets: Tensor) -> Tensor:
    """1 - cosine of rows (M, C), because queries use only the direction of features."""
    return 1 - F.cosine_similarity(features, targets, dim=1)
