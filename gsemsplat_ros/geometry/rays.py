"""Predicted points moved onto the true rays of calibrated cameras.

The network gets uncalibrated images and predicts rays of its own. With a calibration each view's points are
moved onto its true rays, so that each is drawn at the pixel it came from; depths stay the network's,
corrected to the measured ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from gsemsplat_ros.geometry.pose import PairPose
from gsemsplat_ros.geometry.refine import MIN_DEPTH, bend
from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.network.model import Prediction, ViewPrediction


@torch.inference_mode()
def snap_view(
    view: ViewPrediction,
    camera: Camera,
    first_from_camera: np.ndarray,
    first_from_points: np.ndarray,
    image: np.ndarray,
    measured: tuple[np.ndarray, np.ndarray] | None,
) -> ViewPrediction:
    """Points (1, h, w, 3) of one view onto the rays of `camera` (w x h) at `first_from_camera` (4, 4).

    first_from_points (4, 4): pose of the camera by the points themselves, from which their depths are taken;
    image (h, w, 3) uint8; measured: pixels (N, 2) and depths (N,). All in the network's unit. Gaussians keep
    their offsets; offsets and scales grow with the depths.
    """
    assert view.means is not None and view.scales is not None, 'a prediction without Gaussians'
    device = view.pts3d.device
    rays = torch.from_numpy(camera.rays(pixel_grid(camera.height, camera.width))).float().to(device)
    camera_from_first = torch.from_numpy(np.linalg.inv(first_from_points)).float().to(device)
    depth = view.pts3d @ camera_from_first[2, :3] + camera_from_first[2, 3]  # (1, h, w)
    depth = depth.clamp(min=MIN_DEPTH)
    factor = bend(depth[0].cpu().numpy(), image, *measured) if measured else None
    growth = torch.ones_like(depth) if factor is None else torch.from_numpy(factor).float().to(device)[None]
    local = rays * (depth * growth)[..., None]
    pose = torch.from_numpy(np.asarray(first_from_camera)).float().to(device)
    points = local @ pose[:3, :3].T + pose[:3, 3]
    return replace(
        view,
        pts3d=points,
        means=points + growth[..., None] * (view.means - view.pts3d),
        scales=view.scales * growth[..., None],
    )


def snap_to_rays(
    prediction: Prediction,
    cameras: tuple[Camera, Camera],
    pose: PairPose,
    images: tuple[np.ndarray, np.ndarray],
) -> Prediction:
    """Both views onto the rays of their cameras (the second if its pose is known) and to measured depths.

    images: of the two views, (h, w, 3) uint8 at the size of the cameras.
    """
    matches = pose.matches
    first_seen, second_seen = (
        ((matches.uv_first, matches.z_first), (matches.uv_second, matches.z_second))
        if matches is not None
        else (None, None)
    )
    snap_first = partial(snap_view, prediction.first, cameras[0], np.eye(4), np.eye(4), images[0], first_seen)
    if pose.first_from_second_net is None or pose.first_from_points_net is None:
        return Prediction(snap_first(), prediction.second)
    with ThreadPoolExecutor(1) as pool:  # the views are independent here: in parallel
        second = pool.submit(
            snap_view,
            prediction.second,
            cameras[1],
            pose.first_from_second_net,
            pose.first_from_points_net,
            images[1],
            second_seen,
        )
        return Prediction(snap_first(), second.result())
