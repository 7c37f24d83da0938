"""A scene rendered along a camera path: the filmstrip of the report, and the frames of videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.flight.paths import CameraPath, around
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.config import CODE_DIM
from gsemsplat_ros.pictures.principal import Principal
from gsemsplat_ros.semantics.decoder import Decoders

ANGLES = (-12, -6, 0, 6, 12)  # degrees around the point that the first camera looks at
LONG_SIDE = 400  # pixels: as large as a filmstrip shows them
VIDEO_LONG_SIDE = 512  # pixels
BACKGROUND = (0.125, 0.133, 0.149)  # the page's frames
SAMPLE = 5_000  # Gaussians that the semantic colours are fitted to
SOLID = 0.5  # least opacity of these Gaussians


@dataclass(frozen=True)
class NewView:
    """The scene from another pose: its description in words, and the picture (H, W, 3) uint8 RGB."""

    title: str
    picture: np.ndarray


@dataclass(frozen=True)
class Film:
    """A flight through the scene, in its colours and in semantic ones: name of the path, number of frames,
    duration [s], the two first pictures (H, W, 3) uint8 RGB, and the two MP4 files.
    """

    path: str
    frames: int
    seconds: float
    posters: tuple[np.ndarray, np.ndarray]
    files: tuple[bytes, bytes]

    def summary(self) -> dict:
        """The JSON form, without pictures."""
        return {'path': self.path, 'frames': self.frames, 'seconds': self.seconds}


def resized(camera: Camera, long_side: int) -> Camera:
    """The camera with pictures of `long_side` pixels and an even short side."""
    factor = long_side / max(camera.width, camera.height)
    return camera.resized(*(2 * round(side * factor / 2) for side in (camera.width, camera.height)))


def looked_at(gaussians: Gaussians, camera: Camera) -> tuple[np.ndarray, float]:
    """Depth (h, w) [m] (NaN: unknown) from `camera` at the origin, and its median, 1 if all is unknown."""
    depth = render(gaussians, camera, np.eye(4)).depth.cpu().numpy()
    seen = depth[np.isfinite(depth)]
    return depth, float(np.median(seen)) if len(seen) else 1.0


def draw(gaussians: Gaussians, camera: Camera) -> tuple[np.ndarray, tuple[NewView, ...]]:
    """Depth (h, w) [m] (NaN: unknown) from the first `camera`, and pictures on an arc about what it sees.

    The Gaussians lie in the frame of that camera; pictures have LONG_SIDE pixels on the long side.
    """
    small = resized(camera, LONG_SIDE)
    depth, distance = looked_at(gaussians, small)
    views = []
    for angle, pose in zip(ANGLES, around(distance, ANGLES)):
        rgb = render(gaussians, small, np.linalg.inv(pose), BACKGROUND).rgb
        title = (
            f'{abs(angle)}° to the {"right" if angle > 0 else "left"}' if angle else 'from the first camera'
        )
        views.append(NewView(title, _bytes(rgb)))
    return depth, tuple(views)


def fly(
    gaussians: Gaussians, semantic: Tensor, path: CameraPath, camera: Camera
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pictures of the path, drawn on demand: (H, W, 3) uint8 RGB in the scene's colours, and in
    `semantic` colours (N, 3) in [0, 1] of the Gaussians, which lie in the frame in which the path starts.
    """
    camera, background = path.camera or camera, torch.tensor(BACKGROUND)
    both = replace(gaussians, codes=semantic.to(gaussians.means))  # one rendering draws the two
    for pose in path.start_from_camera:
        drawn = render(both, camera, np.linalg.inv(pose), BACKGROUND)
        yield (
            _bytes(drawn.rgb),
            _bytes(drawn.codes + (1 - drawn.alpha)[..., None] * background.to(drawn.codes)),
        )


@torch.inference_mode()
def semantic_colors(gaussians: Gaussians, decoders: Decoders) -> Tensor:
    """(N, 3) in [0, 1]: the meaning of each Gaussian as a colour. Close meanings have close colours.

    The three principal components of the unit features that the region-specific decoder reads from the codes.
    The published demo decodes the rendering and fits on it; here the Gaussians themselves are coloured, so
    that nothing flickers along a path, and a picture costs no decoding. If the decoder reads neighbouring
    pixels, which Gaussians do not have, the codes themselves are compared.
    """
    if not len(gaussians):
        return gaussians.means.new_zeros(0, 3)
    solid = (gaussians.opacities >= SOLID).nonzero()[:, 0]
    solid = solid if len(solid) else torch.arange(len(gaussians), device=gaussians.means.device)
    sample = solid[torch.linspace(0, len(solid) - 1, min(SAMPLE, len(solid))).long()]
    region = gaussians.codes[:, :CODE_DIM]
    if any(getattr(layer, 'kernel_size', (1, 1)) != (1, 1) for layer in decoders.language_decoder_sam):
        principal = Principal.fit(region[sample].cpu().numpy())
        projected = region @ torch.as_tensor(principal.components).to(region).T
    else:
        features = torch.nn.functional.normalize(
            decoders.decode(gaussians.codes[sample, None])[0][:, 0], dim=-1
        )
        principal = Principal.fit(features.cpu().numpy())
        components = torch.as_tensor(principal.components).to(region)
        projected = decoders.region(gaussians.codes[:, None]).similarities(components).T
    return torch.from_numpy(principal.colors(projected.cpu().numpy())).to(gaussians.means)


def _bytes(rgb: Tensor) -> np.ndarray:
    return np.rint(rgb.clamp(0, 1).mul(255).cpu().numpy()).astype(np.uint8)
