"""Floaters: Gaussians in the air between a foreground and its background.

Where neighbouring pixels see surfaces far apart, a network that predicts a point for each pixel puts some
points in between, along the ray (btsmart/splatt3r#40). Those count as floaters that the other camera sees
through, onto what it sees itself, and that lie far from others for their size.

Either test alone takes more of them, and tears holes into surfaces that are seen at a flat angle, or that
both views place differently: pictures get worse by it (docs/measurements.md).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn.functional import max_pool2d

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.projection import NEAR
from gsemsplat_ros.images.camera import Camera

BEFORE = 1.1  # what the other camera sees is farther by this factor, in all pixels around
NEIGHBOURS, APART = 16, 6.0  # distance to the last of them, in the largest standard deviation of its own


def floaters(gaussians: Gaussians, camera: Camera, first_from_second: np.ndarray) -> np.ndarray:
    """(N,) bool: which Gaussians are floaters.

    gaussians: one for each pixel of two pictures of `camera`, as `Gaussians.from_prediction` lists them, in
    the frame of the first; of others none is a floater. first_from_second (4, 4): pose of the second camera.
    """
    pixels = camera.height * camera.width
    found = np.zeros(len(gaussians), bool)
    if len(gaussians) != 2 * pixels:
        return found
    means = gaussians.means.cpu().numpy().astype(np.float64)
    halves = slice(0, pixels), slice(pixels, None)
    for pose, own, others in (np.eye(4), *halves), (np.asarray(first_from_second), *reversed(halves)):
        placed = (means - pose[:3, 3]) @ pose[:3, :3]
        found[others] = in_front(placed[others], placed[own, 2].reshape(camera.height, camera.width), camera)
    distances, _ = cKDTree(means).query(means[found], NEIGHBOURS + 1)  # the first is itself
    found[found] = distances[:, -1] > APART * gaussians.scales.amax(1).cpu().numpy()[found]
    return found


def in_front(points: np.ndarray, depths: np.ndarray, camera: Camera) -> np.ndarray:
    """(N,) bool: which points (N, 3), in the frame of the camera, lie before all that it sees around their
    pixel; depths (h, w): of its pixels."""
    nearest = -max_pool2d(torch.from_numpy(-depths)[None], 3, 1, 1)[0].numpy()
    uv, ahead = camera.project(points, NEAR)
    pixels, inside = camera.index(uv)
    return ahead & inside & (BEFORE * points[:, 2] < nearest[pixels])
