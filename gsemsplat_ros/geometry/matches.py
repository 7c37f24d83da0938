"""Matched pixels, motion and depths from the images of a pair alone, without the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from gsemsplat_ros.geometry.epipolar import polish, triangulate
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.images.window import Window

LONG_SIDE = 640  # images are matched at most at this size [px]
FEATURES = 2000
RATIO = 0.85  # Lowe's test: distance of the best match over that of the second best
EPIPOLAR_PX = 1.0  # a match this close to its epipolar line agrees with a motion
MIN_MATCHES = 30  # fewer are no evidence
MIN_PARALLAX = np.deg2rad(1.0)  # median angle between the rays of a match: below it the direction is noise


@dataclass(frozen=True)
class PairMatches:
    """Pixels of both views that show the same points, and the motion and depths that follow from them, all in
    one unit: metres for a rectified stereo pair, else the distance between the cameras, until `scaled`.

    first_from_second_rel (4, 4): rigid, translation in that unit; uv_first, uv_second (N, 2) [px]; z_first,
    z_second (N,): depth of the matched points in each view, in that unit.
    """

    first_from_second_rel: np.ndarray
    uv_first: np.ndarray
    uv_second: np.ndarray
    z_first: np.ndarray
    z_second: np.ndarray

    def scaled(self, factor: float) -> PairMatches:
        """The same in another unit: lengths times `factor`."""
        pose = self.first_from_second_rel.copy()
        pose[:3, 3] *= factor
        return replace(
            self, first_from_second_rel=pose, z_first=self.z_first * factor, z_second=self.z_second * factor
        )

    def on_grid(self, first: Window, second: Window, width: int, height: int) -> PairMatches:
        """The same with pixels of maps of `width` x `height` over the windows of the two views."""
        uv = [
            (window.to_network(x) + 0.5) * (width / window.width, height / window.height) - 0.5
            for window, x in ((first, self.uv_first), (second, self.uv_second))
        ]
        return replace(self, uv_first=uv[0], uv_second=uv[1])


def match_pair(pair: Pair) -> PairMatches | None:
    """The matches of a calibrated pair, without the network; None: not calibrated, or too few."""
    if pair.baseline_m is not None:
        return match_stereo(pair)
    if pair.first.camera is None or pair.second.camera is None:
        return None
    return match_motion((pair.first.image, pair.second.image), (pair.first.camera, pair.second.camera))


def gray(image: np.ndarray) -> tuple[np.ndarray, float]:
    """The image (H, W, 3) in gray, at most LONG_SIDE pixels long, and its pixels per input pixel."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    factor = min(1.0, LONG_SIDE / max(image.shape))
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    return (image if factor == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)), factor


def disparity(left: np.ndarray, right: np.ndarray, smallest: int = 0) -> np.ndarray:
    """(H, W) float32 [px] of a rectified gray pair, > `smallest`; NaN where the match fails its checks
    (semi-global matching, Hirschmueller 2008).
    """
    count = max(16, left.shape[1] // 4 // 16 * 16)
    matcher = cv2.StereoSGBM_create(  # type: ignore[attr-defined]  # not in cv2's stubs
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


def match_stereo(pair: Pair) -> PairMatches | None:
    """Depths [m] of a rectified pair from its disparities. None: too few (no texture, not rectified)."""
    assert pair.first.camera is not None and pair.baseline_m is not None, pair  # Pair has checked it
    (left, factor), (right, _) = gray(pair.first.image), gray(pair.second.image)
    height, width = left.shape
    camera = pair.first.camera.resized(width, height)
    # where the principal points differ, the disparity of infinity is not zero
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

    return PairMatches(pose, to_input(u, v), to_input(u - shift, v), z, z)


def matched_pixels(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) of the same points in two images (H, W, 3): SIFT (Lowe 2004), best in both directions."""
    sift = cv2.SIFT_create(FEATURES, contrastThreshold=0.01)  # type: ignore[attr-defined]  # not in the stubs
    found = []
    for image in (first, second):
        small, factor = gray(image)
        points, descriptors = sift.detectAndCompute(small, None)
        if descriptors is None or len(points) < 2:
            return np.empty((0, 2)), np.empty((0, 2))
        root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))  # Arandjelovic 2012
        found.append(((np.array([p.pt for p in points]) + 0.5) / factor - 0.5, root))
    (uv1, a), (uv2, b) = found
    likeness = a @ b.T
    best, back = likeness.argmax(1), likeness.argmax(0)
    distance = np.sqrt(np.maximum(2 - 2 * likeness, 0))
    two = np.partition(distance, 1, axis=1)[:, :2]
    keep = (back[best] == np.arange(len(a))) & (two[:, 0] < RATIO * two[:, 1])
    return uv1[keep], uv2[best[keep]]


def match_motion(images: tuple[np.ndarray, np.ndarray], cameras: tuple[Camera, Camera]) -> PairMatches | None:
    """Motion of a calibrated camera between two images, up to scale, by the five-point method (Nister 2004)
    in a consensus of matches. None: too few matches, or too little parallax."""
    uv1, uv2 = matched_pixels(*images)
    if len(uv1) < MIN_MATCHES:
        return None
    a, b = cameras[0].rays(uv1), cameras[1].rays(uv2)
    threshold = cameras[0].length(EPIPOLAR_PX * max(1.0, max(images[0].shape) / LONG_SIDE))
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
    return PairMatches(pose, uv1[good], uv2[good], z1[good], z2[good])
