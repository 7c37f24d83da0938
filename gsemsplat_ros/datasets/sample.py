"""One pair of a room with a third view: a sample for training and evaluation of the small network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from gsemsplat_ros.geometry.visibility import seen_by, surface_points
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View


@dataclass(frozen=True)
class Sample:
    """Three views of one room by one camera: the first and second context view and the target. Where the
    target is not needed, only the two context views are there.

    images (3, H, W, 3) uint8 RGB; depth (3, H, W) float32 [m] along z, 0 for nothing; instance (3, H, W)
    int16, rows of `names`, 0 for nothing; first_from_camera (3, 4, 4) OpenCV poses [m] in the frame of the
    first view; camera of (H, W) px; names of the instances, that of 0 is unused; stereo: the context views
    are a rectified pair, the second to the right of the first.
    """

    images: np.ndarray
    depth: np.ndarray
    instance: np.ndarray
    first_from_camera: np.ndarray
    camera: Camera
    names: Sequence[str]
    stereo: bool

    @property
    def pair(self) -> Pair:
        """The calibrated context views, with their baseline [m] where they are rectified stereo."""
        first, second = (View(np.ascontiguousarray(image), self.camera) for image in self.images[:2])
        return Pair(first, second, float(self.first_from_camera[1][0, 3]) if self.stereo else None)

    def points(self, i: int) -> np.ndarray:
        """The surface (H, W, 3) [m] visible in view `i`, in the frame of the first view."""
        return surface_points(self.depth[i], self.camera, self.first_from_camera[i])

    def target_seen(self) -> np.ndarray:
        """(H, W) bool: the pixels of the target whose surface is visible in a context view too."""
        surface, seen = self.points(2), np.zeros(self.depth.shape[1:], bool)
        for i in range(2):
            seen |= seen_by(surface, self.depth[i], self.camera, np.linalg.inv(self.first_from_camera[i]))
        return seen & (self.depth[2] > 0)

    def reversed(self) -> Sample:
        """The two context views exchanged, and everything in the frame of the new first."""
        poses = self.first_from_camera
        order = [1, 0, *range(2, len(poses))]
        return replace(
            self,
            images=self.images[order],
            depth=self.depth[order],
            instance=self.instance[order],
            first_from_camera=np.linalg.inv(poses[1]) @ poses[order],
        )

    def mirrored(self) -> Sample:
        """Left and right exchanged; the views of a rectified pair are exchanged too, so that the second
        camera is still on the right.
        """
        mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
        images, depth, instance = (
            np.stack([cv2.flip(view, 1) for view in maps])
            for maps in (self.images, self.depth, self.instance)
        )
        seen = replace(
            self,
            images=images,
            depth=depth,
            instance=instance,
            first_from_camera=mirror @ self.first_from_camera @ mirror,
            camera=self.camera.mirrored(),
        )
        return seen.reversed() if self.stereo else seen
