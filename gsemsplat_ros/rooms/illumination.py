"""The light of a photographic room: windows by day, lamps, what the surroundings send back, and exposure."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.rooms.layout import Light, Photographic, Quad
from gsemsplat_ros.rooms.patterns import details

MAX_LIGHTS = 4
DETAILS = 12  # patterns of a room, a quarter of them pictures for screens
DAY = 0.7  # share of the rooms with daylight


def warmth(value: float) -> np.ndarray:
    """(3,) RGB of light from bluish (-1) over white (0) to yellowish (1), mean 1."""
    tint = np.array([1 + 0.35 * value, 1.0, 1 - 0.5 * value])
    return tint / tint.mean()


def illumination(
    rng: np.random.Generator, size: np.ndarray, quads: list[Quad], names: list[str]
) -> tuple[list[Light], Photographic]:
    """Lights, the ones with shadows first, and the rest of what Photographic holds, for a room of this size
    [m] with these quads."""
    lights = []
    if rng.random() < DAY:
        color = warmth(rng.uniform(-0.8, 0.5))
        for quad in quads:
            if names[quad.instance] == 'window':
                normal = np.cross(quad.u, quad.v)
                normal /= np.linalg.norm(normal)
                middle = quad.corner + quad.u / 2 + quad.v / 2
                radius = 0.35 * float(np.linalg.norm(quad.u) + np.linalg.norm(quad.v))
                power = rng.uniform(2, 6) * float(np.linalg.norm(quad.u) * np.linalg.norm(quad.v))
                lights.append(Light(middle - 0.1 * normal, power * color, normal, radius))
    rng.shuffle(lights)  # type: ignore[arg-type]  # a list shuffles too
    dark = not lights
    for _ in range(int(rng.integers(1, 4)) if dark else int(rng.integers(0, 3))):
        middle = np.array([*(rng.uniform(0.2, 0.8, 2) * size[:2]), size[2] - rng.uniform(0.1, 0.5)])
        power = rng.uniform(1, 4)
        lights.append(Light(middle, power * warmth(rng.uniform(-0.2, 1)), radius=rng.uniform(0.05, 0.4)))
    lights = lights[:MAX_LIGHTS]
    # what walls and floor send back
    total = sum((light.color for light in lights), np.zeros(3)) / (size[0] * size[1]) * rng.uniform(0.15, 0.5)
    total = total + rng.uniform(0.03, 0.15)
    floor = warmth(rng.uniform(-0.3, 0.8)) * rng.uniform(0.4, 0.9)
    far = 0.3 * float(np.mean(size[:2] ** 2)) + 0.5
    mean = sum(float(light.color.mean()) for light in lights) * 0.5 / far + float(total.mean())
    exposure = float(np.exp(rng.normal(0.4, 0.3)) / mean)
    return lights, Photographic(total, total * floor, exposure, details(rng, DETAILS))
