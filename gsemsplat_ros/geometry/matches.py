"""What the two images say about the geometry without the network: matched pixels, the motion between two
calibrated cameras, and depths measured by triangulation. Pixel centres lie at integers; OpenCV axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.images.window import Window

LONG_SIDE = 640  # images are matched at most at this size [px]
FEATURES = 2000
RATIO = 0.85  # Lowe's test: the second-best match is this much worse
EPIPOLAR_PX = 1.0  # a match agrees with a motion when it lies this close to its epipolar line
MIN_MATCHES = 30  # fewer say nothing
MIN_PARALLAX = np.deg2rad(1.0)  # between the rays of a match, in the median: less, and the direction is noise


@dataclass(frozen=True)
class Measured:
    """The motion of a calibrated pair and the depths that it shows, all in one unit: metres for a rectified
    stereo pair, else the distance between the cameras.

    first_from_second (4, 4): rigid; uv_first, uv_second (N, 2): pixels of the two views; z_first, z_second
    (N,): depth of the matched points in each view.
    """

    first_from_second: np.ndarray
    uv_first: np.ndarray
    uv_second: np.ndarray
    z_first: np.ndarray
    z_second: np.ndarray

    def scaled(self, factor: float) -> Measured:
        """The same in another unit."""
        pose = self.first_from_second.copy()
        pose[:3, 3] *= factor
        return replace(
            self, first_from_second=pose, z_first=self.z_first * factor, z_second=self.z_second * factor
        )

    def on_grid(self, first: Window, second: Window, width: int, height: int) -> Measured:
        """With pixels of maps of `width` x `height` over the windows of the two views."""
        uv = [
            (window.to_network(x) + 0.5) * (width / window.width, height / window.height) - 0.5
            for window, x in ((first, self.uv_first), (second, self.uv_second))
        ]
        return replace(self, uv_first=uv[0], uv_second=uv[1])


def measure(pair: Pair) -> Measured | None:
    """What the images of a calibrated pair say, None where they say nothing."""
    if pair.baseline_m is not None:
        return measure_stereo(pair)
    return measure_motion(pair.first, pair.second) if pair.first.camera and pair.second.camera else None


def gray(view: View) -> tuple[np.ndarray, float]:
    """The image in gray, at most LONG_SIDE pixels long, and its pixels per input pixel."""
    image = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)
    factor = min(1.0, LONG_SIDE / max(image.shape))
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    return (image if factor == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)), factor


def disparity(left: np.ndarray, right: np.ndarray, smallest: int = 0) -> np.ndarray:
    """(H, W) float32 [px] of a rectified gray pair, > `smallest`; NaN where the match fails its checks
    (semi-global matching, Hirschmueller 2008)."""
    count = max(16, left.shape[1] // 4 // 16 * 16)
    matcher = cv2.StereoSGBM_create(
        minDisparity=smallest,
        numDisparities=count,
        blockSize=5,
        P1=200,
        P2=800,
        disp12MaxDiff=1,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    found = matcher.compute(left, right).astype(np.float32) / 16
    return np.where(found >= smallest + 1, found, np.nan)


def measure_stereo(pair: Pair) -> Measured | None:
    """Depths [m] of a rectified pair from its disparities. None: too few matches (no texture, not
    rectified).
    """
    (left, factor), (right, _) = gray(pair.first), gray(pair.second)
    height, width = left.shape
    camera = pair.first.camera.resized(width, height)
    # where the principal points differ, infinity does not lie at zero
    offset = 0.0 if pair.second.camera is None else pair.second.camera.resized(width, height).cx - camera.cx
    found = disparity(left, right, round(-offset))
    v, u = np.nonzero(np.isfinite(found))
    if len(u) < MIN_MATCHES:
        return None
    shift = found[v, u]
    pose = np.eye(4)
    pose[0, 3] = pair.baseline_m
    z = camera.depth_of(shift + offset, pair.baseline_m)

    def to_input(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (np.stack((x, y), -1) + 0.5) / factor - 0.5

    return Measured(pose, to_input(u, v), to_input(u - shift, v), z, z)


def matched_pixels(first: View, second: View) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) of the same points in both views: SIFT (Lowe 2004), best in both directions."""
    sift, found = cv2.SIFT_create(FEATURES, contrastThreshold=0.01), []
    for view in (first, second):
        image, factor = gray(view)
        points, descriptors = sift.detectAndCompute(image, None)
        if descriptors is None or len(points) < 2:
            return np.empty((0, 2)), np.empty((0, 2))
        root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))  # Arandjelovic 2012
        found.append(((np.array([p.pt for p in points]) + 0.5) / factor - 0.5, root))
    (uv1, a), (uv2, b) = found
    likeness = a @ b.T
    best, back = likeness.argmax(1), likeness.argmax(0)
    distance = np.sqrt(np.maximum(2 - 2 * likeness, 0))
    two = np.partition(distance, 1, axis=1)[:, :2]
    mine = np.arange(len(a))
    keep = (back[best] == mine) & (two[:, 0] < RATIO * two[:, 1])
    return uv1[keep], uv2[best[keep]]


