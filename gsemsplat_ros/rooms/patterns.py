"""Patterns for parts without a texture, and pictures for posters and screens: (SIDE, SIDE, 3) uint8 RGB.

The patterns are nearly white, because they multiply the colour of the part.
"""

from __future__ import annotations

import cv2
import numpy as np

from gsemsplat_ros.rooms.materials import SIDE, color, finish, noise

LEVEL = 0.8  # mean of a pattern


def _pattern(image: np.ndarray) -> np.ndarray:
    """Scale to the mean LEVEL; (SIDE, SIDE) becomes gray."""
    image = np.maximum(image if image.ndim == 3 else np.repeat(image[..., None], 3, 2), 0)
    return finish(image * (LEVEL / image.mean()))


def weave(rng: np.random.Generator) -> np.ndarray:
    """Cloth: threads over and under each other, uneven."""
    n = int(rng.choice([32, 64, 96]))
    y, x = np.mgrid[:SIDE, :SIDE] * (2 * np.pi * n / SIDE)
    threads = np.sin(x + noise(rng, 8)) * np.sin(y + noise(rng, 8))
    return _pattern(
        1 + 0.2 * threads + 0.08 * noise(rng, 6) + rng.normal(0, 0.06, (SIDE, SIDE)) + 0.05 * noise(rng, 64)
    )


def leather(rng: np.random.Generator) -> np.ndarray:
    """Small cells with creases."""
    cells = np.abs(noise(rng, 48)) + 0.6 * np.abs(noise(rng, 24))
    return _pattern(0.8 + 0.3 * np.clip(cells, 0, 0.8) + 0.08 * noise(rng, 4))


def grain(rng: np.random.Generator) -> np.ndarray:
    """Wood: rings drawn out along x."""
    y = np.linspace(0, 2 * np.pi, SIDE, endpoint=False)[:, None]
    rings = np.sin(rng.integers(4, 14) * y + 3 * noise(rng, 2, 4) + noise(rng, 4, 16))
    fine = noise(rng, 8, 128) + 0.5 * noise(rng, 16, 256)
    tone = np.array([0.0, 0.06, 0.14]) * rng.uniform(0, 1)
    return _pattern((1 + 0.12 * rings + 0.1 * fine)[..., None] * (1 - tone * (1 + rings[..., None])))


def marble(rng: np.random.Generator) -> np.ndarray:
    """Dark veins along the zeros of noise."""
    cloud = noise(rng, 4) + 0.5 * noise(rng, 8) + 0.25 * noise(rng, 20)
    veins = np.exp(-((cloud / rng.uniform(0.05, 0.15)) ** 2))
    return _pattern(1 - 0.35 * veins + 0.06 * noise(rng, 6))


def speckle(rng: np.random.Generator) -> np.ndarray:
    """Stone or terrazzo: small spots."""
    spots = noise(rng, int(rng.choice([48, 96])))
    return _pattern(1 + 0.25 * np.tanh(4 * (spots - 0.4)) + 0.1 * noise(rng, 128))


