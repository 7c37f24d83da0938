"""Dense matches of two calibrated views: pixels predicted from motion and depths, corrected by optical flow.

Matched corners fix the motion. With it, the depths predict where every pixel of the first view lies in the
second. The second view, warped back from there, differs from the first only by the errors of the depths;
optical flow measures these to a fraction of a pixel wherever there is texture.
"""

from __future__ import annotations

import cv2
import numpy as np

from gsemsplat_ros.geometry.epipolar import epipolar_errors, polish, triangulate
from gsemsplat_ros.geometry.matches import PairMatches
from gsemsplat_ros.geometry.motion import MIN_PARALLAX
from gsemsplat_ros.geometry.refine import MIN_DEPTH
from gsemsplat_ros.images.camera import Camera, pixel_grid

THERE_AND_BACK_PX = 1.0  # flow there and back must end this close to its start,
EPIPOLAR_PX = 1.0  # and this close to the epipolar line of the pixel
# root mean square of the gradient around a pixel [gray levels a px]: on flatter areas flow is unreliable
MIN_TEXTURE = 2.0
TEXTURE_BOX = 7  # px
POLISHED_BY = 1000  # random matches that polish the motion
MIN_MATCHES = 500  # fewer are not better than the corners
STRIDE = 2  # every so many pixels along a row or column become a match


def warp(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """`image` at the pixels uv (H, W, 2), bilinear; 0 outside."""
    return cv2.remap(
        image, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )


def project(
    depth: np.ndarray, camera: Camera, second: Camera, first_from_second_rel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W, 2) float32 of the second camera where those of the first `camera` fall, and which (H, W)
    bool lie in its image, occlusion ignored. depth (H, W) along the first camera's axis, in the pose's unit.
    """
    points = (camera.unproject(depth) - first_from_second_rel[:3, 3]) @ first_from_second_rel[:3, :3]
    uv, in_front = second.project(points, near=MIN_DEPTH)
    return uv.astype(np.float32), in_front & second.in_image(uv, margin=0.5)


def flow_matches(
    depth: np.ndarray,
    images: tuple[np.ndarray, np.ndarray],
    cameras: tuple[Camera, Camera],
    first_from_second_rel: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) of both images (H, W, 3) of the same points, by depth (H, W) of the first, in the unit of
    the motion, and by dense flow (Kroeger et al. 2016).
    """
    one, two = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images)
    uv, inside = project(depth, *cameras, first_from_second_rel)
    drawn = np.where(inside, warp(two, uv), one)
    dis = cv2.DISOpticalFlow_create(  # type: ignore[attr-defined]  # not in cv2's stubs
        cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
    )
    there, back = dis.calc(one, drawn, None), dis.calc(drawn, one, None)
    grid = pixel_grid(*one.shape).astype(np.float32)
    landed = grid + there
    good = np.linalg.norm(there + warp(back, landed), axis=-1) < THERE_AND_BACK_PX
    good &= inside & (warp(inside.astype(np.float32), landed) > 0.99)
    dx, dy = (cv2.Sobel(one, cv2.CV_32F, *axis, ksize=3, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    good &= cv2.blur(dx * dx + dy * dy, (TEXTURE_BOX, TEXTURE_BOX)) > MIN_TEXTURE**2
    kept = np.zeros_like(good)
    kept[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] = good[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    return grid[kept].astype(np.float64), warp(uv, landed)[kept].astype(np.float64)


def dense_matches(
    corners: PairMatches,
    depth: np.ndarray,
    images: tuple[np.ndarray, np.ndarray],
    cameras: tuple[Camera, Camera],
) -> PairMatches | None:
    """Matches at every textured pixel, from those of corners, whose motion they polish. None: too few.

    depth (h, w): along the axis of the first camera, in the unit of `corners`; pixels of `corners` and of the
    result are those of `depth`. images (H, W, 3) and their cameras. The distance between the cameras stays.
    """
    height, width = images[0].shape[:2]
    size = depth.shape[::-1]
    first_from_second_rel = corners.first_from_second_rel
    large = cv2.resize(depth.astype(np.float32), (width, height))
    uv1, uv2 = flow_matches(np.maximum(large, MIN_DEPTH), images, cameras, first_from_second_rel)
    if len(uv1) < MIN_MATCHES:
        return None
    a, b = cameras[0].rays(uv1), cameras[1].rays(uv2)
    tolerance = cameras[0].length(EPIPOLAR_PX)
    drawn = np.random.default_rng(0).choice(len(a), min(POLISHED_BY, len(a)), replace=False)
    distance = float(np.linalg.norm(first_from_second_rel[:3, 3]))
    pose = first_from_second_rel.copy()
    pose[:3, 3] /= distance
    pose = polish(pose, a[drawn], b[drawn], tolerance).first_from_second_rel
    z1, z2, angle = triangulate(a, b, pose)
    good = (np.abs(epipolar_errors(pose, a, b)) < tolerance) & (z1 > 0) & (z2 > 0) & (angle > MIN_PARALLAX)
    if good.sum() < MIN_MATCHES:
        return None
    uv1, uv2 = ((uv[good] + 0.5) * (size[0] / width, size[1] / height) - 0.5 for uv in (uv1, uv2))
    return PairMatches(pose, uv1, uv2, z1[good], z2[good]).scaled(distance)
