"""The cameras of a pair, and the motion between them: calibrated, or told by the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gsemsplat_ros.geometry.descriptors import described_alike
from gsemsplat_ros.geometry.features import FINE, Alike, matched_pixels
from gsemsplat_ros.geometry.matches import PairMatches
from gsemsplat_ros.geometry.motion import Motion, find_motion
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Fitted, Pair
from gsemsplat_ros.network.model import Prediction

# standard deviations of ln of the focal length: by the network's points (measured in held-out rooms: 0.17),
# by EXIF (whole millimetres, focus), and of a pinhole fitted to a real lens
NETWORK_SPREAD = 0.2
EXIF_SPREAD = 0.05
LENS_SPREAD = 0.02
APART = 3.0  # focal lengths farther apart than so many standard deviations contradict each other
ENOUGH_AGREE = 50  # with fewer agreeing matches, finer features are looked for,
ENOUGH_ALIKE = 200  # unless so many look alike without a motion: then parallax is missing, not features


@dataclass(frozen=True)
class Calibrated:
    """The cameras of the two input images, and what is known of them.

    focal_source: 'calibration', 'exif' (the image file), 'images' (matches) or 'network' (the predicted
    points); focal_spread: standard deviation of ln of the focal length, 0 for a calibration; matches: in the
    unit of the distance between the cameras and in pixels of the input images; None: too few.
    """

    cameras: tuple[Camera, Camera]
    focal_source: str
    focal_spread: float
    matches: PairMatches | None


@dataclass(frozen=True)
class Observed:
    """What tells the motion of a free pair: its images; the pixels that look `alike`; the network's
    prediction, with depth (h, w) of the first view; and the two views as fitted to it.
    """

    pair: Pair
    alike: Alike
    prediction: Prediction
    depth: np.ndarray
    fitted: tuple[Fitted, Fitted]

    @cached_property
    def finer(self) -> Alike:
        """The same by the network's descriptors, or else by smaller and fainter features: both take time."""
        windows = self.fitted[0].window, self.fitted[1].window
        described = described_alike(self.prediction, windows)
        return described or matched_pixels(self.pair.first.image, self.pair.second.image, FINE)

    def motion(self, cameras: tuple[Camera, Camera], focal_spread: float = 0.0) -> Motion | None:
        """By features, and by finer ones where these say little; None: neither tells it."""
        window = self.fitted[0].window
        motion = find_motion(self.alike, cameras, self.depth, window, focal_spread)
        few = len(self.alike.uv_first) < ENOUGH_ALIKE if motion is None else motion.agreeing < ENOUGH_AGREE
        return (few and find_motion(self.finer, cameras, self.depth, window, focal_spread)) or motion

    def centred(self, focals: tuple[float, float]) -> tuple[Camera, Camera]:
        """Cameras of the input images with these focal lengths [px]."""
        first, second = (
            Camera.centred(view.image.shape[1], view.image.shape[0], focal)
            for view, focal in zip((self.pair.first, self.pair.second), focals)
        )
        return first, second


def calibrated(observed: Observed, cameras: tuple[Camera, Camera]) -> Calibrated:
    """With known cameras of the input images."""
    motion = observed.motion(cameras)
    return Calibrated(cameras, 'calibration', 0.0, None if motion is None else motion.matches)


def self_calibrated(observed: Observed, network_focal: float) -> Calibrated:
    """With centred cameras of square pixels, whose focal lengths are to be found.

    network_focal [px]: of both fitted images, by the predicted points. An EXIF focal length is used instead
    unless the network or the images contradict it. What looks alike in the images then tells one factor on
    both focal lengths together with the motion, as far as the motion shows it: the less it does, the nearer
    the factor stays to 1.
    """
    first, second = observed.fitted
    focals = network_focal * first.window.scale_x, network_focal * second.window.scale_x
    source, spread = 'network', NETWORK_SPREAD
    motion = observed.motion(observed.centred(focals), spread)
    told = _exif_focals(observed.pair, focals)
    if told and not _contradicted(np.log(told[0] / focals[0]), motion):
        focals, source, spread = told, 'exif', EXIF_SPREAD
        motion = observed.motion(observed.centred(focals), spread)
    if motion is None:
        return Calibrated(observed.centred(focals), source, spread, None)
    if source == 'network' and motion.focal_spread < NETWORK_SPREAD / 2:
        source = 'images'
    cameras = observed.centred((focals[0] * motion.focal_factor, focals[1] * motion.focal_factor))
    return Calibrated(cameras, source, float(np.hypot(motion.focal_spread, LENS_SPREAD)), motion.matches)


def _exif_focals(pair: Pair, by_network: tuple[float, float]) -> tuple[float, float] | None:
    """Focal lengths [px] of both input images by EXIF; what one file does not tell, the other does, in the
    proportion of the network's. None: neither does."""
    first, second = pair.first.exif_focal, pair.second.exif_focal
    ratio = by_network[0] / by_network[1]
    if first is not None:
        return first, first / ratio if second is None else second
    return None if second is None else (second * ratio, second)


def _contradicted(log_factor: float, motion: Motion | None) -> bool:
    """Whether a focal length, exp(log_factor) times the network's, is too far from it, or from what the
    images make of it."""
    apart = abs(log_factor) / np.hypot(NETWORK_SPREAD, EXIF_SPREAD)
    if motion is not None:
        spread = np.hypot(motion.focal_spread, np.hypot(LENS_SPREAD, EXIF_SPREAD))
        apart = max(apart, abs(log_factor - np.log(motion.focal_factor)) / spread)
    return bool(apart > APART)