def dirt(rng: np.random.Generator) -> np.ndarray:
    """Stains, scratches and fingerprints on a smooth surface."""
    stains = np.clip(noise(rng, 5) + 0.6 * noise(rng, 14) - 0.7, 0, 1)
    image = 1 - 0.5 * stains + 0.02 * noise(rng, 64)
    for _ in range(int(rng.integers(2, 16))):
        a, b = rng.integers(0, SIDE, (2, 2))
        cv2.line(image, a.tolist(), (a + (b - a) // 4).tolist(), rng.uniform(0.7, 1.2), 1)
    return _pattern(image)


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Printed cloth: stripes, checks or dots of one or two colours."""
    n = int(rng.choice([3, 6, 12]))
    y, x = np.mgrid[:SIDE, :SIDE] * (2 * np.pi * n / SIDE)
    wave = (np.sin(x), np.sin(x) + np.sin(y), 1.5 * np.sin(x) * np.sin(y), np.sin(x + y))[rng.integers(4)]
    mix = np.clip(3 * (wave - rng.uniform(-0.4, 0.6)) + 0.5, 0, 1)[..., None]
    first, second = color(rng, 0.5, 1, 0.3), color(rng, 0.2, 1, 0.4)
    cloth = 1 + 0.06 * noise(rng, 96) + 0.05 * noise(rng, 6)
    return _pattern((first * (1 - mix) + second * mix) * cloth[..., None])


def flowers(rng: np.random.Generator) -> np.ndarray:
    """Printed cloth: blots of some colours, blurred a little."""
    image = np.ones((SIDE, SIDE, 3), np.float32) * color(rng, 0.5, 1, 0.2)
    for _ in range(int(rng.integers(10, 60))):
        at, radius = rng.integers(0, SIDE, 2), int(rng.integers(4, 26))
        axes = (radius, max(2, int(radius * rng.uniform(0.3, 1))))
        ink, turn = color(rng, 0.2, 1, 0.4).tolist(), float(rng.uniform(0, 180))
        for dx in (-SIDE, 0, SIDE):
            for dy in (-SIDE, 0, SIDE):
                cv2.ellipse(image, (int(at[0] + dx), int(at[1] + dy)), axes, turn, 0, 360, ink, -1)
    return _pattern(cv2.GaussianBlur(image, (0, 0), 1.0) * (1 + 0.05 * noise(rng, 96)[..., None]))


def scenery(rng: np.random.Generator) -> np.ndarray:
    """A view with sky, hills or houses, and sometimes a head and shoulders before it."""
    y = np.linspace(0, 1, SIDE)[:, None, None]
    image = color(rng, 0.3, 0.9, 0.2) * (1 - y) + color(rng, 0.5, 1, 0.15) * y * np.ones((SIDE, SIDE, 1))
    image = np.ascontiguousarray(image, np.float32)
    for k in range(int(rng.integers(1, 4))):
        ridge = SIDE * (0.4 + 0.15 * k) + rng.uniform(5, 40) * noise(rng, int(rng.choice([3, 6, 12])))[0]
        below = np.arange(SIDE)[:, None] > ridge
        image[below] = (color(rng, 0.1, 0.7, 0.25) * (1 + 0.3 * noise(rng, 24)[..., None]))[below]
    for _ in range(int(rng.integers(0, 6))):
        a = rng.integers(0, SIDE, 2)
        b = a + rng.integers(8, 90, 2)
        cv2.rectangle(image, a.tolist(), b.tolist(), color(rng, 0.1, 0.95, 0.3).tolist(), -1)
    if rng.random() < 0.4:
        x, high = int(rng.integers(70, 190)), int(rng.integers(90, 150))
        cv2.ellipse(image, (x, 256), (75, 256 - high - 30), 0, 0, 360, color(rng, 0.1, 0.8, 0.3).tolist(), -1)
        skin = np.array([0.9, 0.68, 0.55]) * rng.uniform(0.4, 1.1)
        cv2.ellipse(image, (x, high), (34, 46), 0, 0, 360, color(rng, 0.05, 0.5, 0.1).tolist(), -1)
        cv2.ellipse(image, (x, high + 8), (28, 38), 0, 0, 360, skin.tolist(), -1)
    return finish(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5)))


def page(rng: np.random.Generator) -> np.ndarray:
    """A printed page or a desktop: lines of writing, boxes, a heading."""
    dark = rng.random() < 0.3
    paper, ink = color(rng, 0.85, 1, 0.04), color(rng, 0.02, 0.35, 0.1)
    if dark:
        paper, ink = ink, paper
    image = np.ones((SIDE, SIDE, 3), np.float32) * paper.astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        a = rng.integers(0, 190, 2)
        b = a + rng.integers(20, 120, 2)
        cv2.rectangle(image, a.tolist(), b.tolist(), color(rng, 0.2, 0.95, 0.3).tolist(), -1)
    y, left = int(rng.integers(12, 50)), int(rng.integers(8, 40))
    step = int(rng.integers(7, 18))
    while y < SIDE - 8:
        x, right = left, SIDE - left - int(rng.integers(0, 80))
        while x < right:
            word = int(rng.integers(4, 26))
            cv2.rectangle(image, (x, y), (min(x + word, right), y + step // 2 - 1), ink.tolist(), -1)
            x += word + 4
        y += step * (3 if rng.random() < 0.12 else 1)
    return finish(cv2.GaussianBlur(image, (0, 0), 0.6))


def details(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """`count` random textures, of which the last quarter are pictures for screens."""
    makers = [weave, weave, leather, grain, grain, marble, speckle, dirt, dirt, stripes, flowers]
    pictures = count // 4
    chosen = [makers[rng.integers(len(makers))] for _ in range(count - pictures)]
    return [make(rng) for make in chosen] + [(scenery, page)[rng.integers(2)](rng) for _ in range(pictures)]
