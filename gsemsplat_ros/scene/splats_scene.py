"""The scene of Gaussians that a file of another format brought along with their codes and first camera."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.scene.scene import FILE_SCALE, NETWORK_SCALE, Keyframe, Scene, drawn_for_queries
from gsemsplat_ros.semantics.decoder import Decoders


def scene_of(splats: Splats, decoders: Decoders, canonical: np.ndarray | Tensor) -> Scene:
    """A scene that answers as the one that `splats` are of, which must have a camera and be in its axes. The
    rendering from there stands for the image.

    Raises ValueError for counts of other classes than the decoders'.
    """
    camera = splats.camera
    assert camera is not None, 'a map'
    device = next(decoders.parameters()).device
    gaussians = splats.joined().to(device)
    if splats.counts is not None and len(splats.counts) != decoders.dims[1]:
        raise ValueError(f'counts of {len(splats.counts)} classes, wanted {decoders.dims[1]}')
    counts = None if splats.counts is None else splats.counts.to(device)
    rendering = render(drawn_for_queries(gaussians, counts), camera, np.eye(4))
    hidden = decoders.prepare(rendering.codes, canonical, rendering.alpha, counts)
    image = (rendering.rgb.clamp(0, 1) * 255).round().byte().cpu().numpy()
    window = Window(camera.width, camera.height, camera.width, camera.height, 1.0, 1.0, 0.0, 0.0)
    keyframe = Keyframe(camera, rendering, hidden, image, window, gaussians.frame, 0)
    scale_source = FILE_SCALE if splats.metric else NETWORK_SCALE
    return Scene(gaussians, keyframe, None, 1.0, scale_source, 0, 0, {})
