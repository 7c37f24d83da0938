"""Samples of a room with known geometry, and a pipeline with given answers."""

import math

import numpy as np
import torch

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import Rendering
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import fit
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.semantics.answer import Answer, AnswerPicture

WIDTH, HEIGHT, FOCAL = 32, 16, 16.0  # of the images [px]; the keyframe has half the resolution


K = np.array([[FOCAL, 0, 15.5], [0, FOCAL, 7.5], [0, 0, 1]])


def turn_y(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]])


def moved(x=0.0, y=0.0, z=0.0):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def make_sample(depth=2.0, stereo=False, second=moved(0.2), target=moved(0.1), names=('void', 'wall')):
    shape = (3, HEIGHT, WIDTH)
    return Sample(
        images=np.full((*shape, 3), 51, np.uint8),
        depth=np.full(shape, depth, np.float32),
        instance=np.ones(shape, np.int16),
        first_from_camera=np.stack([np.eye(4), second, target]),
        camera=Camera.from_K(K, WIDTH, HEIGHT),
        names=list(names),
        stereo=stereo,
    )


def flat_gaussians(means, colors, scale=0.01, opacity=1.0):
    n = len(means)
    return Gaussians(
        torch.tensor(means, dtype=torch.float32),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        torch.full((n, 3), scale),
        torch.full((n,), opacity),
        torch.tensor(colors, dtype=torch.float32),
        torch.zeros(n, 32),
        'camera',
    )


NOTHING = flat_gaussians([[0, 0, -1.0]], [[1.0, 1, 1]])  # behind every camera


class FakePipeline:
    """build: a scene with the given depth (8, 16); query: the given relevancy map and `found`."""

    def __init__(self, depth=2.0, gaussians=NOTHING, pose=None, answers=None):
        self.depth, self.gaussians, self.pose = depth, gaussians, pose
        self.answers, self.pairs, self.texts = answers or {}, [], []

    def build(self, pair):
        self.pairs.append(pair)
        view, window = fit(pair.first, WIDTH, HEIGHT)
        camera = view.camera or Camera.centred(WIDTH, HEIGHT, FOCAL)
        camera = camera.resized(WIDTH // 2, HEIGHT // 2)
        shape = camera.height, camera.width
        depth = torch.from_numpy(np.broadcast_to(np.float32(self.depth), shape).copy())
        rendering = Rendering(torch.zeros(*shape, 3), depth, torch.ones(shape), torch.zeros(*shape, 32))
        keyframe = Keyframe(camera, rendering, None, pair.first.image, window, 'camera', 0)
        return Scene(self.gaussians, keyframe, self.pose, 1.0, 'network', 0, 0, {})

    def query(self, scene, text):
        self.texts.append(text)
        relevancy, found = self.answers.get(text, (np.zeros((8, 16), np.float32), False))
        picture = AnswerPicture(relevancy, np.zeros(relevancy.shape, bool))
        if np.isnan(relevancy).all():
            return Answer(text, 0.5, False, 0.0, None, None, (), picture=picture)
        row, column = np.unravel_index(np.nanargmax(relevancy), relevancy.shape)
        pixel = tuple(scene.keyframe.to_input_pixel(np.array([column, row], float)))
        score = float(np.nanmax(relevancy))
        return Answer(text, 0.5, found, score, (0.0, 0.0, 1.0), pixel, (), picture=picture)
