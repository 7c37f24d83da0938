"""A calibrated camera knows the ray of every pixel: keep the network's depths, take the rays from the calibration.

The network sees uncalibrated images and predicts rays of its own; where `camera_info` says better, points are moved along
their own view's depth onto the true rays, so that what is drawn falls on the pixel it came from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gsemsplat_ros.mapping.pose import pixel_grid
from gsemsplat_ros.network.model import Prediction, ViewPrediction
from gsemsplat_ros.views.view import Camera

MIN_DEPTH = 1e-3         # unit of the network: points behind or in the camera are put just before it


def snap_view(view: ViewPrediction, camera: Camera, first_from_camera: np.ndarray) -> ViewPrediction:
    """Points (1, h, w, 3) of one view onto the rays of `camera` (w x h); the Gaussians' offsets stay."""
    device = view.pts3d.device
    u, v = torch.from_numpy(pixel_grid(camera.height, camera.width)).to(device).unbind(-1)
    rays = torch.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, torch.ones_like(u)), -1).float()
    camera_from_first = torch.from_numpy(np.linalg.inv(first_from_camera)).float().to(device)
    depth = view.pts3d @ camera_from_first[2, :3] + camera_from_first[2, 3]              # (1, h, w)
    local = rays * depth.clamp(min=MIN_DEPTH)[..., None]
    pose = torch.from_numpy(np.asarray(first_from_camera)).float().to(device)
    points = local @ pose[:3, :3].T + pose[:3, 3]
    return replace(view, pts3d=points, means=points + (view.means - view.pts3d))


def snap_to_rays(prediction: Prediction, first: Camera, second: Camera,
                 first_from_second: np.ndarray | None) -> Prediction:
    """Both views onto the rays of their cameras; the second only when its pose is known (unit of the network)."""
    view2 = prediction.second
    if first_from_second is not None:
        view2 = snap_view(view2, second, first_from_second)
    return Prediction(snap_view(prediction.first, first, np.eye(4)), view2)
