"""The real node with a fake pipeline, as a process of its own: `python node_program.py [--ros-args ...]`.

The Gaussians of its scenes encode the input, so that tests can check the pixels, camera and baseline.
"""

import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from gsemsplat_ros.device import NoGpuMemory
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import fit
from gsemsplat_ros.ros.main import main
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.semantics.answer import THRESHOLD, Answer, AnswerPicture, GaussianArrays
from gsemsplat_ros.semantics.objects import Object
from gsemsplat_ros.semantics.words import is_latin, read

COUNT = 100  # Gaussians
FOUND = {  # first word of a query -> object
    'chair': Object(center=(0.5, 0.25, 2.0), size=(0.4, 0.6, 0.4), score=0.875),
    'door': Object(center=(-1.0, 0.0, 4.0), size=(1.0, 2.0, 0.25), score=0.75),
}
MAP = np.full((24, 32), 0.25, np.float32)
MAP[6, 8], MAP[:, 16:] = 0.875, np.nan  # the right half was not rendered
RENDERING = SimpleNamespace(
    depth=torch.full((24, 32), 2.0), alpha=torch.ones(24, 32), rgb=torch.full((24, 32, 3), 0.5)
)


class FakePipeline:
    """weights: 'missing' and 'broken' fail to load, 'slow' takes 60 s for a scene, 'busy' 0.5 s. A GPU
    has no memory for 'large', and none for a scene of 'filling'."""

    def __init__(self, weights, device='cpu'):
        self.weights, self.geometry = str(weights or 'fake'), ''
        self.text_encoder = SimpleNamespace(name='fake text')
        self.device = device
        self.code_space = CodeSpace(self.weights, 'fake text', 'fake decoders', 32)

    @classmethod
    def load(
        cls, weights=None, device='auto', text_checkpoint=None, square=False, canonical=(), geometry=None
    ):
        if weights == 'missing':
            raise ValueError('no checkpoint at missing')
        if weights == 'broken':
            raise RuntimeError('a fault of ours')
        if weights == 'large' and device != 'cpu':
            raise NoGpuMemory('the GPU has no memory for the network')
        return cls(weights, 'cpu' if device == 'auto' else device)

    def build(self, pair):
        if self.weights == 'filling' and self.device != 'cpu':
            raise NoGpuMemory('the GPU has no memory for a pair')
        if self.weights == 'slow':
            print('building', flush=True)
            time.sleep(60)
        if self.weights == 'busy':
            print('building', flush=True)
            time.sleep(0.5)
        first, second = pair.first, pair.second
        if not first.image[0, 0].any():
            raise RuntimeError('the fake fails on black corners')
        camera = first.camera or Camera(64, 48, 1.0, 1.0, 0.0, 0.0)
        means = torch.zeros(COUNT, 3)
        means[:, 0], means[:, 2] = torch.linspace(-1, 1, COUNT), 2.0
        means[2:10, 1] = 1.0  # so that neighbours on the line are one object (find_objects)
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

    def index(self, map_, before):
        return SimpleNamespace(map=map_)

    def query(self, target, question):
        if question.text == 'boom':
            raise RuntimeError('a fault of ours')
        if question.text == 'slow':
            print('asking', flush=True)
            time.sleep(2)
            print('asked', flush=True)
        answer = (answer_of_scene if isinstance(target, Scene) else answer_of_map)(target, question)
        return replace(answer, note=read(question.text, is_latin).note)


def answer_of_scene(scene, question):
    thing = FOUND.get(question.text.split(' ')[0])
    score = thing.score if thing else 0.25
    threshold = question.threshold or THRESHOLD
    found = score >= threshold
    lit = np.full(COUNT, found)
    lit[: COUNT // 2] = False  # those with x > 0
    return Answer(
        question.text,
        threshold,
        found,
        score,
        (0.5, 0.25, 2.0) if thing else None,
        (17.0, 13.0),
        (thing,) * min(question.max_objects, 2) if found else (),
        gaussians=GaussianArrays(np.where(lit, np.float32(score), np.float32(0)), lit),
        picture=AnswerPicture(MAP, np.zeros(MAP.shape, bool)),
    )


def answer_of_map(index, question):
    """FOUND without the door, 2 m above the middle of the map's Gaussians, out of the robot's way."""
    word = question.text.split(' ')[0]
    thing = FOUND.get(word) if word != 'door' else None
    score = thing.score if thing else 0.25
    threshold = question.threshold or THRESHOLD
    found = score >= threshold
    middle = index.map.gaussians.means.double().mean(0) + torch.tensor([0.0, 0.0, 2.0])
    here = Object(tuple(middle.tolist()), (0.4, 0.6, 0.4), score)
    return Answer(question.text, threshold, found, score, here.center, None, (here,) if found else ())


def run(load_pipeline):
    """Run the node to its end and exit; prints which threads are left."""
    status = main(load_pipeline=load_pipeline)
    # except the executor's pool, which ends with the interpreter
    print(
        'left over:',
        [
            t.name
            for t in threading.enumerate()
            if t is not threading.main_thread() and 'ThreadPoolExecutor' not in t.name
        ],
    )
    sys.exit(status)


if __name__ == '__main__':
    run(FakePipeline.load)
