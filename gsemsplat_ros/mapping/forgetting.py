"""Forgetting: which Gaussians of a map a keyframe sees again, and which of them are not there any more.

A Gaussian is seen again where the keyframe shows a surface at its distance, in its colour. It is missed

- where the keyframe shows surfaces that are firmly farther, so that it stands in free space;
- where the keyframe shows another colour than its own, at its distance or farther: what is seen there is
  something else. This tells what stood within the error of depth before a wall.

Otherwise (hidden, outside, or without a firm depth) nothing is said of it.

A depth is firm where it was measured in the images. Its error is one of disparity, so it grows with the
square of the distance: sigma_z = z^2 sigma_d / (f b), for the baseline b across the line of sight. Compared
are inverse depths, which are disparities over f b: no margin is larger than the distance. Before a depth that
is only the network's guess, another colour confirms what another keyframe has missed, and nothing else.

Colours are compared in the exposure of the map: by the median ratio of all that are at their distance. Where
most of them differ even so (lights were switched), colours say nothing. A surface in new light or without a
shadow may be missed by its colour: it loses nothing, as the keyframe's own Gaussians take its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from gsemsplat_ros.images.camera import Camera, pixel_grid
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.tile import MISSES_TO_GO
from gsemsplat_ros.mapping.voxels import SIDE, tile_cells
from gsemsplat_ros.scene.scene import Scene

# chosen on rooms from which a thing was taken, seen by a stereo camera of 0.1 m and the shipped network:
# smaller margins leave less of the thing and lose more of what stands (docs/measurements.md)
MARGIN_PX = 0.2  # of disparity, in pixels of the rendering
MARGIN_RATIO = 0.03  # of depth, whatever the baseline: the network's shapes between measurements
AROUND_PX = 2  # pixels to every side that must be farther too: depth edges, slants and thin things
MIN_ALPHA = 0.9  # of a rendered surface: fainter, it hides nothing
# share of the compared pixels with something seen again: below, pose or depths are wrong; at 0.7 a thing that
# filled the view would stay
MIN_AGREEING = 0.5
COLOR_MARGIN = 0.03  # of 1, beyond all colours around a pixel (AROUND_PX): another colour
GUESS_RATIO = 0.9  # of a depth that was not measured, beside another colour
SAMPLED = 64  # one of so many Gaussians tells the exposure
MIN_PAIRS = 50  # of colours; fewer tell none
DARK = 0.1  # colours below have no ratio
UNKNOWN = np.full(3, np.nan, np.float32)  # exposure
FARTHEST = 1e6  # stands for infinity
SEEN, MISSED, GUESSED = 1, 2, 4


@dataclass(frozen=True)
class FreeSpace:
    """What a keyframe tells of the space before it, in the map's unit; (h, w) pixels of its rendering.

    camera_from_map (4, 4): its place; near, far (h, w) float32: depths between which a Gaussian is seen
    again, and surface: depth beyond which it is hidden, 0 where there is none; measured (h, w) bool: whether
    depths are more than a guess; free (h, w) float32: depth up to which nothing stands, at most 0 where
    unknown; rgb (h, w, 3) float32: what is seen, and darkest, brightest: between which a colour is that.
    """

    camera: Camera
    camera_from_map: np.ndarray
    near: np.ndarray
    far: np.ndarray
    surface: np.ndarray
    measured: np.ndarray
    free: np.ndarray
    rgb: np.ndarray
    darkest: np.ndarray
    brightest: np.ndarray


def free_space(scene: Scene, map_from_camera: np.ndarray, scale: float, voxel: float) -> FreeSpace:
    """What the keyframe of `scene` tells, standing at `map_from_camera` (4, 4); scale: map units per unit of
    the scene; voxel: edge of the map's, within which a Gaussian's place is known."""
    drawn, margin = scene.on_host, inverse_margin(scene) / np.float32(scale)
    known = (drawn.alpha >= MIN_ALPHA) & (drawn.depth > 0)  # false for NaN
    measured = np.zeros_like(known) if scene.measured is None else scene.measured
    depth = np.where(known, np.float32(scale) * drawn.depth, np.float32(0))

    def nearer(z: np.ndarray) -> np.ndarray:
        return z / (1 + MARGIN_RATIO + z * margin) - np.float32(voxel)

    beside, around = (np.ones((2 * pixels + 1,) * 2, np.uint8) for pixels in (1, AROUND_PX))
    nearest = cv2.erode(np.where(known, depth, np.float32(FARTHEST)), beside)
    farthest = cv2.dilate(depth, beside)
    far = farthest / np.maximum(1 - MARGIN_RATIO - farthest * margin, np.float32(1 / FARTHEST))
    # 0 beside what is unknown, and at the border of the image
    free = nearer(cv2.erode(depth, around, borderType=cv2.BORDER_CONSTANT, borderValue=0))
    return FreeSpace(
        scene.keyframe.camera,
        np.linalg.inv(map_from_camera),
        np.where(known, nearer(nearest), 0),
        np.where(known, far + np.float32(voxel), 0),
        np.where(known, farthest + np.float32(voxel), 0),
        measured,
        np.where(measured, free, 0),
        drawn.rgb,
        cv2.erode(drawn.rgb, around) - np.float32(COLOR_MARGIN),
        cv2.dilate(drawn.rgb, around) + np.float32(COLOR_MARGIN),
    )


def inverse_margin(scene: Scene) -> np.ndarray:
    """(h, w) float32: MARGIN_PX as a difference of inverse depths, in one over the scene's unit. The baseline
    counts across the line of sight: a camera that moves forward measures nothing straight ahead."""
    assert scene.first_from_second is not None, 'Mapper refuses scenes without'
    camera, baseline = scene.keyframe.camera, scene.first_from_second[:3, 3]
    rays = camera.rays(pixel_grid(camera.height, camera.width))
    along = (rays @ baseline) ** 2 / np.einsum('...i,...i', rays, rays)
    across = np.sqrt(np.maximum(baseline @ baseline - along, 1 / FARTHEST**2))
    return (MARGIN_PX / (camera.fx * across)).astype(np.float32)


def exposure(space: FreeSpace, means: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """(3,) float32: colours of the keyframe over those of the map, by some of its Gaussians: means (N, 3) and
    colors (N, 3). NaN, so that no colour is another one, where too few are seen again or most differ."""
    points = means @ space.camera_from_map[:3, :3].T + space.camera_from_map[:3, 3]
    uv, in_front = space.camera.project(points)
    at, inside = space.camera.index(uv)
    there = in_front & inside & (space.near[at] <= points[:, 2]) & (points[:, 2] <= space.far[at])
    if there.sum() < MIN_PAIRS:
        return UNKNOWN
    colors, (rows, columns) = colors[there], (at[0][there], at[1][there])
    ratios = (space.rgb[rows, columns] / np.maximum(colors, DARK))[(colors > DARK).all(1)]
    gain = np.median(ratios, 0).astype(np.float32) if len(ratios) >= MIN_PAIRS else np.ones(3, np.float32)
    seen = gain * colors
    alike = ((space.darkest[rows, columns] <= seen) & (seen <= space.brightest[rows, columns])).all(1)
    return gain if alike.mean() >= MIN_AGREEING else UNKNOWN


def compare(
    means: np.ndarray, space: FreeSpace, colors: np.ndarray | None = None, gain: np.ndarray = UNKNOWN
) -> tuple[np.ndarray, np.ndarray]:
    """SEEN, MISSED, GUESSED (missed, before a guess) or 0 for each of means (N, 3), in the map's
    frame, and for each pixel (h, w) the bits of all that lie on it; uint8.

    colors (N, 3), with the `gain` of `exposure`; without them depths alone are compared.
    """
    camera = space.camera
    colors = np.zeros_like(means) if colors is None else colors
    out, pixels = np.zeros(len(means), np.uint8), np.zeros(space.free.shape, np.uint8)
    intrinsics = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
    pose = space.camera_from_map[:3].astype(np.float32)
    depths = space.near, space.far, space.surface, space.free
    colours = space.darkest, space.brightest
    _compare(means, colors, gain, pose, intrinsics, depths, space.measured, colours, out, pixels)
    return out, pixels


@njit(nogil=True, cache=True, error_model='numpy')
def _compare(means, colors, gain, pose, intrinsics, depths, measured, colours, out, pixels):
    """Fill `out` (N,) and `pixels` (h, w) of `compare`; depths: near, far, surface, free; colours:
    darkest, brightest."""
    (near, far, surface, free), (darkest, brightest) = depths, colours
    height, width = free.shape
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    for i in range(len(means)):
        x, y, z = means[i, 0], means[i, 1], means[i, 2]
        depth = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
        if not depth > 0:
            continue
        u = fx * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]) / depth + cx
        v = fy * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]) / depth + cy
        if not (-0.5 < u < width - 0.5 and -0.5 < v < height - 0.5):
            continue
        column, row = int(u + np.float32(0.5)), int(v + np.float32(0.5))
        if depth > far[row, column]:
            continue
        alike = True
        for c in range(3):
            seen = gain[c] * colors[i, c]
            alike &= not (seen < darkest[row, column, c] or seen > brightest[row, column, c])
        before = not alike and depth <= surface[row, column]
        if depth < free[row, column] or (before and measured[row, column]):
            out[i] = MISSED
        elif before and depth < GUESS_RATIO * surface[row, column]:
            out[i] = GUESSED
        elif alike and depth >= near[row, column]:
            out[i] = SEEN
        pixels[row, column] |= out[i]


def misses_after(map_: Map, space: FreeSpace) -> dict[int, np.ndarray]:
    """The evidence (N,) uint8 against the Gaussians of the map (`Tile.misses`), with a keyframe that tells
    `space`; of each tile of which it tells anything.

    What is seen again has none, what is missed one more; before a guess only what was missed before. Unless
    most of what the keyframe sees of the map is seen again, all stays as before: a wrong pose, or depths that
    are wrong as a whole, are no evidence.
    """
    pixels, after = np.zeros(space.free.shape, np.uint8), {}
    tiles = {key: map_.tiles[key].arrays for key in in_view([*map_.tiles], map_.voxel, space)}
    if not tiles:
        return {}
    means, colors = (
        np.concatenate([getattr(tile, name)[::SAMPLED] for tile in tiles.values()])
        for name in ('means', 'colors')
    )
    gain = exposure(space, means, colors)
    for key, tile in tiles.items():
        found, of_tile = compare(tile.means, space, tile.colors, gain)
        pixels |= of_tile
        if found.any():
            more = (found == MISSED) | ((found == GUESSED) & (tile.misses > 0))
            missed = np.minimum(tile.misses + more, MISSES_TO_GO)
            after[key] = np.where(found == SEEN, 0, missed).astype(np.uint8)
    if (pixels & SEEN > 0).sum() < MIN_AGREEING * (pixels > 0).sum():
        return {}
    return after


def in_view(tiles: Sequence[int], voxel: float, space: FreeSpace) -> list[int]:
    """Those of the tiles, by key, that reach into the view: some of their corners lie on the inner side of
    each plane that bounds it."""
    first = tile_cells(np.array(tiles, np.int64))
    ends = (
        np.stack((first - 1, first + SIDE + 1), 1) * voxel
    )  # a voxel more: means may leave theirs by rounding
    corners = ends[:, np.indices((2, 2, 2)).reshape(3, 8).T, np.arange(3)]  # (T, 8, 3)
    pose, camera = space.camera_from_map, space.camera
    x, y, z = np.moveaxis(corners @ pose[:3, :3].T + pose[:3, 3], -1, 0)
    u, v = camera.fx * x + (camera.cx + 0.5) * z, camera.fy * y + (camera.cy + 0.5) * z
    within = z > 0, u > 0, v > 0, u < camera.width * z, v < camera.height * z
    seen = np.logical_and.reduce([side.any(1) for side in within])
    return [key for key, one in zip(tiles, seen) if one]
