"""Feature levels to points, confidences, Gaussians, semantic codes, descriptors (docs/published.md 9-16)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.images.view import PATCH
from gsemsplat_ros.network.config import DESC_DIM, NetworkConfig
from gsemsplat_ros.network.dpt import DPT, NestedDPT
from gsemsplat_ros.network.layers import Mlp
from gsemsplat_ros.network.stem import STEM_DIMS

GAUSSIAN_CHANNELS = (3, 3, 4, 3, 1)  # offset, scale, rotation, sh, opacity
GAUSSIAN_GAINS = (0.001, 0.00003, 1.0, 1.0, 1.0)  # xavier gain of the last layer, per group
OFFSET_SHIFT = 6.0  # |offset| = exp(r - 6) - exp(-6): centimetres near r = 1.6
EPS = 1e-8


class Head(nn.Module):
    """All dense outputs of one view (`downstream_head1`, `downstream_head2`)."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        tokens = (config.enc_dim, config.dec_dim, config.dec_dim, config.dec_dim)
        in_dims = (STEM_DIMS[4], STEM_DIMS[8], *tokens[2:]) if config.stem else tokens
        self.dpt = DPT(config, 4, in_dims)
        if config.descriptors:
            dim = config.enc_dim + config.dec_dim
            self.head_local_features = Mlp(dim, 4 * dim, (DESC_DIM + 1) * PATCH**2)
        if config.gaussians:
            self.gaussian_dpt = NestedDPT(DPT(config, sum(GAUSSIAN_CHANNELS), in_dims))
            self.init_gaussians(config.scale_bias)
        if config.language_channels:
            self.gaussian_language = NestedDPT(DPT(config, config.language_channels, in_dims))

    def init_points(self) -> None:
        """All points near (0, 0, 2.3 m): at the origin every layer would first learn only to leave it."""
        last = self.dpt.last_layer
        assert last.bias is not None
        nn.init.xavier_uniform_(last.weight, 0.1)
        last.bias.data.copy_(torch.tensor([0.0, 0.0, 1.2, 0.0]))

    def init_gaussians(self, scale_bias: float) -> None:
        """Small, almost transparent Gaussians on the points, from which training starts."""
        last = self.gaussian_dpt.dpt.last_layer
        assert last.bias is not None
        biases = (0.001, scale_bias, 0.0, 0.0, -2.0)
        weights = last.weight.split(GAUSSIAN_CHANNELS)
        for weight, bias, gain, value in zip(
            weights, last.bias.split(GAUSSIAN_CHANNELS), GAUSSIAN_GAINS, biases
        ):
            nn.init.xavier_uniform_(weight.detach(), gain)
            nn.init.constant_(bias.detach(), value)

    def descriptors(self, encoded: Tensor, decoded: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """First and last entry of a token list to descriptors (B, H, W, 24) and confidence (B, H, W)."""
        tokens = torch.cat((encoded, decoded), -1).to(self.head_local_features.fc1.weight.dtype)
        x = self.head_local_features(tokens).float()  # (B, N, 25 * 256)
        x = F.pixel_shuffle(x.transpose(1, 2).unflatten(2, grid), PATCH).permute(0, 2, 3, 1)
        confidence = x[..., DESC_DIM].exp()
        # MASt3R's range starts at 0; the networks derived from it add 1, as for points (docs/published.md 11)
        return F.normalize(x[..., :DESC_DIM], dim=-1), confidence + (1 if self.config.gaussians else 0)


def points(x: Tensor) -> tuple[Tensor, Tensor]:
    """Raw (B, 4, h, w) to points (B, h, w, 3) [m] and confidence (B, h, w) > 1."""
    xyz = x[:, :3].permute(0, 2, 3, 1)
    distance = xyz.norm(dim=-1, keepdim=True)
    return xyz / distance.clamp(min=EPS) * distance.expm1(), 1 + x[:, 3].exp()


def gaussians(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Raw (B, 14, h, w) to offsets [m], scales [m], quats (x, y, z, w), sh (..., 3), opacities (B, h, w)."""
    offset, scale, rotation, sh, opacity = x.permute(0, 2, 3, 1).split(GAUSSIAN_CHANNELS, -1)
    r = offset.norm(dim=-1, keepdim=True)
    shift = torch.tensor(-OFFSET_SHIFT).exp().item()
    offset = offset / r.clamp(min=EPS) * ((r - OFFSET_SHIFT).exp() - shift)
    rotation = rotation / (rotation.norm(dim=-1, keepdim=True) + EPS)
    return offset, scale.exp(), rotation, sh, opacity[..., 0].sigmoid()
