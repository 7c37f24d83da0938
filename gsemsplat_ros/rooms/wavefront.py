"""Wavefront OBJ and MTL text as arrays: triangle fans, diffuse colours, opacities and texture names."""

from __future__ import annotations

import numpy as np


def read_mtl(text: str) -> dict[str, tuple[tuple[float, float, float], float, str]]:
    """Material name -> (diffuse colour, opacity, texture file or '')."""
    materials, name = {}, ''
    for line in text.splitlines():
        key, _, value = line.strip().partition(' ')
        value = value.strip()
        if key == 'newmtl':
            name = value
            materials[name] = ((0.7, 0.7, 0.7), 1.0, '')
        elif name and value:
            kd, opacity, texture = materials[name]
            if key == 'Kd':
                red, green, blue = (float(x) for x in value.split()[:3])
                kd = red, green, blue
            elif key == 'd':
                opacity = float(value.split()[-1])
            elif key == 'map_Kd':
                texture = value.replace('\\', '/')
            materials[name] = (kd, opacity, texture)
    return materials


def read_obj(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str], str]:
    """Read the text of an OBJ file.

    Returns vertices (V,3), texture coordinates (T,2), normals (N,3), corners of triangles (F,3,4) as rows of
    vertex, uv, normal and material (-1: none), the materials' names, and the MTL file's name ('': none).
    """
    # flat lists, which become arrays many times as fast as nested ones
    vertices: list[float] = []
    uvs: list[float] = []
    normals: list[float] = []
    corners: list[int] = []
    materials: list[str] = []
    library = ''
    material = -1
    known: dict[tuple[str, int], tuple[int, ...]] = {}  # most corners are shared by several faces
    for line in text.replace('\\\n', ' ').splitlines():
        parts = line.split()
        if not parts:
            continue
        key = parts[0]
        if key == 'v':
            vertices.extend(map(float, parts[1:4]))
        elif key == 'vt':
            uvs.extend((float(parts[1]), float(parts[2]) if len(parts) > 2 else 0.0))
        elif key == 'vn':
            normals.extend(map(float, parts[1:4]))
        elif key == 'usemtl':
            name = line.split(None, 1)[1].strip() if len(parts) > 1 else ''
            if name not in materials:
                materials.append(name)
            material = materials.index(name)
        elif key == 'mtllib':
            library = line.split(None, 1)[1].strip()
        elif key == 'f':
            polygon = []
            for token in parts[1:]:
                corner = known.get((token, material))
                if corner is None:
                    counts = len(vertices) // 3, len(uvs) // 2, len(normals) // 3
                    corner = (*_corner(token, counts), material)
                    if '-' not in token:  # a negative index is relative to the current end
                        known[token, material] = corner
                polygon.append(corner)
            for k in range(1, len(polygon) - 1):
                corners += (*polygon[0], *polygon[k], *polygon[k + 1])
    return (
        np.asarray(vertices, np.float64).reshape(-1, 3),
        np.asarray(uvs, np.float64).reshape(-1, 2),
        np.asarray(normals, np.float64).reshape(-1, 3),
        np.asarray(corners, np.int64).reshape(-1, 3, 4),
        materials,
        library,
    )


def _corner(token: str, counts: tuple[int, int, int]) -> list[int]:
    """Rows of 'vertex/uv/normal', -1 for none; OBJ indices start at 1, negative ones count from the end."""
    ids = (token.split('/') + ['', ''])[:3]
    return [(int(i) - 1 if int(i) > 0 else n + int(i)) if i else -1 for i, n in zip(ids, counts)]
