"""Depth Anything 3 (Lin et al. 2025) as a backbone: the classes of the package `depth-anything-3`.

Of its sizes those that are Apache-2.0 and give poses: SMALL and BASE. Weights are the user's.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.network.model import Prediction, ViewPrediction

SIZES = {384: 'small', 768: 'base'}  # by the width of their tokens
LONG_SIDE, PATCH = 504, 14  # of its images, as published (api.py, process_res)
HOOKS = [5, 7, 9, 11]  # blocks of both sizes that its DPT reads
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images that it was trained on
ERRORS_ONLY = 0


def public_network(size: str) -> nn.Module:
    """The public class in the public configuration of `size`, 'small' or 'base', with random weights.

    Raises ValueError, in one line, where its package or one that it needs is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of names that its configuration reader should not use any more
            from depth_anything_3.cfg import create_object, load_config
            from depth_anything_3.registry import MODEL_REGISTRY
            from depth_anything_3.utils.logger import logger

            logger.level = ERRORS_ONLY  # its notes would go to standard output
            return create_object(load_config(MODEL_REGISTRY[f'da3-{size}']))
    except ImportError as error:
        raise ValueError(
            f'Depth Anything 3 needs packages that are not installed ({error}): run `pip install addict '
            'einops omegaconf` and `pip install --no-deps --ignore-requires-python depth-anything-3`'
        ) from None


class DepthAnything3(nn.Module):
    """A Backbone. bf16: compute the tokens in bfloat16 and the heads in float32, as published."""

    def __init__(self, size: str, bf16: bool = False):
        super().__init__()
        self.bf16 = bf16
        self.net = public_network(size)

    def forward(self, images1: Tensor, images2: Tensor) -> Prediction:
        """As Backbone; points of a unit of their own.

        The classes take known extrinsics too, and are given none: geometry/solve.py applies what is known, to
        every network alike. Of two images their interface cannot align results to extrinsics (issues 88 and
        144 of ByteDance-Seed/Depth-Anything-3).
        """
        pictures = torch.stack((images1, images2), 1)
        pictures = normalised(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.net(pictures, export_feat_layers=HOOKS)
        tokens = tuple(out.aux[f'feat_layer_{layer}'] for layer in HOOKS)
        return prediction_of(out.depth, out.depth_conf, out.extrinsics, out.intrinsics, tokens)


def normalised(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] as the network wants them: multiples of 14, of 504 px the long side."""
    height, width = images.shape[-2:]
    size = [max(1, round(side * LONG_SIDE / max(height, width) / PATCH)) * PATCH for side in (height, width)]
    images = F.interpolate(images, size, mode='bicubic', align_corners=False, antialias=True)
    mean, deviation = (images.new_tensor(x)[:, None, None] for x in (MEAN, DEVIATION))
    return ((images.clamp(-1, 1) + 1) / 2 - mean) / deviation


def prediction_of(
    depth: Tensor, conf: Tensor, cameras_from_world: Tensor, Ks: Tensor, tokens: tuple[Tensor, ...] = ()
) -> Prediction:
    """Its outputs as a prediction, in float32.

    depth, conf (B, 2, h, w): along the axis, in a unit of their own; cameras_from_world (B, 2, 3, 4): in that
    unit; Ks (B, 2, 3, 3) [px], the corner of the image at (0, 0); tokens (B, 2, h/14, w/14, C).
    """
    depth, cameras_from_world, Ks = depth.float(), cameras_from_world.float(), Ks.float()
    height, width = depth.shape[-2:]
    v, u = torch.meshgrid(
        *(torch.arange(side, device=depth.device) + 0.5 for side in (height, width)), indexing='ij'
    )
    x, y = (
        (pixels - Ks[..., i, 2, None, None]) / Ks[..., i, i, None, None] for i, pixels in enumerate((u, v))
    )
    local = torch.stack((x, y, torch.ones_like(x)), -1) * depth[..., None]  # (B, 2, h, w, 3)
    turns, shifts = cameras_from_world[..., :3], cameras_from_world[..., 3]
    turn = turns[:, 0] @ turns[:, 1].mT
    shift = shifts[:, 0] - (turn @ shifts[:, 1, :, None])[..., 0]
    pose = torch.eye(4, device=depth.device).repeat(len(depth), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = turn, shift
    second = local[:, 1] @ turn.mT[:, None] + shift[:, None, None]
    return Prediction(
        ViewPrediction(local[:, 0], conf[:, 0].float()),
        ViewPrediction(second, conf[:, 1].float()),
        pose,
        tokens,
    )
