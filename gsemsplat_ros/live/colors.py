"""Colours of the Gaussians on the live page, by mode: colour, relevancy, meaning, distance.

Colours are (M, 3) RGB in [0, 1], in the order of ShownScene.rows.
"""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.flight.flight import SAMPLE, SOLID
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.pictures.heat import heat
from gsemsplat_ros.pictures.overlay import depth_picture, turbo
from gsemsplat_ros.pictures.principal import Principal

ACCENT = np.array([1.0, 0.62, 0.05], np.float32)  # colour of highlighted Gaussians
REST = 0.55  # share of the brightness that the others keep
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def packed(gaussians: Gaussians) -> np.ndarray:
    """Pack L Gaussians as viser splats (L, 8) uint32, black.

    Columns 0-2: position, float32; 3: used by viser; 4-6: upper triangle of the covariance, float16; 7: RGBA.
    """
    buffer = np.zeros((len(gaussians), 8), np.uint32)
    buffer[:, :3] = np.ascontiguousarray(gaussians.means.numpy(), np.float32).view(np.uint32)
    spread = gaussians.covariances().numpy()
    triangle = spread.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]].clip(-65504, 65504)
    buffer[:, 4:7] = np.ascontiguousarray(triangle, np.float16).view(np.uint32)
    buffer[:, 7:].view(np.uint8)[:, 3] = np.rint(gaussians.opacities.numpy().clip(0, 1) * 255)
    return buffer


def painted(buffer: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A copy of the splats `buffer` (M, 8) in other colours (M, 3)."""
    buffer = buffer.copy()
    buffer[:, 7:].view(np.uint8)[:, :3] = np.rint(colors.clip(0, 1) * 255)
    return buffer


def own_colors(shown: ShownScene) -> np.ndarray:
    """The Gaussians' own colours (M, 3)."""
    return shown.gaussians.colors.numpy()[shown.rows].clip(0, 1)


def highlighted(colors: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Tint the `lit` (M,) bool Gaussians in the accent colour and darken the others to half gray."""
    gray = (colors @ LUMA)[:, None]
    rest = REST * (0.55 * gray + 0.45 * colors)
    # keep some of the own colour, so that the surface's shading stays visible
    glow = ACCENT * (0.55 + 0.45 * gray) * 0.75 + 0.25 * colors
    return np.where(lit[:, None], glow, rest).astype(np.float32)


def relevancy_colors(colors: np.ndarray, relevancy: np.ndarray, found: bool) -> np.ndarray:
    """Turbo colours of `relevancy` (M,) over dark gray; unknown relevancy (NaN) stays dark gray."""
    level = heat(relevancy, found)
    known = np.isfinite(level)
    level = np.where(known, level, 0).astype(np.float32)
    base = 0.30 * (colors @ LUMA)[:, None].repeat(3, 1)
    share = (np.where(known, 0.35 + 0.6 * level, 0))[:, None].astype(np.float32)
    hot = turbo(0.08 + 0.84 * level[None])[0].astype(np.float32) / 255
    return base + share * (hot - base)


def code_colors(codes: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """The three strongest principal components of codes (M, C) as RGB, fitted to the solid Gaussians.

    Deterministic. Similar meanings get similar colours; a single colour means nothing.
    """
    if not len(codes):
        return np.zeros((0, 3), np.float32)
    solid = np.flatnonzero(opacities >= SOLID)
    solid = solid if len(solid) else np.arange(len(codes))
    principal = Principal.fit(
        codes[solid[np.linspace(0, len(solid) - 1, min(SAMPLE, len(solid))).astype(int)]]
    )
    return principal.colors(codes @ principal.components.T)


def depth_colors(shown: ShownScene) -> tuple[np.ndarray, float, float]:
    """Colours (M, 3) by distance to the eye, and the distances shown as red (near) and blue (far)."""
    if not len(shown.means):
        return np.zeros((0, 3), np.float32), float('nan'), float('nan')
    distance = np.linalg.norm(shown.means - shown.eye, axis=1)
    picture, near, far = depth_picture(distance[None])
    return picture[0].astype(np.float32) / 255, near, far
