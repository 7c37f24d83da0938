"""What leaving floaters out changes, in rooms with true depth: whom it takes, a picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from tqdm import tqdm

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.evaluation.metrics import (
    at_keyframe,
    bootstrap_interval,
    countable,
    mean,
    median_scale,
    psnr,
)
from gsemsplat_ros.gaussians.floaters import floaters
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene

AROUND = 5  # pixels of the network's output, a side: true surfaces so near make an edge
GAP = 0.15  # of the nearer surface's depth: what is less apart is no edge
BETWEEN = 0.2  # of the gap, from either surface: a floater lies farther
GOOD = 0.05  # of the depth: what is nearer to the true surface of its pixel is good
MEASURES = {
    'left_out': 'part of all Gaussians',
    'true_floaters': 'part of all that lie between both surfaces of a depth edge at their pixel',
    'true_left_out': 'part of these that are left out',
    'good_left_out': 'part of those within 5 % of the true depth of their pixel that are left out',
    'psnr_before': 'at the third pose, where view 1 or 2 sees the surface [dB]',
    'psnr_gain': 'what leaving out adds to it [dB]',
    'depth_error_before': 'mean error of the depth there [m]',
    'depth_error_gain': 'what leaving out adds to it [m]',
}


def evaluate_floaters(pipeline: Pipeline, samples: Iterable[Sample], seed: int = 0) -> dict:
    """The mean of each of MEASURES over the pairs whose second pose was found, 95 % bootstrap `intervals` by
    the same keys; pairs. Raises ValueError where there is none."""
    scores: dict[str, list[list[float]]] = {name: [] for name in MEASURES}
    for sample in tqdm(samples, unit='pair', desc='rooms', disable=None):
        scene = pipeline.build(sample.pair)
        if scene.first_from_second is None:
            continue
        for name, value in score_scene(scene, sample).items():
            scores[name].append([value])
    if not scores['left_out']:
        raise ValueError('no pair of the rooms has a second pose: wanted at least one')
    return {
        **{name: mean(values) for name, values in scores.items()},
        'pairs': len(scores['left_out']),
        'intervals': {name: bootstrap_interval(values, seed) for name, values in scores.items()},
    }


def score_scene(scene: Scene, sample: Sample) -> dict[str, float]:
    """MEASURES of one scene, whose second pose is known."""
    assert scene.first_from_second is not None
    depth = scene.keyframe.rendering.depth.cpu().numpy()
    scale = median_scale(depth, at_keyframe(scene.keyframe, sample.depth[0]))
    out = floaters(scene.gaussians, scene.keyframe.camera, scene.first_from_second)
    true, good = truth_of(scene, sample, scale)
    seen = sample.target_seen()
    aligned = scene.gaussians.scaled(scale)
    before, after = (drawn(aligned.select(torch.from_numpy(kept)), sample, seen) for kept in (out >= 0, ~out))
    return {
        'left_out': out.mean(),
        'true_floaters': true.mean(),
        'true_left_out': out[true].mean() if true.any() else np.nan,
        'good_left_out': out[good].mean() if good.any() else np.nan,
        'psnr_before': before[0],
        'psnr_gain': after[0] - before[0],
        'depth_error_before': before[1],
        'depth_error_gain': after[1] - before[1],
    }


def truth_of(scene: Scene, sample: Sample, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Which Gaussians (N,) bool are true floaters, and which are good, by the true depths of their view."""
    keyframe = scene.keyframe
    means = scene.gaussians.means.cpu().numpy().astype(np.float64)
    pixels = keyframe.camera.width * keyframe.camera.height
    true, good = [], []
    for number, pose in enumerate((np.eye(4), np.asarray(scene.first_from_second))):
        own = means[number * pixels : (number + 1) * pixels]
        z = scale * ((own - pose[:3, 3]) @ pose[:3, 2])
        truth = at_keyframe(keyframe, sample.depth[number])
        known = np.where(truth > 0, truth, np.inf).astype(np.float32)
        near = cv2.erode(known, np.ones((AROUND, AROUND))).ravel()
        far = cv2.dilate(truth, np.ones((AROUND, AROUND))).ravel()
        gap = far - near
        true.append((gap > GAP * near) & (z > near + BETWEEN * gap) & (z < far - BETWEEN * gap))
        good.append((np.abs(z - truth.ravel()) < GOOD * truth.ravel()) & ~true[-1])
    return np.concatenate(true), np.concatenate(good)


def drawn(gaussians: Gaussians, sample: Sample, seen: np.ndarray) -> tuple[float, float]:
    """PSNR [dB] and mean depth error [m] at the third pose, where `seen` (H, W)."""
    picture = render(gaussians, sample.camera, np.linalg.inv(sample.first_from_camera[2]))
    depth, truth = picture.depth.cpu().numpy(), sample.depth[2]
    use = seen & countable(depth, truth)
    error = float(np.abs(depth - truth)[use].mean()) if use.any() else float('nan')
    return psnr(picture.rgb.cpu().numpy().clip(0, 1), sample.images[2] / 255, seen), error
