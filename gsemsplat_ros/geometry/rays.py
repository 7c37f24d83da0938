"""Predicted points moved onto the true rays of calibrated cameras.

The network gets uncalibrated images and predicts rays of its own. With a calibration each view's points are
moved onto its true rays, so that each is drawn at the pixel it came from; depths stay the network's,
corrected to the measured ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.device import upload
from gsemsplat_ros.geometry.pose import PairPose
from gsemsplat_ros.geometry.refine import MIN_DEPTH, bend
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.model import Prediction, ViewPrediction


def snap_to_rays(
    prediction: Prediction,
    points: tuple[np.ndarray, np.ndarray],
    cameras: tuple[Camera, Camera],
    pose: PairPose,
    images: tuple[np.ndarray, np.ndarray],
) -> Prediction:
    """Both views onto the rays of their cameras (the second if its pose is known) and to measured depths.

    points: of the prediction's views, (h, w, 3) each, on the host; images: of the two views, (h, w, 3) uint8
    at the size of the cameras. The corrections go to the prediction's device in one copy.
    """
    views = [prediction.first]
    # poses of each view's camera, true and by the points themselves, from which their depths are taken
    poses = [(np.eye(4), np.eye(4))]
    if pose.first_from_second_net is not None and pose.first_from_points_net is not None:
        views.append(prediction.second)
        poses.append((pose.first_from_second_net, pose.first_from_points_net))
    seen = (
        [None, None]
        if (matches := pose.matches) is None
        else [(matches.uv_first, matches.z_first), (matches.uv_second, matches.z_second)]
    )
    axes = [np.linalg.inv(by_points)[2] for _, by_points in poses]  # z of a point in the camera by the points
    with ThreadPoolExecutor(len(views)) as pool:  # the views are independent: in parallel
        growths = list(pool.map(_growth, points, axes, images, seen))
    snapped = _snapped(views, cameras, [true for true, _ in poses], axes, growths)
    return Prediction(snapped[0], snapped[1] if len(views) > 1 else prediction.second)


def _growth(
    points: np.ndarray, axis: np.ndarray, image: np.ndarray, seen: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """(h, w) factor of the depths axis . (points, 1) by what was `seen`: pixels (N, 2) and depths (N,)."""
    factor = None
    if seen is not None:
        axis = axis.astype(np.float32)
        factor = bend(np.maximum(points @ axis[:3] + axis[3], MIN_DEPTH), image, *seen)
    return np.ones(points.shape[:2], np.float32) if factor is None else factor


@torch.inference_mode()
def _snapped(
    views: Sequence[ViewPrediction],
    cameras: Sequence[Camera],
    poses: Sequence[np.ndarray],
    axes: Sequence[np.ndarray],
    growths: Sequence[np.ndarray],
) -> list[ViewPrediction]:
    """Points (1, h, w, 3) of each view onto the rays of its camera (w x h) at first_from_camera (4, 4), at
    their depths along `axes` times `growths` (h, w). All in the network's unit. Gaussians keep their offsets;
    offsets and scales grow with the depths."""
    device = views[0].pts3d.device
    matrices = np.array([np.vstack((pose[:3], axis)) for pose, axis in zip(poses, axes)])
    packed = upload(np.concatenate((matrices.ravel(), np.ravel(growths))).astype(np.float32), device)
    on_device = packed[: matrices.size].view(matrices.shape), packed[matrices.size :].view(np.shape(growths))
    snapped = []
    for view, camera, matrix, growth in zip(views, cameras, *on_device):
        assert view.means is not None and view.scales is not None, 'a prediction without Gaussians'
        depth = (view.pts3d @ matrix[3, :3] + matrix[3, 3]).clamp(min=MIN_DEPTH)  # (1, h, w)
        local = _rays(camera, device) * (depth * growth)[..., None]
        points = local @ matrix[:3, :3].T + matrix[:3, 3]
        means = points + growth[..., None] * (view.means - view.pts3d)
        snapped.append(replace(view, pts3d=points, means=means, scales=view.scales * growth[..., None]))
    return snapped


def _rays(camera: Camera, device: torch.device) -> Tensor:
    """(height, width, 3) float32: `camera.rays` of its pixels, made on the device."""
    u = (torch.arange(camera.width, device=device, dtype=torch.float32) - camera.cx) / camera.fx
    v = (torch.arange(camera.height, device=device, dtype=torch.float32) - camera.cy) / camera.fy
    v, u = torch.meshgrid(v, u, indexing='ij')
    return torch.stack((u, v, torch.ones_like(u)), -1)
