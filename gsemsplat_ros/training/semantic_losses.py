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
from gsemsplat_ros.training.batches import SceneBatch, SceneTarget
from gsemsplat_ros.training.objective import Objective, on_true_points, point_losses, predicted

WEIGHTS = {'region': 1.0, 'context': 1.0, 'colour': 1.0, 'perceptual': 0.25, 'points': 0.05}
PIXELS = 16384  # decoded pixels per rendered window
WINDOW = 64  # side of the windows of a target that the CPU renders [px]; a GPU renders all of it
WINDOWS = 2  # per target, on the CPU

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

    def losses(
        self, prediction: Prediction, batch: SceneBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        gaussians = self.gaussians(prediction, batch)
        drawn: dict[str, list[Tensor]] = {}
        for target in batch.targets:
            height, width = target.seen.shape
            windows = windows_of(height, width, gaussians.means.is_cuda, generator)
            for window, drawing in zip(windows, drawings(gaussians, target, windows)):
                for name, value in self.window_losses(drawing, window, target, generator).items():
                    drawn.setdefault(name, []).append(value)
        terms = {name: torch.stack(values).mean() for name, values in drawn.items()}
        if self.tuned:
            terms['points'], _ = point_losses(prediction, batch)
        # a pair without visible pixels must have a gradient too: zeros
        zero = 0 * predicted(prediction.first.means).sum() + 0 * predicted(prediction.first.codes).sum()
        terms['total'] = sum((WEIGHTS[name] * value for name, value in terms.items()), zero)
        return terms

    def gaussians(self, prediction: Prediction, batch: SceneBatch) -> Gaussians:
        """The Gaussians of a pair; of the small network, whose geometry is coarse, on the measured points."""
        if self.model.config.stem:
            return on_true_points(prediction, batch)
        return Gaussians.from_prediction(prediction, 'first')

    def window_losses(
        self, drawing: Rendering, window: Window, target: SceneTarget, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The terms that apply to one rendered window of a target; empty without visible pixels.

        Means are over the pixels of the mask and, for colours, over their three channels (docs/published.md
        39: the published expression divides by the pixels only, and mixes up the masks of several targets).
        """
        x0, y0, width, height = window
        part = (..., slice(y0, y0 + height), slice(x0, x0 + width))
        seen = target.seen[part]
        flat = seen.flatten().nonzero()[:, 0]
        if not len(flat):
            return {}
        out = {}
        rgb, true = drawing.rgb.permute(2, 0, 1), target.image[part]  # (3, h, w)
        out['colour'] = (rgb - true).square()[:, seen].mean()
        if self.perceptual is not None and min(height, width) >= SMALLEST:
            masked = [(picture.clamp(0, 1) * seen)[None] for picture in (rgb, true)]
            out['perceptual'] = self.perceptual(*masked)[0][seen].mean()
        if len(flat) > PIXELS:
            flat = flat[torch.randperm(len(flat), generator=generator)[:PIXELS].to(flat.device)]
        v, u = flat // width + y0, flat % width + x0
        context = context_at(target.context, v, u, *target.seen.shape)
        found = decode(self.codec.language_decoder_patch, drawing.codes[..., CODE_DIM:], flat)
        out['context'] = away(found, context)
        ids = target.ids[v, u]
        if (ids > 0).any():
            found = decode(self.codec.language_decoder_sam, drawing.codes[..., :CODE_DIM], flat[ids > 0])
            out['region'] = away(found, target.features[ids[ids > 0] - 1])
        return out


def drawings(gaussians: Gaussians, target: SceneTarget, windows: list[Window]) -> list[Rendering]:
    """Differentiable renderings of windows of a target: gsplat on a GPU, the plain renderer on the CPU."""
    if not gaussians.means.is_cuda:
        return render_windows(gaussians, target.camera, target.camera_from_first, windows)
    whole = render(gaussians, target.camera, target.camera_from_first)
    maps = whole.rgb, whole.depth, whole.alpha, whole.codes
    return [Rendering(*(m[y : y + h, x : x + w] for m in maps)) for x, y, w, h in windows]


def windows_of(height: int, width: int, whole: bool, generator: torch.Generator) -> list[Window]:
    """The windows of a target to render: the whole view, or WINDOWS random ones."""
    if whole:
        return [(0, 0, width, height)]
    high, wide = min(WINDOW, height), min(WINDOW, width)
    ys, xs = (
        torch.randint(0, size - side + 1, (WINDOWS,), generator=generator).tolist()
        for size, side in ((height, high), (width, wide))
    )
    return [(x, y, wide, high) for x, y in zip(xs, ys)]


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
    """Mean of 1 - cosine over rows (M, C), because queries use only the direction of features."""
    return (1 - F.cosine_similarity(features, targets, dim=1)).mean()
