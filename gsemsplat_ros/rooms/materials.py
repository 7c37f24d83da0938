"""Procedural textures (SIDE, SIDE, 3) uint8 RGB: floors, walls, ceilings, rugs, pictures, doors, windows."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 256


def color(rng: np.random.Generator, low: float, high: float, chroma: float) -> np.ndarray:
    """(3,) RGB in [0, 1]: a random brightness, each channel off by at most `chroma`."""
    return np.clip(rng.uniform(low, high) + rng.uniform(-chroma, chroma, 3), 0.02, 1)


def noise(rng: np.random.Generator, cells: int, rows: int | None = None) -> np.ndarray:
    """(SIDE, SIDE) smooth noise in about [-1, 1] that tiles without a seam."""
    coarse = rng.uniform(-1, 1, (rows or cells, cells)).astype(np.float32)
    tiled = np.pad(coarse, 2, mode='wrap')
    scale_y, scale_x = SIDE / coarse.shape[0], SIDE / coarse.shape[1]
    matrix = np.array([[1 / scale_x, 0, 2.0], [0, 1 / scale_y, 2.0]], np.float32)
    return cv2.warpAffine(tiled, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)


def finish(image: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8."""
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def wood(rng: np.random.Generator) -> np.ndarray:
    """Planks along x, each with its own brightness, grain and dark joints."""
    base = np.array([0.62, 0.43, 0.26]) * rng.uniform(0.45, 1.35) * rng.uniform(0.9, 1.1, 3)
    rows = int(rng.choice([4, 8, 16]))
    high = SIDE // rows
    image = np.ones((SIDE, SIDE, 3)) * base
    grain = noise(rng, 6, 128) * 0.5 + noise(rng, 3, 64) * 0.5
    for r in range(rows):
        joint = int(rng.integers(SIDE))
        shade = rng.uniform(0.82, 1.12, 2)
        row = np.where((np.arange(SIDE) + joint) % SIDE < SIDE // 2, shade[0], shade[1])
        image[r * high : (r + 1) * high] *= row[None, :, None]
        image[r * high] *= 0.6
        image[r * high : (r + 1) * high, [(-joint) % SIDE, (SIDE // 2 - joint) % SIDE]] *= 0.6
    return finish(image * (1 + 0.16 * grain[..., None]))


def tiles(rng: np.random.Generator) -> np.ndarray:
    """Square tiles with grout; sometimes a chequerboard of two colours."""
    count = int(rng.choice([2, 4, 8]))
    side = SIDE // count
    colors = [color(rng, 0.3, 0.9, 0.08)] * 2
    if rng.random() < 0.35:
        colors = [colors[0], color(rng, 0.15, 0.9, 0.1)]
    y, x = np.mgrid[:SIDE, :SIDE]
    odd = ((x // side + y // side) % 2)[..., None]
    image = (
        np.where(odd, colors[1], colors[0]) * (1 + 0.06 * noise(rng, 16) + 0.04 * noise(rng, 64))[..., None]
    )
    image *= (1 + np.kron(rng.uniform(-0.05, 0.05, (count, count)), np.ones((side, side))))[..., None]
    grout = (x % side < 2) | (y % side < 2)
    image[grout] = color(rng, 0.3, 0.75, 0.02)
    return finish(image)


def carpet(rng: np.random.Generator) -> np.ndarray:
    """Short pile: fine noise over a soft colour."""
    fine = rng.normal(0, 0.08, (SIDE, SIDE)) + 0.06 * noise(rng, 64) + 0.05 * noise(rng, 8)
    return finish(color(rng, 0.2, 0.7, 0.15) * (1 + fine[..., None]))


def plaster(rng: np.random.Generator) -> np.ndarray:
    """A painted, slightly uneven wall."""
    uneven = 0.02 * noise(rng, 5) + 0.02 * noise(rng, 32) + rng.normal(0, 0.012, (SIDE, SIDE))
    return finish(color(rng, 0.55, 0.97, 0.1) * (1 + uneven[..., None]))


def wallpaper(rng: np.random.Generator) -> np.ndarray:
    """Stripes, or a small repeated pattern, in two similar colours."""
    first = color(rng, 0.45, 0.95, 0.12)
    second = np.clip(first + rng.uniform(-0.25, 0.25, 3) * 0.7, 0.05, 1)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE * 2 * np.pi
    n = int(rng.choice([4, 8, 16]))
    wave = (
        np.sin(n * x) if rng.random() < 0.5 else np.sin(n * x) * np.sin(n * y) + 0.3 * np.sin(2 * n * (x + y))
    )
    mix = 1 / (1 + np.exp(-8 * (wave - rng.uniform(0, 0.5))))
    return finish((first + (second - first) * mix[..., None]) * (1 + 0.02 * noise(rng, 32)[..., None]))


def bricks(rng: np.random.Generator) -> np.ndarray:
    """Running-bond bricks, natural or painted."""
    base = (
        np.array([0.6, 0.33, 0.25]) * rng.uniform(0.7, 1.2)
        if rng.random() < 0.5
        else color(rng, 0.6, 0.9, 0.04)
    )
    y, x = np.mgrid[:SIDE, :SIDE]
    row = y // 16
    column = (x + (row % 2) * 32) % SIDE // 64
    image = (
        base
        * (0.85 + 0.3 * rng.random((16, 4)))[row, column][..., None]
        * (1 + 0.1 * noise(rng, 64)[..., None])
    )
    image[(y % 16 < 2) | ((x + (row % 2) * 32) % 64 < 2)] = color(rng, 0.5, 0.8, 0.02)
    return finish(image)


def rug(rng: np.random.Generator) -> np.ndarray:
    """A border and a pattern mirrored about both axes."""
    colors = [color(rng, 0.1, 0.85, 0.3) for _ in range(4)]
    field = noise(rng, 8) + noise(rng, 20)
    field = field + field[::-1] + field[:, ::-1] + field[::-1, ::-1]
    level = np.digitize(field, [-1, 0.3, 1.2])
    image = np.array(colors)[level]
    edge = np.minimum.reduce(
        np.broadcast_arrays(*np.ogrid[:SIDE, :SIDE], *(SIDE - 1 - g for g in np.ogrid[:SIDE, :SIDE]))
    )
    image[edge < 24] = colors[1]
    image[edge < 10] = colors[0]
    return finish(image * (1 + rng.normal(0, 0.07, (SIDE, SIDE, 1))))


def picture(rng: np.random.Generator) -> np.ndarray:
    """A frame, a mount and an abstract or landscape-like print."""
    levels = (
        noise(rng, int(rng.choice([2, 3, 6])))
        + 0.3 * noise(rng, 16)
        + np.linspace(-1, 1, SIDE)[:, None] * rng.uniform(-1, 1)
    )
    colors = np.array([color(rng, 0.1, 0.9, 0.35) for _ in range(6)])
    image = colors[np.digitize(levels, [-0.8, -0.3, 0, 0.3, 0.8])]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 6))
    mount, frame = color(rng, 0.8, 1, 0.03), color(rng, 0.05, 0.8, 0.1)
    edge = np.minimum.reduce(
        np.broadcast_arrays(*np.ogrid[:SIDE, :SIDE], *(SIDE - 1 - g for g in np.ogrid[:SIDE, :SIDE]))
    )
    image[edge < rng.integers(14, 44)] = mount
    image[edge < 14] = frame
    return finish(image)


def door(rng: np.random.Generator) -> np.ndarray:
    """A door leaf with a frame, sunk panels and a handle, to be stretched over about 0.9 m x 2 m."""
    base = (
        np.array([0.62, 0.43, 0.26]) * rng.uniform(0.5, 1.3)
        if rng.random() < 0.5
        else color(rng, 0.65, 0.97, 0.06)
    )
    image = np.ones((SIDE, SIDE, 3)) * base * (1 + 0.08 * noise(rng, 64, 4)[..., None])
    rows = int(rng.integers(1, 4))
    for r in range(rows):
        y0, y1 = 22 + r * 220 // rows, 10 + (r + 1) * 220 // rows
        cv2.rectangle(image, (56, y0), (200, y1), (base * 0.7).tolist(), 4)
        cv2.line(image, (56, y1), (200, y1), (base * 1.15).tolist(), 3)
    image[:8] = image[:, :18] = image[:, -18:] = base * 0.85
    image[8:11] = image[:, 18:22] = image[:, -22:-18] = base * 0.4
    x = 212 if rng.random() < 0.5 else 34
    cv2.rectangle(image, (x - 9, 128), (x + 9, 133), (0.75, 0.74, 0.7), -1)
    return finish(image)


def window(rng: np.random.Generator) -> np.ndarray:
    """A frame and bars before sky and trees, by day or night."""
    y = np.linspace(0, 1, SIDE)[:, None, None]
    day = rng.uniform(0.06, 0.2) if rng.random() < 0.15 else rng.uniform(0.7, 1.1)
    image = (np.array([0.65, 0.8, 1.0]) * (1 - y) + np.array([0.95, 0.96, 1.0]) * y) * np.ones(
        (SIDE, SIDE, 1)
    )
    horizon = (SIDE * rng.uniform(0.35, 0.9) + 24 * noise(rng, 8)[0]).astype(int)
    green = np.array([0.3, 0.42, 0.22]) * rng.uniform(0.6, 1.4, 3)
    below = np.arange(SIDE)[:, None] > horizon
    image = (
        np.where(
            below[..., None], green * (1 + 0.4 * noise(rng, 24) + 0.3 * noise(rng, 64))[..., None], image
        )
        * day
    )
    frame = color(rng, 0.75, 0.98, 0.03) if rng.random() < 0.75 else np.array([0.4, 0.27, 0.16])
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    for k in range(columns + 1):
        x = int(k * (SIDE - 1) / columns)
        image[:, max(0, x - 9) : x + 10] = frame
    for k in range(rows + 1):
        x = int(k * (SIDE - 1) / rows)
        image[max(0, x - 9) : x + 10] = frame
    return finish(image)
