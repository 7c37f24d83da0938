"""The moving picture of a drive: what the robot sees, and its map from above, with the words asked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.pictures.top_view import TopView
from gsemsplat_ros.semantics.objects import Object
from gsemsplat_ros.simulation.robot import LEFT, RADIUS, base_from, parent_from_base

WIDTH, MARGIN, SEEN = 800, 12, 400  # px: of the film, around its pictures, and of the camera's picture
PAPER, INK, SOFT = (14, 16, 20), (240, 242, 245), (158, 166, 176)  # RGB
PATH, ROBOT, FOUND, WRONG = (120, 200, 255), (255, 255, 255), (255, 176, 32), (255, 107, 99)
LARGEST = 2_000_000  # bytes
QUALITIES = 72, 62, 52, 42, 30
NEAREST = 0.05  # m: what reaches closer to the camera is not drawn
FINE = 3  # times as fine are lines drawn, for smooth edges


@dataclass(frozen=True)
class Shot:
    """One picture of the film. seen (H, W, 3), top (h, w, 3) uint8 RGB; title, detail: what happens, in a few
    words; seconds: how long it stands."""

    seen: np.ndarray
    top: np.ndarray
    title: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class Mark:
    """A thing that was found, and its label; color RGB."""

    thing: Object
    label: str
    color: tuple[int, int, int] = FOUND


def marked(image: np.ndarray, camera: Camera, pose: np.ndarray, mark: Mark) -> np.ndarray:
    """The left image from a robot's pose (x, y, yaw), with the box of a thing of the map drawn over it."""
    map_from_camera = parent_from_base(pose) @ base_from(LEFT)
    # of row vectors: those of the camera's frame
    edges = (mark.thing.edges - map_from_camera[:3, 3]) @ map_from_camera[:3, :3]
    if edges[..., 2].min() < NEAREST:
        return image
    uv, _ = camera.project(edges)
    lines = [(edge.ravel().tolist(), mark.color, 2.5) for edge in uv]
    top = uv.reshape(-1, 2)[uv[..., 1].argmin()]
    drawn = _with_lines(Image.fromarray(image), lines, [])
    _label(drawn, (float(top[0]), float(top[1]) - 14), mark.label, mark.color, 17)
    return np.asarray(drawn)


def seen_from_above(
    view: TopView,
    points: np.ndarray,
    colors: np.ndarray,
    voxel: float,
    path: np.ndarray,
    marks: Sequence[Mark] = (),
    way: np.ndarray | None = None,
) -> np.ndarray:
    """The map's points (N, 3) m with colors (N, 3), the robot's path (M, 3) of poses, where it stands and
    looks, and the things that were found; way (K, 2): where it is going to drive."""
    colors = colors.copy()
    for mark in marks:
        inside = mark.thing.contains(points)
        colors[inside] = 0.35 * colors[inside] + 0.65 * np.array(mark.color) / 255
    picture = Image.fromarray(view.picture(points, colors, voxel))
    lines = []
    for mark in marks:
        (x, y, _), (w, d, _) = mark.thing.center, mark.thing.size
        box = [(x - w / 2, y - d / 2), (x + w / 2, y - d / 2), (x + w / 2, y + d / 2), (x - w / 2, y + d / 2)]
        lines.append((view.pixels(np.array([*box, box[0]])).ravel().tolist(), mark.color, 2.0))
    if way is not None and len(way) > 1:
        lines.append((view.pixels(way).ravel().tolist(), FOUND, 2.0))
    if len(path) > 1:
        lines.append((view.pixels(path[:, :2]).ravel().tolist(), PATH, 2.5))
    x, y, yaw = path[-1]
    nose = [(1.5, 0.0), (-1.0, 0.95), (-0.5, 0.0), (-1.0, -0.95)]
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    body = view.pixels(np.array([x, y]) + np.array(nose) * RADIUS @ turn)
    drawn = _with_lines(picture, lines, [(body.ravel().tolist(), ROBOT)])
    for mark in marks:
        u, v = view.pixels(np.array(mark.thing.center[:2]) + [0, mark.thing.size[1] / 2])
        _label(drawn, (float(u), float(v) - 11), mark.label, mark.color, 15)
    return np.asarray(drawn)


def _with_lines(picture: Image.Image, lines: list, polygons: list) -> Image.Image:
    """Lines (pixels, RGB, width) and filled polygons (pixels, RGB) over a picture, with smooth edges."""
    big = Image.new('RGBA', (picture.width * FINE, picture.height * FINE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(big)

    def fine(pixels: list[float]) -> list[float]:
        return [(p + 0.5) * FINE for p in pixels]

    for dark in (True, False):  # a light line on a dark one shows on every picture
        for pixels, color, width in lines:
            shade = (0, 0, 0, 150) if dark else (*color, 255)
            draw.line(fine(pixels), shade, round((width + 2 * dark) * FINE), joint='curve')
        for pixels, color in polygons:
            draw.polygon(fine(pixels), (*color, 255), (0, 0, 0, 200), FINE)
    over = big.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert('RGBA'), over).convert('RGB')


def _label(
    picture: Image.Image, at: tuple[float, float], text: str, color: tuple[int, int, int], size: int
) -> None:
    """A text about a place, kept within the picture."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox((0, 0), text, font, 'lt')
    wide, high = (right - left) / 2 + 5, (bottom - top) / 2 + 4
    x = min(max(at[0], wide + 1), picture.width - wide - 1)
    y = min(max(at[1], high + 1), picture.height - high - 1)
    draw.rounded_rectangle((x - wide, y - high, x + wide, y + high), 4, (14, 16, 20))
    draw.text((x, y), text, color, font, 'mm')


def frame(shot: Shot) -> Image.Image:
    """One picture of the film: the camera's picture with the words below it, the map to the right."""
    room = WIDTH - SEEN - 3 * MARGIN
    high = round(SEEN * shot.seen.shape[0] / shot.seen.shape[1])
    tall = round(room * shot.top.shape[0] / shot.top.shape[1])
    height = max(high + 92, tall) + 2 * MARGIN
    page = Image.new('RGB', (WIDTH, height + height % 2), PAPER)
    page.paste(Image.fromarray(shot.seen).resize((SEEN, high), Image.Resampling.LANCZOS), (MARGIN, MARGIN))
    top = Image.fromarray(shot.top).resize((room, tall), Image.Resampling.LANCZOS)
    page.paste(top, (SEEN + 2 * MARGIN, MARGIN))
    draw, below = ImageDraw.Draw(page), MARGIN + high
    draw.text((MARGIN + 2, below + 16), shot.title, INK, ImageFont.load_default(25))
    draw.text((MARGIN + 2, below + 54), shot.detail, SOFT, ImageFont.load_default(16))
    return page


def film(shots: Sequence[Shot]) -> bytes:
    """An animated WebP of at most LARGEST bytes, or as few as the lowest of QUALITIES takes."""
    frames = [frame(shot) for shot in shots]
    data = b''
    for quality in QUALITIES:
        file = io.BytesIO()
        frames[0].save(
            file,
            'WEBP',
            save_all=True,
            append_images=frames[1:],
            duration=[round(1000 * shot.seconds) for shot in shots],
            loop=0,
            quality=quality,
            method=4,
        )
        data = file.getvalue()
        if len(data) <= LARGEST:
            break
    return data
