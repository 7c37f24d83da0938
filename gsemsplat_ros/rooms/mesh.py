"""Meshes, and their form in few bytes: 8-bit planes of differences, which deflate well.

Vertices are numbered as they first occur in faces, so that neighbours in the list are neighbours in space. A
position is stored as its difference from the one before, in units of the model's box / 65535; a corner of a
face as the number of vertices that occurred before it, minus its own number: 0 for a new vertex, small for a
recent one. Texture coordinates are in half precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = 65535  # of a box; 3 m are cut into 0.05 mm
LARGEST_UV = 1000.0  # repeats of a texture; a few models have nonsense beyond


@dataclass(frozen=True)
class Mesh:
    """Triangles of one model.

    vertices (V,3) float32 m; normals (V,3) float32, zero for flat shading; uv (V,2) float32, v down; colors
    (V,3) uint8; textures (V,) int16: index for `Furniture.texture`, -1 for none; faces (F,3) int32.
    """

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    colors: np.ndarray
    textures: np.ndarray
    faces: np.ndarray


def squeezed(mesh: Mesh) -> dict[str, np.ndarray]:
    """The arrays of a mesh with at most 65536 vertices: `box` (2,3) float32, planes (bytes, V) and (2, 3 F)
    uint8. Vertices that no face uses are dropped."""
    corners = mesh.faces.ravel()
    used, first = np.unique(corners, return_index=True)
    order = used[np.argsort(first)]  # of the vertices: as they first occur
    number = np.zeros(len(mesh.vertices), np.int64)
    number[order] = np.arange(len(order))
    corners = number[corners]
    occurred = np.maximum.accumulate(np.concatenate([[-1], corners[:-1]])) + 1  # before each corner
    vertices = mesh.vertices[order].astype(np.float64)
    box = np.stack([vertices.min(0), vertices.max(0)]).astype(np.float32)
    span = np.maximum(box[1] - box[0], 1e-9).astype(np.float64)
    steps = np.rint(np.clip((vertices - box[0]) / span, 0, 1) * STEPS).astype(np.uint16)
    uv = np.clip(mesh.uv[order], -LARGEST_UV, LARGEST_UV).astype(np.float16).view(np.uint16)
    return {
        'box': box,
        'positions': _planes(np.diff(steps, axis=0, prepend=np.zeros((1, 3), np.uint16))),
        'normals': np.rint(mesh.normals[order] * 127).astype(np.int8).view(np.uint8).T,
        'uvs': _planes(uv),
        'colors': mesh.colors[order].T,
        'textures': _planes(mesh.textures[order, None].view(np.uint16)),
        'corners': _planes((occurred - corners)[:, None].astype(np.uint16)),
    }


def restored(parts: dict[str, np.ndarray]) -> Mesh:
    """The mesh of `squeezed` arrays: positions within half a step, texture coordinates in half precision."""
    back = _numbers(parts['corners'])[:, 0].astype(np.int64)
    new = back == 0
    faces = (np.cumsum(new) - new - back).astype(np.int32).reshape(-1, 3)
    steps = np.cumsum(_numbers(parts['positions']), axis=0, dtype=np.uint16)
    low, high = parts['box']
    return Mesh(
        (low + steps / np.float32(STEPS) * (high - low)).astype(np.float32),
        np.ascontiguousarray(parts['normals'].T).view(np.int8).astype(np.float32) / 127,
        _numbers(parts['uvs']).view(np.float16).astype(np.float32),
        np.ascontiguousarray(parts['colors'].T),
        _numbers(parts['textures'])[:, 0].view(np.int16),
        faces,
    )


def _planes(numbers: np.ndarray) -> np.ndarray:
    """(N, K) uint16 to (2 K, N) uint8: low bytes, then high bytes, of each column."""
    numbers = np.ascontiguousarray(numbers, '<u2')
    return np.ascontiguousarray(np.moveaxis(numbers.view(np.uint8).reshape(*numbers.shape, 2), 0, 2)).reshape(
        -1, len(numbers)
    )


def _numbers(planes: np.ndarray) -> np.ndarray:
    """(2 K, N) uint8 back to (N, K) uint16."""
    columns = planes.reshape(-1, 2, planes.shape[1])
    return np.ascontiguousarray(np.moveaxis(columns, 2, 0)).view('<u2')[..., 0]
