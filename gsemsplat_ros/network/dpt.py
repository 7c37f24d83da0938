"""The DPT block: four levels of features to one dense map (Ranftl et al. 2021; docs/published.md 8)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.network.config import NetworkConfig

GROUPS = 8  # of the normalisations, where there are any


def upsample(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, C, 2 h, 2 w), bilinear, corners aligned as in the public networks."""
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)


class ResidualConv(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu_(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """Adds one level to the coarser ones and doubles the resolution."""

    def __init__(self, dim: int, norm: bool = False):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, dim) if norm else nn.Identity()
        self.out_conv = nn.Conv2d(dim, dim, 1)
        # unused at the coarsest level, but public files hold its weights
        self.resConfUnit1 = ResidualConv(dim)
        self.resConfUnit2 = ResidualConv(dim)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        if level is not None:
            x = x + self.resConfUnit1(level)
        # a 1x1 convolution and bilinear interpolation commute (weights sum to 1); first, it costs a quarter
        return upsample(self.norm(self.out_conv(self.resConfUnit2(x))))


class Scratch(nn.Module):
    """Brings four levels to one width and fuses them from coarse to fine, under the public names."""

    def __init__(self, dims: tuple[int, ...], dim: int, norm: bool):
        super().__init__()
        self.layer1_rn = nn.Conv2d(dims[0], dim, 3, padding=1, bias=False)
        self.refinenet1 = FusionBlock(dim, norm)
        self.layer2_rn = nn.Conv2d(dims[1], dim, 3, padding=1, bias=False)
        self.refinenet2 = FusionBlock(dim, norm)
        self.layer3_rn = nn.Conv2d(dims[2], dim, 3, padding=1, bias=False)
        self.refinenet3 = FusionBlock(dim, norm)
        self.layer4_rn = nn.Conv2d(dims[3], dim, 3, padding=1, bias=False)
        self.refinenet4 = FusionBlock(dim, norm)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Four maps (B, dims[i], h_i, w_i), finest first, to (B, dim, 2 h_0, 2 w_0)."""
        f1, f2, f3 = self.layer1_rn(levels[0]), self.layer2_rn(levels[1]), self.layer3_rn(levels[2])
        x = self.refinenet4(self.layer4_rn(levels[3]))
        x = x[..., : f3.shape[-2], : f3.shape[-1]]  # odd token grids: stride 32 rounds up
        x = self.refinenet3(x, f3)
        x = self.refinenet2(x, f2)
        return self.refinenet1(x, f1)


class DPT(nn.Module):
    """Levels of strides (4, 8, 16, 32) to a map of `channels` at `config.output_stride`.

    Without a stem all levels come from tokens of stride 16 and are resampled; with one, the two fine levels
    are the stem's own feature maps.
    """

    def __init__(self, config: NetworkConfig, channels: int, in_dims: tuple[int, int, int, int]):
        super().__init__()
        dims, dim, last = config.layer_dims, config.dpt_dim, config.last_dim
        self.full_resolution = config.output_stride == 1
        resample: list[list[nn.Module]] = [[], [], [], []]
        if not config.stem:
            resample[0] = [nn.ConvTranspose2d(dims[0], dims[0], 4, stride=4)]
            resample[1] = [nn.ConvTranspose2d(dims[1], dims[1], 2, stride=2)]
        resample[3] = [nn.Conv2d(dims[3], dims[3], 3, stride=2, padding=1)]
        self.act_postprocess = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_dim, out, 1), *layers)
            for in_dim, out, layers in zip(in_dims, dims, resample)
        )
        self.scratch = Scratch(dims, dim, config.dpt_norm)
        self.head = nn.Sequential(
            nn.Conv2d(dim, last, 3, padding=1),
            nn.GroupNorm(GROUPS, last) if config.dpt_norm else nn.Identity(),
            nn.Conv2d(last, last, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(last, channels, 1),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """`levels`: four maps (B, C_i, h_i, w_i), finest first. Returns (B, channels, h, w)."""
        return self.finish(self.fuse(levels))

    def fuse(self, levels: list[Tensor]) -> Tensor:
        """The levels as one map (B, dpt_dim, H/2, W/2)."""
        return self.scratch([process(level) for process, level in zip(self.act_postprocess, levels)])

    def finish(self, fused: Tensor) -> Tensor:
        """The last convolutions."""
        x = self.head[0](fused)
        return self.head[1:](upsample(x) if self.full_resolution else x)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The 1x1 convolution that gives the output channels."""
        layer = self.head[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer


class NestedDPT(nn.Module):
    """A DPT under the name that the public files give it (`gaussian_dpt.dpt`, `gaussian_language.dpt`)."""

    def __init__(self, dpt: DPT):
        super().__init__()
        self.dpt = dpt

    def forward(self, levels: list[Tensor]) -> Tensor:
        return self.dpt(levels)