def triangulate(
    rays_first: np.ndarray, rays_second: np.ndarray, first_from_second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depths in both views of the closest points of two rays each, and the angle between the rays [rad], (N,)
    each.
    """
    turned, t = rays_second @ first_from_second[:3, :3].T, first_from_second[:3, 3]
    aa, bb, ab = (rays_first**2).sum(1), (turned**2).sum(1), (rays_first * turned).sum(1)
    at, bt = rays_first @ t, turned @ t
    across = np.maximum(aa * bb - ab**2, 1e-12)
    angle = np.arcsin(np.sqrt(np.clip(across / (aa * bb), 0, 1)))
    return (at * bb - bt * ab) / across, (at * ab - bt * aa) / across, angle


def epipolar_errors(pose: np.ndarray, rays_first: np.ndarray, rays_second: np.ndarray) -> np.ndarray:
    """(N,) signed distances of matches from their epipolar lines, at depth 1 (Sampson 1982)."""
    x, y, z = pose[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pose[:3, :3]  # ray_first^T E ray_second = 0
    to_first, to_second = rays_second @ essential.T, rays_first @ essential
    slope = (to_first[:, :2] ** 2).sum(1) + (to_second[:, :2] ** 2).sum(1)
    return (rays_first * to_first).sum(1) / np.sqrt(np.maximum(slope, 1e-18))


def polish(pose: np.ndarray, rays_first: np.ndarray, rays_second: np.ndarray, tolerance: float) -> np.ndarray:
    """The pose (4, 4) with a unit translation that brings all matches nearest to their epipolar lines.

    Gauss-Newton over the turn and the direction, matches beyond `tolerance` fading out (Geman-McClure).
    """

    def moved(step: np.ndarray) -> np.ndarray:
        new = pose.copy()
        new[:3, :3] = cv2.Rodrigues(step[:3])[0] @ pose[:3, :3]
        new[:3, 3] += step[3:]
        new[:3, 3] /= np.linalg.norm(new[:3, 3])
        return new

    def cost(errors: np.ndarray) -> float:
        squares = (errors / tolerance) ** 2
        return float((squares / (1 + squares)).sum())

    errors = epipolar_errors(pose, rays_first, rays_second)
    for _ in range(10):
        slopes = np.stack(
            [
                (epipolar_errors(moved(1e-6 * axis), rays_first, rays_second) - errors) / 1e-6
                for axis in np.eye(6)
            ],
            1,
        )
        weights = 1 / (1 + (errors / tolerance) ** 2)
        # the length of the translation has no say: the least-squares step of smallest norm leaves it alone
        better = moved(np.linalg.lstsq(slopes * weights[:, None], -errors * weights, rcond=1e-6)[0])
        after = epipolar_errors(better, rays_first, rays_second)
        if not cost(after) < cost(errors) - 1e-6:
            break
        pose, errors = better, after
    return pose


def measure_motion(first: View, second: View) -> Measured | None:
    """Motion of a calibrated camera between two views, up to scale, by the five-point method (Nister 2004) in
    a consensus of matches. None: too few matches, or too little parallax."""
    uv1, uv2 = matched_pixels(first, second)
    if len(uv1) < MIN_MATCHES:
        return None
    a, b = first.camera.rays(uv1), second.camera.rays(uv2)
    threshold = first.camera.length(EPIPOLAR_PX * max(1.0, max(first.image.shape) / LONG_SIDE))
    cv2.setRNGSeed(0)  # the same pair gives the same pose
    essential, inliers = cv2.findEssentialMat(
        a[:, :2], b[:, :2], np.eye(3), cv2.USAC_MAGSAC, 0.999, threshold
    )
    if essential is None or essential.shape != (3, 3):
        return None
    inliers = inliers[:, 0].astype(bool)
    if inliers.sum() < MIN_MATCHES:
        return None
    _, rotation, translation, _ = cv2.recoverPose(essential, a[inliers, :2], b[inliers, :2], np.eye(3))
    second_from_first = np.eye(4)
    second_from_first[:3, :3], second_from_first[:3, 3] = rotation, translation[:, 0]
    pose = polish(np.linalg.inv(second_from_first), a[inliers], b[inliers], threshold)
    z1, z2, angle = triangulate(a, b, pose)
    good = inliers & (z1 > 0) & (z2 > 0) & (angle > MIN_PARALLAX / 2)
    if good.sum() < max(MIN_MATCHES, 0.5 * inliers.sum()) or np.median(angle[inliers]) < MIN_PARALLAX:
        return None
    return Measured(pose, uv1[good], uv2[good], z1[good], z2[good])
