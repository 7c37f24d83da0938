"""The node of `gsemsplat bench --node`, run as a module: every pair becomes the same Gaussians at once."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from gsemsplat_ros.bench.tools import wall
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_index import MapIndex
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.ros.main import main
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.scene import Keyframe, Scene

COUNT = 400_000  # Gaussians in the message: two views of 512 x 384 make as many
CPU = 'processor time: '  # before the seconds that the node has computed, in its log, at each pair


def idle_gaussians() -> Gaussians:
    """COUNT Gaussians, as a scene has them."""
    gaussians, _ = wall(640, 320, 32)
    return gaussians.select(slice(0, COUNT))


class IdlePipeline:
    """In the place of the pipeline; it cannot be queried."""

    def __init__(self) -> None:
        self.weights, self.device, self.text_encoder = 'none', 'cpu', SimpleNamespace(name='none')
        self.geometry, self.code_space = '', CodeSpace('none', 'none', 'none', 32)
        self._gaussians = idle_gaussians()
        self._camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
        self._rendering = SimpleNamespace(depth=torch.full((48, 64), 2.0), alpha=torch.ones(48, 64))

    def build(self, pair: Pair) -> Scene:
        """The same Gaussians, in the frame of the pair."""
        print(f'{CPU}{time.process_time():.6f}', flush=True)
        view = pair.first
        height, width = view.image.shape[:2]
        window = Window(width, height, width, height, 1.0, 1.0, 0.0, 0.0)
        keyframe = Keyframe(
            self._camera,
            cast(Any, self._rendering),
            cast(Any, None),
            view.image,
            window,
            view.frame,
            view.stamp_ns,
        )
        return Scene(
            replace(self._gaussians, frame=view.frame),
            keyframe,
            np.eye(4),
            1.0,
            'stereo baseline',
            1,
            1,
            {'predict': 0.0},
        )

    def index(self, map_: Map, before: MapIndex | None = None) -> MapIndex:
        """The map without what queries need."""
        return cast(MapIndex, SimpleNamespace(map=map_))


if __name__ == '__main__':
    sys.exit(main(load_pipeline=lambda *args, **kwargs: cast(Pipeline, IdlePipeline())))
