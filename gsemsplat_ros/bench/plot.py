"""The plot of `gsemsplat bench --scale` as SVG: time and memory over each axis, on logarithmic scales."""

from __future__ import annotations

import math
from html import escape

from gsemsplat_ros.bench.scale import AXES

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 260, 48, 12, 58, 42  # of a panel and of its margins [px]
COLORS = '#1f77b4', '#d95f02'
PANELS = (('seconds', 'time [s]'), ('megabytes', 'memory [MB]'))


def plot(result: dict) -> str:
    """The SVG text for a result of `scale`."""
    parts = []
    for column, axis in enumerate(AXES):
        for row, (key, label) in enumerate(PANELS):
            parts.append(
                f'<g transform="translate({column * WIDTH},{row * HEIGHT + 24})">'
                f'{panel(result[axis.name], key, axis.label, label)}</g>'
            )
    width, height = WIDTH * len(AXES), HEIGHT * len(PANELS) + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="8" y="16" font-size="12">{escape(result["device"])}</text>{"".join(parts)}</svg>\n'
    )


def panel(rows: list[dict], key: str, x_label: str, y_label: str) -> str:
    """One diagram: `key` over `at`, a line for each `what` of the rows."""
    rows = [row for row in rows if row[key] is not None and row[key] > 0]
    if not rows:
        return ''
    xs, ys = [row['at'] for row in rows], [row[key] for row in rows]
    x_low, x_high = math.log10(min(xs)), math.log10(max(xs))
    y_low, y_high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    y_high = max(y_high, y_low + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / max(x_high - x_low, 1e-9)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    out = []
    for power in range(y_low, y_high + 1):
        _, y = place(xs[0], 10.0**power)
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for at in sorted(set(xs)):
        x, _ = place(at, ys[0])
        out.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{short(at)}</text>'
        )
    for number, what in enumerate(dict.fromkeys(row['what'] for row in rows)):
        color = COLORS[number % len(COLORS)]
        points = [place(row['at'], row[key]) for row in rows if row['what'] == what]
        out.append(
            f'<polyline fill="none" stroke="{color}" stroke-width="2" points="'
            f'{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        )
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
        out.append(f'<text x="{LEFT}" y="{TOP - 26 + 14 * number}" fill="{color}">{escape(what)}</text>')
    out.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="8" y="{TOP - 40}" font-weight="bold">{escape(y_label)}</text>'
    )
    return ''.join(out)


def short(number: int) -> str:
    """1000000 as 1M."""
    for size, letter in ((1_000_000, 'M'), (1_000, 'k')):
        if number >= size:
            return f'{number / size:g}{letter}'
    return str(number)
