"""Semantic 3D Gaussians as one value, and the transforms that keep it consistent.

A similarity x -> s R x + t takes covariances to s^2 R cov R^T: quats and scales change with the means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.gaussians.rotations import multiply_quats, quats_to_rotations, rotation_to_quat
from gsemsplat_ros.network.config import SH_C0
from gsemsplat_ros.network.model import Prediction


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in `frame`; torch tensors of one floating type (float32 outside tests) on one device.

    means (N, 3) [m]; quats (N, 4) unit, w x y z; scales (N, 3) [m], standard deviations along the turned
    axes; opacities (N,) in [0, 1]; colors (N, 3) RGB, nominally in [0, 1] (0.5 + C0 * sh may leave it; the
    renderers clamp below at 0 as 3DGS does); codes (N, D) semantic codes, D may be 0.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    codes: Tensor
    frame: str

    def __post_init__(self):
        n = self.means.shape[0]
        shapes = {
            'means': (n, 3),
            'quats': (n, 4),
            'scales': (n, 3),
            'opacities': (n,),
            'colors': (n, 3),
            'codes': (n, self.codes.shape[-1]),
        }
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            assert tuple(tensor.shape) == shape, f'{name} {tuple(tensor.shape)}, wanted {shape}'
            assert tensor.is_floating_point() and tensor.dtype == self.means.dtype, f'{name} {tensor.dtype}'
            assert tensor.device == self.means.device, f'{name} on {tensor.device}, not {self.means.device}'

    def __len__(self) -> int:
        return self.means.shape[0]

    @classmethod
    def from_prediction(cls, prediction: Prediction, frame: str, second: bool = True) -> Gaussians:
        """Batch item 0 of `prediction` in one set: view 1 first, row by row (docs/published.md 15); `second`
        False: of view 1 alone."""
        values = {name: tensor[0] for name, tensor in flat(prediction, second).items()}
        return cls(**values, frame=frame)

    def to(self, device: str | torch.device) -> Gaussians:
        return self._map(lambda tensor: tensor.to(device))

    def select(self, index: Tensor | slice) -> Gaussians:
        """Those that `index` picks: integers (M,), a mask (N,) or a slice."""
        return self._map(lambda tensor: tensor[index])

    def transformed(self, a_from_b: np.ndarray, frame: str) -> Gaussians:
        """The same Gaussians in `frame`: `a_from_b` (4, 4) rigid, b the present frame. Codes stay."""
        matrix = np.asarray(a_from_b, dtype=np.float64)
        rotation = matrix[:3, :3]
        assert matrix.shape == (4, 4), matrix.shape
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4), rotation
        assert np.linalg.det(rotation) > 0, rotation
        turn, shift = self.means.new_tensor(rotation), self.means.new_tensor(matrix[:3, 3])
        quats = multiply_quats(self.means.new_tensor(rotation_to_quat(rotation)), self.quats)
        return replace(self, means=self.means @ turn.T + shift, quats=quats, frame=frame)

    def scaled(self, s: float) -> Gaussians:
        """The similarity x -> s x about the origin, s > 0: means and scales, hence covariances by s^2."""
        assert s > 0, s
        return replace(self, means=self.means * s, scales=self.scales * s)

    @classmethod
    def joined(cls, parts: Sequence[Gaussians]) -> Gaussians:
        """At least one, one after the other, in the frame of the first."""
        tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS}
        return cls(**tensors, frame=parts[0].frame)

    def covariances(self) -> Tensor:
        """(N, 3, 3) [m^2], R diag(scales^2) R^T."""
        axes = quats_to_rotations(self.quats) * self.scales[:, None, :]
        return axes @ axes.mT

    def _map(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        tensors = {name: function(getattr(self, name)) for name in TENSORS}
        return Gaussians(**tensors, frame=self.frame)


def flat(prediction: Prediction, second: bool = True) -> dict[str, Tensor]:
    """The Gaussians of each pair (B, N, ...), float32, by the names and in the order of the fields of
    `Gaussians`: view 1 first, row by row (docs/published.md 15); `second` False: of view 1 alone."""
    views = (prediction.first, prediction.second) if second else (prediction.first,)
    assert all(view.means is not None for view in views), 'a network without Gaussian heads'

    def joined(name: str) -> Tensor:  # (B, h, w, ...) of each view -> (B, N, ...)
        return torch.cat([getattr(view, name).flatten(1, 2) for view in views], 1).float()

    means = joined('means')
    has_codes = all(view.codes is not None for view in views)
    return dict(
        means=means,
        quats=joined('quats_xyzw').roll(1, dims=-1),  # x y z w -> w x y z
        scales=joined('scales'),
        opacities=joined('opacities'),
        colors=0.5 + SH_C0 * joined('sh'),
        codes=used(joined('codes')) if has_codes else means[..., :0],
    )


def used(codes: Tensor) -> Tensor:
    """Codes (..., C) without the last channel of an odd number: the public network's 33rd means nothing."""
    return codes[..., : codes.shape[-1] // 2 * 2]


TENSORS = tuple(field.name for field in fields(Gaussians) if field.name != 'frame')
