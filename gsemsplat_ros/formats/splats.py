"""What is written of a scene or a map, in whatever format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.formats.axes import Axes, turned
from gsemsplat_ros.gaussians.floaters import floaters
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera

SPACE = 'weights', 'text_encoder', 'decoders'  # entries of `Splats.space`


@dataclass(frozen=True)
class Splats:
    """Gaussians in `axes`, in parts, at least one, one after the other.

    metric: whether lengths are metres. camera: the one at the origin that saw the scene, looking ahead; None
    for a map, and where it is unknown. first_from_second (4, 4): pose of the second camera, where the
    Gaussians are all those of a pair. voxel: edge of those in which a map merges. space: of which decoders
    the codes are, by the entries SPACE (scene/coded_file.py); None: unknown, so that nothing reads them.
    counts (C, h, w): of the picture that the camera saw, which answers with the codes (HiddenCodes); None:
    the codes alone answer.
    """

    parts: tuple[Gaussians, ...]
    axes: Axes
    metric: bool = False
    camera: Camera | None = None
    voxel: float | None = None
    space: Mapping[str, str] | None = None
    counts: Tensor | None = None
    first_from_second: np.ndarray | None = None

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def turned(self, axes: Axes) -> Splats:
        """The same in other axes."""
        return replace(self, parts=tuple(turned(part, axes, self.axes) for part in self.parts), axes=axes)

    def without_codes(self) -> Splats:
        """The same for a format that cannot say what reads them."""
        parts = tuple(replace(part, codes=part.codes[:, :0]) for part in self.parts)
        return replace(self, parts=parts, space=None, counts=None)

    def select(self, kept: np.ndarray) -> Splats:
        """Those of the mask `kept` (N,) bool. The counts stay with the whole: they would find what is not
        there any more."""
        parts, first = [], 0
        for part in self.parts:
            parts.append(part.select(torch.from_numpy(kept[first : first + len(part)]).to(part.means.device)))
            first += len(part)
        return replace(self, parts=tuple(parts), counts=None, first_from_second=None)

    def floaters(self) -> np.ndarray:
        """(N,) bool: those in the air, of a pair. A map forgets them itself, as another view sees through."""
        if self.camera is None or self.first_from_second is None:
            return np.zeros(len(self), bool)
        return floaters(self.joined(), self.camera, self.first_from_second)

    def without(self, floaters: np.ndarray) -> Splats:
        """All but `floaters` (N,) bool. The counts stay: they are of a picture, which has none."""
        return replace(self.select(~floaters), counts=self.counts)

    def joined(self) -> Gaussians:
        """All parts in one."""
        return self.parts[0] if len(self.parts) == 1 else Gaussians.joined(self.parts)
