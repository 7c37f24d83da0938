"""Feature levels to points, confidences, Gaussians, semantic codes, descriptors (docs/published.md 9-16)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.images.view import PATCH
from gsemsplat_ros.network.config import DESC_DIM, NetworkConfig
from gsemsplat_ros.network.dpt import DPT, NestedDPT
from gsemsplat_ros.network.layers import Mlp
from gsemsplat_ros.network.pixel_mlp import PixelMlp
from gsemsplat_ros.network.stem import STEM_DIMS

GAUSSIAN_CHANNELS = (3, 3, 4, 3, 1)  # offset, scale, rotation, sh, opacity
GAUSSIAN_GAINS = (0.001, 0.00003, 1.0, 1.0, 1.0)  # xavier gain of the last layer, per group
OFFSET_SHIFT = 6.0  # |offset| = exp(r - 6) - exp(-6): centimetres near r = 1.6
AT_ZERO = torch.tensor(-OFFSET_SHIFT).exp().item()  # in single precision, as published
EPS = 1e-8


@dataclass(frozen=True)
class Raw:
    """What a head gives for one view, before the activations below: points (B, 4, h, w), gaussians
    (B, 14, h, w), codes (B, C, h, w); of the public networks, descriptors (B, h, w, 24) of unit length with
    confidence (B, h, w). None: not asked for, or not part of the head."""

    points: Tensor
    gaussians: Tensor | None = None
    codes: Tensor | None = None
    desc: Tensor | None = None
    desc_conf: Tensor | None = None


class Head(nn.Module, ABC):
    """All dense outputs of one view (`downstream_head1`, `downstream_head2`); dpt: the one of the points."""

    dpt: DPT

    @abstractmethod
    def forward(
        self, levels: list[Tensor], tokens: tuple[Tensor, Tensor], gaussians: bool, descriptors: bool
    ) -> Raw:
        """From the four levels of a DPT, finest first, and the first and last tokens (B, C, h/16, w/16)."""

    def init_points(self) -> None:
        """All points near (0, 0, 2.3 m): at the origin every layer would first learn only to leave it."""
        last = self.dpt.last_layer
        assert last.bias is not None
        nn.init.xavier_uniform_(last.weight, 0.1)
        last.bias.data.copy_(torch.tensor([0.0, 0.0, 1.2, 0.0]))


class SeparateHead(Head):
    """The head of the public networks: a DPT each for points, Gaussians and codes; descriptors of tokens."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        in_dims = level_dims(config)
        self.dpt = DPT(config, 4, in_dims)
        self.adds_one = config.gaussians
        if config.descriptors:
            dim = config.enc_dim + config.dec_dim
            self.head_local_features = Mlp(dim, 4 * dim, (DESC_DIM + 1) * PATCH**2)
        if config.gaussians:
            self.gaussian_dpt = NestedDPT(DPT(config, sum(GAUSSIAN_CHANNELS), in_dims))
            init_gaussians(self.gaussian_dpt.dpt.last_layer, config.scale_bias)
        if config.language_channels:
            self.gaussian_language = NestedDPT(DPT(config, config.language_channels, in_dims))

    def forward(
        self, levels: list[Tensor], tokens: tuple[Tensor, Tensor], gaussians: bool, descriptors: bool
    ) -> Raw:
        language = hasattr(self, 'gaussian_language')
        return Raw(
            self.dpt(levels),
            self.gaussian_dpt(levels) if gaussians else None,
            self.gaussian_language(levels) if language else None,
            *(self.described(*tokens) if descriptors else ()),
        )

    def described(self, encoded: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """First and last tokens to descriptors (B, H, W, 24) and confidence (B, H, W)."""
        tokens = torch.cat((encoded, decoded), 1).to(self.head_local_features.fc1.weight.dtype)
        x = self.head_local_features(tokens.flatten(2).transpose(1, 2)).float()  # (B, N, 25 * 256)
        x = x.transpose(1, 2).unflatten(2, encoded.shape[-2:])
        x = F.pixel_shuffle(x, PATCH).permute(0, 2, 3, 1)
        confidence = x[..., DESC_DIM].exp()
        # MASt3R's range starts at 0; the networks derived from it add 1, as for points (docs/published.md 11)
        return F.normalize(x[..., :DESC_DIM], dim=-1), confidence + self.adds_one


class SharedHead(Head):
    """The head of the small network: one DPT, for the points, whose fused map the other outputs read too.

    Gaussians and codes come of a perceptron a pixel, on that map and on the levels that the DPT reads: what
    the trunk keeps for points is not all that they need. Descriptors are no output of it (network/stem.py).
    """

    HIDDEN = 96

    def __init__(self, config: NetworkConfig):
        super().__init__()
        dims = level_dims(config)
        self.dpt = DPT(config, 4, dims)
        self.surface = PixelMlp((config.dpt_dim, *dims), self.HIDDEN)
        if config.gaussians:
            self.gaussian_layer = nn.Conv2d(self.HIDDEN, sum(GAUSSIAN_CHANNELS), 1)
            init_gaussians(self.gaussian_layer, config.scale_bias)
        if config.language_channels:
            self.language_layer = nn.Conv2d(self.HIDDEN, config.language_channels, 1)

    def forward(
        self, levels: list[Tensor], tokens: tuple[Tensor, Tensor], gaussians: bool, descriptors: bool
    ) -> Raw:
        fused = self.dpt.fuse(levels)
        x = self.surface([fused, *levels])
        return Raw(
            self.dpt.finish(fused),
            self.gaussian_layer(x) if gaussians else None,
            self.language_layer(x) if hasattr(self, 'language_layer') else None,
        )


def make_head(config: NetworkConfig) -> Head:
    """The head of one view."""
    return SharedHead(config) if config.shared_trunk else SeparateHead(config)


def level_dims(config: NetworkConfig) -> tuple[int, int, int, int]:
    """Channels of the four levels that a DPT reads, finest first."""
    first, second = (STEM_DIMS[4], STEM_DIMS[8]) if config.stem else (config.enc_dim, config.dec_dim)
    return first, second, config.dec_dim, config.dec_dim


def init_gaussians(last: nn.Conv2d, scale_bias: float) -> None:
    """Make the layer give small, almost transparent Gaussians on the points, from which training starts."""
    assert last.bias is not None
    biases = (0.001, scale_bias, 0.0, 0.0, -2.0)
    weights = last.weight.split(GAUSSIAN_CHANNELS)
    for weight, bias, gain, value in zip(weights, last.bias.split(GAUSSIAN_CHANNELS), GAUSSIAN_GAINS, biases):
        nn.init.xavier_uniform_(weight.detach(), gain)
        nn.init.constant_(bias.detach(), value)


def points(x: Tensor) -> tuple[Tensor, Tensor]:
    """Raw (B, 4, h, w) to points (B, h, w, 3) [m] and confidence (B, h, w) > 1."""
    xyz = x[:, :3]
    distance = xyz.norm(dim=1, keepdim=True)
    pts3d = xyz / distance.clamp(min=EPS) * distance.expm1()
    return pts3d.permute(0, 2, 3, 1), 1 + x[:, 3].exp()


def gaussians(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Raw (B, 14, h, w) to offsets [m], scales [m], quats (x, y, z, w), sh (..., 3), opacities (B, h, w)."""
    offset, scale, rotation, sh, opacity = x.split(GAUSSIAN_CHANNELS, 1)
    r = offset.norm(dim=1, keepdim=True)
    offset = offset / r.clamp(min=EPS) * ((r - OFFSET_SHIFT).exp() - AT_ZERO)
    rotation = rotation / (rotation.norm(dim=1, keepdim=True) + EPS)
    offset, scales, quats, sh = (y.permute(0, 2, 3, 1) for y in (offset, scale.exp(), rotation, sh))
    return offset, scales, quats, sh, opacity[:, 0].sigmoid()
