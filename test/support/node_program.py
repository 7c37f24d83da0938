"""The real node as a process of its own, on a pipeline whose answers are known: `python node_program.py
[--ros-args ...]`.

Scenes tell what came in, so that a test sees whether the right pixels, camera and baseline reached the
pipeline.
"""

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import fit
from gsemsplat_ros.pipeline import MapRelevancy, Relevancy
from gsemsplat_ros.ros.main import main
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.semantics.objects import Object

COUNT = 100  # Gaussians
FOUND = {  # by the first word
    'chair': Object(center=(0.5, 0.25, 2.0), size=(0.4, 0.6, 0.4), score=0.875),
    'door': Object(center=(-1.0, 0.0, 4.0), size=(1.0, 2.0, 0.25), score=0.75),
}
MAP = np.full((24, 32), 0.25, np.float32)
MAP[6, 8], MAP[:, 16:] = 0.875, np.nan  # the right half was not rendered
RENDERING = SimpleNamespace(depth=torch.full((24, 32), 2.0), alpha=torch.ones(24, 32))


class FakePipeline:
    """weights: 'missing' and 'broken' fail to load, 'slow' takes a minute for a scene, 'busy' half a
    second.
    """

    def __init__(self, weights):
        self.weights = str(weights or 'fake')
        self.text_encoder = SimpleNamespace(name='fake text')
        self.device = 'cpu'
        self.code_space = CodeSpace(self.weights, 'fake text', 'fake decoders')

    @classmethod
    def load(cls, weights=None, device='auto', text_checkpoint=None, square=False, canonical=()):
        if weights == 'missing':
            raise ValueError('no checkpoint at missing')
        if weights == 'broken':
            raise RuntimeError('a fault of ours')
        return cls(weights)

    def build(self, pair):
        if self.weights == 'slow':
            print('building', flush=True)
            time.sleep(60)
        if self.weights == 'busy':
            time.sleep(0.5)
        first, second = pair.first, pair.second
        if not first.image.any():
            raise RuntimeError('the fake fails on black images')
        camera = first.camera or Camera(64, 48, 1.0, 1.0, 0.0, 0.0)
        means = torch.zeros(COUNT, 3)
        means[:, 0], means[:, 2] = torch.linspace(-1, 1, COUNT), 2.0
        means[0] = torch.tensor([camera.fx, camera.cx, pair.baseline_m or 0.0])
        if first.map_from_camera is not None:
            means[1] = torch.from_numpy(first.map_from_camera[:3, 3])
        colors = torch.full((COUNT, 3), 0.5)
        colors[0], colors[1] = (
            torch.tensor(first.image[0, 0] / 255.0),
            torch.tensor(second.image[0, 0] / 255.0),
        )
        quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(COUNT, 1)
        gaussians = Gaussians(
            means,
            quats,
            torch.full((COUNT, 3), 0.01),
            torch.linspace(0.1, 0.9, COUNT),
            colors,
            torch.arange(COUNT * 32.0).reshape(COUNT, 32),
            first.frame,
        )
        _, window = fit(first, 64, 48)
        keyframe = Keyframe(
            Camera(32, 24, 1.0, 1.0, 0.0, 0.0),
            RENDERING,
            None,
            first.image,
            window,
            first.frame,
            first.stamp_ns,
        )
        pose = np.eye(4)
        pose[:3, :3], pose[0, 3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]], 0.125  # a quarter turn about z
        moved = pair.first_from_second
        metres = 0.0 if moved is None else float(np.linalg.norm(moved[:3, 3]))
        scale, source = (metres, 'tf') if metres > 0.05 else (0.5, 'network')
        return Scene(
            gaussians,
            keyframe,
            pose,
            scale,
            'stereo baseline' if pair.baseline_m else source,
            70,
            90,
            {'predict': 0.001},
        )

    def query(self, scene, text, threshold=None, max_objects=8):
        if not text or len(text) > 200:
            raise ValueError(f'query of {len(text)} characters: wanted 1 to 200')
        if text == 'boom':
            raise RuntimeError('a fault of ours')
        threshold = threshold or 0.5
        thing = FOUND.get(text.split(' ')[0])
        score = thing.score if thing else 0.25
        found = score >= threshold
        return Relevancy(
            text,
            found,
            score,
            threshold,
            0,
            MAP,
            (17.0, 13.0),
            (0.5, 0.25, 2.0) if thing else None,
            (thing,) * min(max_objects, 2) if found else (),
        )

    def query_map(self, map_, text, threshold=None, max_objects=8):
        """What was FOUND lies in the middle of the map's Gaussians, 2 m above them: out of the robot's way.
        No map knows the door."""
        if text == 'boom':
            raise RuntimeError('a fault of ours')
        word = text.split(' ')[0]
        thing, threshold = FOUND.get(word) if word != 'door' else None, threshold or 0.5
        score = thing.score if thing else 0.25
        middle = map_.gaussians.means.double().mean(0) + torch.tensor([0.0, 0.0, 2.0])
        here = Object(tuple(middle.tolist()), (0.4, 0.6, 0.4), score)
        return MapRelevancy(
            text,
            score >= threshold,
            score,
            threshold,
            0,
            np.full(len(map_), score, np.float32),
            here.center,
            (here,) if score >= threshold else (),
        )


if __name__ == '__main__':
    status = main(load_pipeline=FakePipeline.load)
    # the executor's pool ends with the interpreter
    print(
        'left over:',
        [
            t.name
            for t in threading.enumerate()
            if t is not threading.main_thread() and 'ThreadPoolExecutor' not in t.name
        ],
    )
    sys.exit(status)
