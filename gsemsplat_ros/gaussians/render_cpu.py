"""The renderer for machines without CUDA: compiled with numba, as many threads as torch may use.

`render_plain` defines what is computed; here it is made fast. Gaussians are sorted by depth once, listed
per tile of 16 x 16 pixels, and drawn one after the other on a tile that stays in the L2 cache: a row of 16
pixels is one vector of alphas and transmittances, a pixel's channels are one short vector sum.

The threads are Python's: the compiled functions release the GIL and write to disjoint rows. numba's own
`prange` is not used because its built-in thread layer aborts the process when two Python threads enter it, as
a node's worker and its query do. Compiled code is kept in `__pycache__`, or in NUMBA_CACHE_DIR or the user's
cache where that is not writable; without it the first picture takes some seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numba import njit

from gsemsplat_ros.gaussians import projection, render_plain
from gsemsplat_ros.gaussians.gaussians import TENSORS, Gaussians
from gsemsplat_ros.gaussians.projection import DILATION, MAX_PIXELS, NEAR, jacobian_limits
from gsemsplat_ros.gaussians.render_plain import Rendering
from gsemsplat_ros.images.camera import Camera

TILE = 16
CHECK = 32  # Gaussians between two checks whether a tile is finished
LANES = 8  # channels are padded to whole vectors of this many
BOX, SHAPE = 4, 8  # columns of the tables between the stages, see `_project`

# numba takes Python floats for float64; the drawing loop is float32 throughout. Compiled code holds these
# values: after a change in projection.py or render_plain.py touch this file: numba's cache looks at no other.
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOWEST = np.float32(-20)  # exp(-20) is far below MIN_ALPHA and within what `_exp` can do
MAX_ALPHA, MIN_ALPHA = np.float32(render_plain.MAX_ALPHA), np.float32(projection.MIN_ALPHA)
SLACK = np.float32(0.01)  # [px] for the rounding of a row's span, which only saves work: alphas decide
STOP, MIN_DEPTH_ALPHA = np.float32(render_plain.STOP), np.float32(render_plain.MIN_DEPTH_ALPHA)
LOG2E, ROUND = np.float32(math.log2(math.e)), np.float32(1.5 * 2**23)
EXPONENT_ZERO = np.int32(ROUND.view(np.int32) - 127)
E1, E2, E3, E4, E5 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 6))

# 'contract' allows fused multiply-add and nothing that would break the rounding trick of `_exp`
compiled = njit(nogil=True, cache=True, error_model='numpy', fastmath={'contract'})


@njit(inline='always')
def _exp(x):
    """exp of a float32 in [-80, 0] to 4e-6 of itself, in vectorisable steps: 2^k by bits, 2^f by series."""
    t = x * LOG2E
    rounded = t + ROUND  # pushes the fraction out of the mantissa; the integer k stays in the low bits
    f = t - (rounded - ROUND)
    series = ONE + f * (E1 + f * (E2 + f * (E3 + f * (E4 + f * E5))))
    power = np.int32(np.int32(np.float32(rounded).view(np.int32) - EXPONENT_ZERO) << np.int32(23))
    return series * power.view(np.float32)


@compiled
def _project(start, stop, means, quats, scales, opacities, world, lens, limits, width, height, boxes, shapes):
    """Fill rows `start` to `stop` of boxes (N, 4) and shapes (N, 8).

    world (3, 4) camera_from_world; lens: fx, fy, cx, cy. A box is first and last column, first and last row
    of the pixels with alpha >= MIN_ALPHA, last column -1 when there is none. A shape is u, v, precision,
    slope, 1 / variance_y, opacity, z, power at which alpha is MIN_ALPHA.
    """
    fx, fy, cx, cy = lens
    for i in range(start, stop):
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = 0, -1, 0, -1
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        x = world[0, 0] * a + world[0, 1] * b + world[0, 2] * c + world[0, 3]
        y = world[1, 0] * a + world[1, 1] * b + world[1, 2] * c + world[1, 3]
        z = world[2, 0] * a + world[2, 1] * b + world[2, 2] * c + world[2, 3]
        if not (z > NEAR and opacities[i] > MIN_ALPHA):
            continue
        sx, sy = fx / z, fy / z
        tx, ty = min(max(x / z, limits[0]), limits[1]), min(max(y / z, limits[2]), limits[3])
        # j, k: rows of the Jacobian times the camera's rotation; m, n: those times the Gaussian's axes
        j0, j1, j2 = (
            sx * (world[0, 0] - tx * world[2, 0]),
            sx * (world[0, 1] - tx * world[2, 1]),
            sx * (world[0, 2] - tx * world[2, 2]),
        )
        k0, k1, k2 = (
            sy * (world[1, 0] - ty * world[2, 0]),
            sy * (world[1, 1] - ty * world[2, 1]),
            sy * (world[1, 2] - ty * world[2, 2]),
        )
        qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        xx, yy, zz, xy, xz, yz = qx * qx, qy * qy, qz * qz, qx * qy, qx * qz, qy * qz
        wx, wy, wz = qw * qx, qw * qy, qw * qz
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        m0 = s0 * (j0 * (1 - 2 * (yy + zz)) + j1 * 2 * (xy + wz) + j2 * 2 * (xz - wy))
        m1 = s1 * (j0 * 2 * (xy - wz) + j1 * (1 - 2 * (xx + zz)) + j2 * 2 * (yz + wx))
        m2 = s2 * (j0 * 2 * (xz + wy) + j1 * 2 * (yz - wx) + j2 * (1 - 2 * (xx + yy)))
        n0 = s0 * (k0 * (1 - 2 * (yy + zz)) + k1 * 2 * (xy + wz) + k2 * 2 * (xz - wy))
        n1 = s1 * (k0 * 2 * (xy - wz) + k1 * (1 - 2 * (xx + zz)) + k2 * 2 * (yz + wx))
        n2 = s2 * (k0 * 2 * (xz + wy) + k1 * 2 * (yz - wx) + k2 * (1 - 2 * (xx + yy)))
        variance_x, variance_y = m0 * m0 + m1 * m1 + m2 * m2, n0 * n0 + n1 * n1 + n2 * n2
        area = (m1 * n2 - m2 * n1) ** 2 + (m2 * n0 - m0 * n2) ** 2 + (m0 * n1 - m1 * n0) ** 2
        det = area + DILATION * (variance_x + variance_y) + DILATION**2
        variance_x += DILATION
        variance_y += DILATION
        u, v = sx * x + cx, sy * y + cy
        reach = 2 * math.log(opacities[i] / MIN_ALPHA)
        rx, ry = math.sqrt(reach * variance_x), math.sqrt(reach * variance_y)
        if not (abs(u) + rx < MAX_PIXELS and abs(v) + ry < MAX_PIXELS):  # rejects NaN too
            continue
        if u + rx < 0 or v + ry < 0 or u - rx > width - 1 or v - ry > height - 1:
            continue
        left, right = math.ceil(max(u - rx, 0)), math.floor(min(u + rx, width - 1))
        top, bottom = math.ceil(max(v - ry, 0)), math.floor(min(v + ry, height - 1))
        if left > right or top > bottom:  # a faint one between pixels
            continue
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = left, right, top, bottom
        shapes[i, 0], shapes[i, 1], shapes[i, 2] = u, v, variance_y / det
        shapes[i, 3], shapes[i, 4] = (m0 * n0 + m1 * n1 + m2 * n2) / variance_y, 1 / variance_y
        shapes[i, 5], shapes[i, 6], shapes[i, 7] = opacities[i], z, -0.5 * reach


@compiled
def _order_by_depth(boxes, shapes):
    """Rows of the visible Gaussians, nearest first, ties by row. Radix sort: floats > 0 sort like bits."""
    n = len(boxes)
    keys, rows = np.empty(n, np.uint32), np.empty(n, np.int32)
    starts = np.zeros((3, 2048), np.int64)
    m = 0
    for i in range(n):
        if boxes[i, 1] >= 0:
            key = np.float32(shapes[i, 6]).view(np.uint32)
            keys[m], rows[m] = key, i
            m += 1
            for digit in range(3):
                starts[digit, (key >> np.uint32(11 * digit)) & np.uint32(2047)] += 1
    new_keys, new_rows = np.empty(m, np.uint32), np.empty(m, np.int32)
    for digit in range(3):
        place = starts[digit]
        total = 0
        for k in range(2048):
            place[k], total = total, total + place[k]
        for i in range(m):
            k = (keys[i] >> np.uint32(11 * digit)) & np.uint32(2047)
            new_keys[place[k]], new_rows[place[k]] = keys[i], rows[i]
            place[k] += 1
        keys, new_keys, rows, new_rows = new_keys, keys, new_rows, rows
    return rows[:m]


@compiled
def _list_tiles(order, boxes, across, down):
    """starts (tiles + 1,) and entries: tile t holds the Gaussians entries[starts[t]:starts[t + 1]]."""
    starts = np.zeros(across * down + 1, np.int64)
    for i in range(len(boxes)):  # in memory order: counts do not depend on depth
        if boxes[i, 1] >= 0:
            for y in range(boxes[i, 2] // TILE, boxes[i, 3] // TILE + 1):
                for x in range(boxes[i, 0] // TILE, boxes[i, 1] // TILE + 1):
                    starts[y * across + x + 1] += 1
    for t in range(across * down):
        starts[t + 1] += starts[t]
    place = starts[:-1].copy()
    entries = np.empty(starts[-1], np.int32)
    for i in order:
        for y in range(boxes[i, 2] // TILE, boxes[i, 3] // TILE + 1):
            for x in range(boxes[i, 0] // TILE, boxes[i, 1] // TILE + 1):
                entries[place[y * across + x]] = i
                place[y * across + x] += 1
    return starts, entries


@compiled
def _draw(tile_row, starts, entries, boxes, shapes, colors, codes, background, rgb, depth, alpha, out_codes):
    """Fill the 16 image rows of `tile_row` in rgb, depth, alpha and out_codes."""
    height, width = alpha.shape
    channels = 4 + codes.shape[1]
    padded = (channels + LANES - 1) // LANES * LANES
    sums = np.empty((TILE * TILE, padded), np.float32)
    feature = np.zeros(padded, np.float32)  # of the Gaussian at hand: r, g, b, z, codes
    light = np.empty((TILE, TILE), np.float32)  # transmittance, 0 once the pixel is finished
    left = np.empty((TILE, TILE), np.float32)  # transmittance that remains
    open_rows = np.empty(TILE, np.float32)  # 0 where all 16 pixels are finished
    weight = np.empty(TILE, np.float32)
    lane = np.arange(TILE).astype(np.float32)
    y0 = tile_row * TILE
    high = min(TILE, height - y0)
    across = (width + TILE - 1) // TILE
    for tile in range(across):
        x0 = tile * TILE
        wide = min(TILE, width - x0)
        sums[:], left[:], light[:], open_rows[:] = ZERO, ONE, ZERO, ONE
        light[:high, :wide] = ONE
        first = starts[tile_row * across + tile]
        for entry in range(first, starts[tile_row * across + tile + 1]):
            if (entry - first) % CHECK == CHECK - 1:
                for y in range(TILE):
                    open_rows[y] = light[y].max()
                if open_rows.max() == ZERO:
                    break
            i = entries[entry]
            u, v, precision, slope = shapes[i, 0], shapes[i, 1], shapes[i, 2], shapes[i, 3]
            inverse_y, opacity, last_power = shapes[i, 4], shapes[i, 5], shapes[i, 7]
            for c in range(3):
                feature[c] = max(colors[i, c], ZERO)
            feature[3] = shapes[i, 6]
            for c in range(codes.shape[1]):
                feature[4 + c] = codes[i, c]
            for y in range(max(boxes[i, 2] - y0, 0), min(boxes[i, 3] - y0, high - 1) + 1):
                if open_rows[y] == ZERO:
                    continue
                dy = np.float32(y0 + y) - v
                row_power = -HALF * inverse_y * dy * dy
                span = (row_power - last_power) / (HALF * precision)  # square of the half width of this row
                if span < ZERO:
                    continue
                middle = u + slope * dy - np.float32(x0)
                half_width = math.sqrt(span) + SLACK
                row_light, row_left = light[y], left[y]
                for x in range(TILE):
                    dx = lane[x] - middle
                    power = max(row_power - HALF * precision * dx * dx, LOWEST)
                    a = min(opacity * _exp(power), MAX_ALPHA)
                    a = a if a >= MIN_ALPHA else ZERO
                    w = a * row_light[x]
                    t = row_light[x] - w
                    drawn = t >= STOP
                    weight[x] = w if drawn else ZERO
                    row_light[x] = t if drawn else ZERO
                    row_left[x] = t if drawn else row_left[x]
                low = math.ceil(min(max(middle - half_width, ZERO), np.float32(wide)))
                top = math.floor(max(min(middle + half_width, np.float32(wide - 1)), -ONE))
                for x in range(low, top + 1):
                    w = weight[x]
                    for c in range(padded):
                        sums[y * TILE + x, c] += w * feature[c]
        for y in range(high):
            for x in range(wide):
                p, t, row, column = y * TILE + x, left[y, x], y0 + y, x0 + x
                alpha[row, column] = ONE - t
                depth[row, column] = sums[p, 3] / (ONE - t) if ONE - t >= MIN_DEPTH_ALPHA else np.nan
                for c in range(3):
                    rgb[row, column, c] = sums[p, c] + t * background[c]
                for c in range(codes.shape[1]):
                    out_codes[row, column, c] = sums[p, 4 + c]


def render_cpu(
    gaussians: Gaussians,
    camera: Camera,
    camera_from_world: np.ndarray,
    background: Sequence[float] = (0.0, 0.0, 0.0),
) -> Rendering:
    """See `render`; tensors on the CPU, not differentiable. Safe to call from several threads at once."""
    # numba compiles anew for each type and layout, also for read-only arrays: so all are made alike
    means, quats, scales, opacities, colors, codes = (
        np.ascontiguousarray(getattr(gaussians, name).detach().numpy(), dtype=np.float32) for name in TENSORS
    )
    world, behind = np.array(camera_from_world, np.float64)[:3], np.array(background, np.float32)
    assert world.shape == (3, 4), world.shape
    lens = (float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy))
    n, width, height = len(gaussians), int(camera.width), int(camera.height)
    limits = jacobian_limits(*lens, width, height)
    boxes, shapes = np.empty((n, BOX), np.int32), np.empty((n, SHAPE), np.float32)
    rgb, depth, alpha, out_codes = (
        np.empty((height, width, *rest), np.float32) for rest in [(3,), (), (), codes.shape[1:]]
    )

    threads = torch.get_num_threads()
    across, down = -(-width // TILE), -(-height // TILE)
    cuts = [n * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        done = [
            pool.submit(
                _project,
                start,
                stop,
                means,
                quats,
                scales,
                opacities,
                world,
                lens,
                limits,
                width,
                height,
                boxes,
                shapes,
            )
            for start, stop in pairwise(cuts)
        ]
        for future in done:
            future.result()
        starts, entries = _list_tiles(_order_by_depth(boxes, shapes), boxes, across, down)
        done = [
            pool.submit(
                _draw,
                row,
                starts,
                entries,
                boxes,
                shapes,
                colors,
                codes,
                behind,
                rgb,
                depth,
                alpha,
                out_codes,
            )
            for row in range(down)
        ]
        for future in done:
            future.result()
    return Rendering(*(torch.from_numpy(array) for array in (rgb, depth, alpha, out_codes)))
