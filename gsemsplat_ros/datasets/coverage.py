"""Overlap of the frames of a scene, and the draw of training samples (docs/published.md 36).

coverage[i, j] is the share of frame j's pixels whose surface is visible in frame i too.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.datasets.frames import Geometry
from gsemsplat_ros.geometry.visibility import TOLERANCE, surface_points

CONTEXT = TARGET = 0.3  # published thresholds of training: of the second view, of the targets
TARGETS = 3  # target views of a sample
MASK_TOLERANCE = 0.1  # m: published, of a context view's depth
COARSE = 48  # side of the grid that coverage is computed on [px]


def coarse(geometry: Geometry, side: int = COARSE) -> Geometry:
    """The same view on a grid of about `side` pixels: depths at the centres of the cells."""
    step = max(1, round(max(geometry.depth.shape) / side))
    depth = np.ascontiguousarray(geometry.depth[step // 2 :: step, step // 2 :: step])
    return Geometry(depth, geometry.camera.strided(step), geometry.world_from_camera)


def coverage_matrix(views: list[Geometry]) -> np.ndarray:
    """(N, N) float32 of N views of one camera, the diagonal 1 (0 for a view without depth).

    A surface is visible in a view that it falls into, in front of the camera, at the view's own depth within
    5 cm and 5 % (one cell covers a sloping surface). Pixels without depth count neither way. Raises
    ValueError for views with different intrinsics.
    """
    depths = np.stack([view.depth for view in views])  # (N, h, w)
    cameras_from_world = np.stack([np.linalg.inv(view.world_from_camera) for view in views]).astype(
        np.float32
    )
    camera, view_of_row = views[0].camera, np.arange(len(views))[:, None]
    if any(view.camera != camera for view in views):
        raise ValueError('views of several cameras: wanted frames with one and the same intrinsics')
    matrix = np.zeros((len(views), len(views)), np.float32)
    for j, view in enumerate(views):
        known = view.depth > 0
        if not known.any():
            continue
        points = surface_points(view.depth, view.camera, view.world_from_camera)[known].astype(
            np.float32
        )  # (P, 3)
        local = np.einsum('nij,pj->inp', cameras_from_world[:, :3, :3], points, optimize=True)
        local += cameras_from_world[:, :3, 3].T[:, :, None]
        uv, in_front = camera.project(np.moveaxis(local, 0, -1))
        (row, column), inside = camera.index(uv)  # (N, P)
        found, z = depths[view_of_row, row, column], local[2]
        matrix[:, j] = (in_front & inside & (found > 0) & (np.abs(found - z) < TOLERANCE * (1 + z))).mean(1)
    return matrix


def loss_mask(target: Geometry, contexts: list[Geometry]) -> np.ndarray:
    """(H, W) bool: the pixels of a target visible in a context view; the others cannot be predicted.

    A pixel with depth is visible in a view where its point lies in front of the camera, falls into the
    picture, and is as far as the depth there, within 0.1 m (docs/published.md 37). All three must hold in one
    view; the published rule takes the picture of one and the depth of another, and points behind a camera.
    """
    points = surface_points(target.depth, target.camera, target.world_from_camera)
    mask = np.zeros(target.depth.shape, bool)
    for view in contexts:
        camera_from_world = np.linalg.inv(view.world_from_camera)
        local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        uv, in_front = view.camera.project(local, near=1e-6)
        inside = in_front & view.camera.in_image(uv)
        uv = np.where(inside[..., None], uv, 0).astype(np.float32)
        measured = cv2.remap(view.depth, uv, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask |= inside & (np.abs(local[..., 2] - measured) <= MASK_TOLERANCE + 1e-5 * np.abs(measured))
    return mask & (target.depth > 1e-6)


def draw(coverage: np.ndarray, rng: np.random.Generator) -> tuple[int, int, list[int]]:
    """First and second context view and target views of a random sample of a scene of at least two frames.

    As published: any first view; a second that the first covers by more than 0.3, else the one that it covers
    best; three targets that either context covers by more than 0.3, else the best three. Unlike published,
    context views are not targets, unless a scene has no other frame.
    """
    count = len(coverage)
    first = int(rng.integers(count))
    others = np.delete(np.arange(count), first)
    good = others[coverage[first, others] > CONTEXT]
    second = int(rng.choice(good)) if len(good) else int(others[coverage[first, others].argmax()])
    rest = np.setdiff1d(others, second)
    if not len(rest):
        return first, second, [second]
    covered = coverage[[first, second]].max(0)[rest]
    good = rest[covered > TARGET]
    if len(good) < TARGETS:
        return first, second, rest[np.argsort(-covered, kind='stable')[:TARGETS]].tolist()
    return first, second, rng.choice(good, TARGETS, replace=False).tolist()


def read_published(path: Path, scene: str, kept: np.ndarray) -> np.ndarray | None:
    """The coverage of a JSON file, for the frames `kept` (N,) bool of the scene's list; None: no file.

    Two forms are read: the matrix itself, or {scene: matrix}; of the kept frames alone, or of all. Raises
    ValueError for anything else.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text())
        matrix = np.array(value[scene] if isinstance(value, dict) else value, np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} holds no coverage ({type(error).__name__}): wanted a square matrix, or '
            f'{{"{scene}": matrix}}; move the file away to have it computed'
        ) from None
    if matrix.shape == (len(kept), len(kept)):
        return matrix[np.ix_(kept, kept)]
    if matrix.shape == (kept.sum(),) * 2:
        return matrix
    raise ValueError(
        f'{path} has the shape {matrix.shape}, wanted {kept.sum()} or {len(kept)} frames a side: it belongs '
        'to other frames; move it away to have it computed'
    )
