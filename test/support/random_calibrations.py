"""Random calibrations through the real pipeline: `python -m support.random_calibrations WEIGHTS COUNT`.

The network is a stand-in: its points are those of the drawn pictures, so that matches, poses and flow find
something. A calibration has finite numbers, all believable or but for one. It is refused by ValueError, or
makes a scene and an answer in finite numbers. Prints how many of each kind were made, measured in the images,
and refused, as JSON. Anything else that is raised, RuntimeWarnings among it, ends the process.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec

import cv2
import numpy as np
import torch

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.network.model import ViewPrediction
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer, Question

# and how many numbers each has; raw: as the node rectifies images
KINDS = {'stereo': 6, 'free': 8, 'one camera': 4} | ({'raw': 25} if find_spec('sensor_msgs') else {})
LONG_SIDE = 128  # px, of the stand-in network
SIZES = ((128, 96), (96, 128), (160, 90), (80, 80), (64, 48), (33, 40), (200, 32))
MODELS = (('plumb_bob', 5), ('plumb_bob', 4), ('rational_polynomial', 8), ('equidistant', 4), ('fisheye', 4))
NEAREST, FARTHEST = 2.0, 4.0  # units of the network


@lru_cache
def drawn(width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two pictures (height, width, 3) of one textured relief, the second from farther to the right, and the
    depth (height, width) of the first.
    """
    rng = np.random.default_rng(width * height)
    relief = cv2.resize(rng.random((3, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    depth = NEAREST + (FARTHEST - NEAREST) * relief.clip(0, 1)
    small = rng.integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8)
    first = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    shift = (0.15 * width / depth).astype(np.float32)
    return first, cv2.remap(first, u + shift, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), depth


def as_drawn(view: ViewPrediction, depth: np.ndarray, moved: float) -> ViewPrediction:
    """The prediction with points at `depth` on the rays of a common camera, `moved` to the right."""
    height, width = view.conf.shape[-2:]
    camera = Camera.centred(width, height, 0.9 * width)
    points = camera.unproject(cv2.resize(depth, (width, height))) + (moved, 0.0, 0.0)
    points = torch.from_numpy(points).float()[None]
    return replace(view, pts3d=points, means=points)


def use_drawn_points(pipeline: Pipeline, depth: dict[str, np.ndarray]) -> None:
    """Let the network of `pipeline` predict depth['first'], which the caller sets."""
    predict = pipeline.network.predict

    def predicted(*arguments):
        found = predict(*arguments)
        return replace(
            found,
            first=as_drawn(found.first, depth['first'], 0.0),
            second=as_drawn(found.second, depth['first'], 0.17),
        )

    pipeline.network.predict = predicted


class Numbers:
    """Believable numbers, of which one, in every second calibration, is replaced by one that is not."""

    def __init__(self, rng: np.random.Generator, count: int):
        self.rng, self.left = rng, int(rng.integers(count)) if rng.random() < 0.5 else -2

    def __call__(self, usual: float) -> float:
        self.left -= 1
        return self.wild(usual) if self.left == -1 else usual

    def wild(self, usual: float) -> float:
        """Any finite number, or the usual one a few times too large or too small."""
        rng, sign = self.rng, float(self.rng.choice((-1, 1)))
        return float(
            rng.choice(
                (
                    0.0,
                    -usual,
                    usual * 10 ** rng.uniform(-3, 3),
                    usual + sign * 10 ** rng.uniform(0, 6),
                    sign * 10 ** rng.uniform(-300, 300),
                )
            )
        )

    def camera(self, width: int, height: int) -> Camera:
        focal = width * 10 ** self.rng.uniform(-0.4, 0.5)
        cx, cy = (side / 2 + side * self.rng.normal() * 0.1 for side in (width, height))
        return Camera(width, height, *map(self, (focal, focal * self.rng.uniform(0.9, 1.1), cx, cy)))

    def pose(self) -> np.ndarray:
        """(4, 4) of one camera in a map."""
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(self.rng.normal(size=3) * 0.05)[0]
        pose[:3, 3] = self.rng.normal(size=3) * 10 ** self.rng.uniform(-3, 1)
        return pose


def pair_of(kind: str, images: tuple[np.ndarray, np.ndarray], numbers: Numbers) -> Pair:
    """A pair of `kind`. Raises ValueError for a calibration that is refused."""
    rng = numbers.rng
    (height, width), (left, right) = images[0].shape[:2], images
    if kind == 'raw':
        return raw_pair(images, numbers)
    camera = numbers.camera(width, height)
    if kind == 'stereo':
        baseline = numbers(10 ** rng.uniform(-2, 0))
        apart = width * (0.05 if rng.random() < 0.7 else 1.0)  # far apart, no columns are left to match
        other = replace(camera, cx=numbers(camera.cx + apart * rng.normal()))
        return Pair(View(left, camera), View(right, other if rng.random() < 0.8 else None), baseline)
    poses: list[np.ndarray | None] = [numbers.pose(), numbers.pose()]
    if rng.random() < 0.7:
        poses[1] = poses[0] @ [[1, 0, 0, 0.2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]  # as the pictures
    cameras: list[Camera | None] = [camera, None]
    if kind == 'free':
        cameras[1] = camera if rng.random() < 0.5 else numbers.camera(width, height)
    elif rng.random() < 0.5:
        cameras.reverse()
    first, second = (
        View(image, camera, map_from_camera=pose) for image, camera, pose in zip(images, cameras, poses)
    )
    return Pair(first, second)


def raw_pair(images: tuple[np.ndarray, np.ndarray], numbers: Numbers) -> Pair:
    """A stereo pair as the node makes it of raw images: every number of its camera_infos may be wild."""
    from sensor_msgs.msg import CameraInfo

    from gsemsplat_ros.ros.calibration import Rectifier, baseline_of, camera_of

    rng, (height, width) = numbers.rng, images[0].shape[:2]
    focal, baseline = width * 10 ** rng.uniform(-0.4, 0.5), 10 ** rng.uniform(-2, 0)
    (model, count), views, infos = MODELS[rng.integers(len(MODELS))], [], []
    distortion, R = rng.normal(size=count) * 0.05, cv2.Rodrigues(rng.normal(size=3) * 0.02)[0].ravel()
    for tx, image in zip((0.0, -focal * baseline), images):
        fx, fy, cx, cy = map(numbers, (focal, focal, width / 2, height / 2))
        K = [fx, 0, cx, 0, fy, cy, 0, 0, 1]
        fx, fy, cx, cy, tx = map(numbers, (focal, focal, width / 2, height / 2, tx))
        P = [fx, 0, cx, tx, 0, fy, cy, 0, 0, 0, 1, 0]
        D = [numbers(value) for value in distortion]
        info = CameraInfo(width=width, height=height, distortion_model=model, d=D, k=K, p=P)
        info.r = [numbers(R[0]), *R[1:]] if count > 4 else [0.0] * 9  # of one camera, R may be empty
        views.append(View(Rectifier()(image, info), camera_of(info, width, height)))
        infos.append(info)
    return Pair(*views, baseline_of(*infos))


def check_finite(scene: Scene, answer: Answer) -> None:
    """Raises AssertionError for a number that would leave the pipeline and is none."""
    gaussians, rendering = scene.gaussians, scene.keyframe.rendering
    for name in ('means', 'quats', 'scales', 'opacities', 'colors', 'codes'):
        assert torch.isfinite(getattr(gaussians, name)).all(), name
    assert torch.isfinite(rendering.rgb).all() and not torch.isinf(rendering.depth).any()
    pose = np.eye(4) if scene.first_from_second is None else scene.first_from_second
    numbers = [scene.scale, scene.focal_spread, answer.score, *pose.ravel(), *scene.keyframe.camera.K.ravel()]
    for found in answer.objects:
        numbers += [*found.center, *found.size, found.score]
    numbers += [*(answer.peak_point or ()), *(answer.peak_pixel or ())]
    assert np.isfinite(numbers).all() and scene.scale > 0, numbers


def main(weights: str, count: int) -> None:
    warnings.simplefilter('error', RuntimeWarning)
    torch.set_num_threads(1)
    pipeline = Pipeline.load(weights, device='cpu')
    pipeline.model.config = pipeline.model.config.replace(long_side=LONG_SIDE)
    depth: dict[str, np.ndarray] = {}
    use_drawn_points(pipeline, depth)
    counts = {kind: {'made': 0, 'measured': 0, 'refused': 0} for kind in KINDS}
    for case in range(count):
        rng = np.random.default_rng(case)
        kind, size = list(KINDS)[case % len(KINDS)], SIZES[rng.integers(len(SIZES))]
        *images, depth['first'] = drawn(*size)
        pipeline.as_published = bool(rng.random() < 0.3)
        try:
            scene = pipeline.build(pair_of(kind, tuple(images), Numbers(rng, KINDS[kind])))
        except ValueError as error:
            assert type(error) is ValueError and '\n' not in str(error), error  # LinAlgError is one
            counts[kind]['refused'] += 1
            continue
        except Exception:
            print(f'case {case}, {kind}, {size}', file=sys.stderr)
            raise
        check_finite(scene, pipeline.query(scene, Question('chair', 0.01)))
        counts[kind]['made'] += 1
        counts[kind]['measured'] += bool(scene.measured.any())
    print(json.dumps(counts))


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
