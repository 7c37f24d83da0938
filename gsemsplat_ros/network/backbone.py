"""Points by another network than the one that sees the words: the protocol, and the prediction of both."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.network.config import SH_C0
from gsemsplat_ros.network.model import Prediction, ViewPrediction

# standard deviation of an analytic Gaussian, in distances between neighbouring points of its image
SPREAD = 0.5


class Backbone(Protocol):
    """Two images to the geometry of their pair: `GSemSplat` as it is, and `DepthAnything3`.

    images1, images2 (B, 3, H, W) in [-1, 1], of one size, whose sides 16 divides. Of the prediction, `pts3d`
    and `conf` (> 1) of both views are read, at any resolution, in the frame of the first camera and in any
    unit, and `first_from_second` where it is there. K is in the points, which lie on the rays of their pixels
    (`focal_from_points`). What is known of the cameras, K and the relative pose of a rig, is not handed in:
    geometry/solve.py corrects every prediction by it, in one way, and finds the metric scale.
    """

    def __call__(self, images1: Tensor, images2: Tensor) -> Prediction: ...


def with_geometry(seen: Prediction, geometry: Prediction, images: tuple[Tensor, Tensor]) -> Prediction:
    """The codes and descriptors of `seen` on the points of `geometry`, with analytic Gaussians, at the
    resolution of `seen`. images (B, 3, H, W) in [-1, 1]: of both views.
    """
    first, second = (
        analytic_gaussians(on_points(own, other), image)
        for own, other, image in zip(
            (seen.first, seen.second), (geometry.first, geometry.second), images, strict=True
        )
    )
    return replace(geometry, first=first, second=second)


def on_points(own: ViewPrediction, other: ViewPrediction) -> ViewPrediction:
    """`own` with the points and the confidence of `other`, resampled to its resolution."""
    maps = torch.cat((other.pts3d, other.conf[..., None]), -1).permute(0, 3, 1, 2).float()
    maps = F.interpolate(maps, own.conf.shape[1:], mode='bilinear', align_corners=False).permute(0, 2, 3, 1)
    return replace(own, pts3d=maps[..., :3], conf=maps[..., 3])


def analytic_gaussians(view: ViewPrediction, image: Tensor) -> ViewPrediction:
    """`view` with a Gaussian at each of its points, by formulas and not by a trained head.

    They are round, as wide as the distance to the next points of the image; where that differs by direction,
    as on a slanted surface and at its edges, the smaller one counts. Opacity is 1 - 1 / confidence^2: only
    what is hardly trusted is transparent. The colour is that of image (B, 3, H, W) in [-1, 1].
    """
    points = view.pts3d
    steps = torch.minimum(nearest_step(points, 1), nearest_step(points, 2))
    colors = F.interpolate(image.float(), points.shape[1:3], mode='area').permute(0, 2, 3, 1) / 2
    return replace(
        view,
        means=points,
        scales=(SPREAD * steps)[..., None].expand_as(points),
        quats_xyzw=F.pad(torch.zeros_like(points), (0, 1), value=1.0),
        sh=colors / SH_C0,
        opacities=1 - view.conf**-2,
    )


def nearest_step(points: Tensor, axis: int) -> Tensor:
    """(B, h, w) distance of each of points (B, h, w, 3) to the nearer of its two neighbours along an axis."""
    steps = points.diff(dim=axis).norm(dim=-1)
    first, last = steps.narrow(axis, 0, 1), steps.narrow(axis, -1, 1)
    return torch.minimum(torch.cat((first, steps), axis), torch.cat((steps, last), axis))
