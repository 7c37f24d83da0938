"""Whether two images are the rectified stereo pair that they are said to be, by the images alone.

Semi-global matching always finds disparities, also between images that have nothing to do with each other. A
match counts as evidence where both images have texture and look alike (zero-mean normalised
cross-correlation). Of 21 right pairs (rooms of an OAK-D, rendered rooms) 0.25 to 0.73 of the matches do;
exchanged, turned, mirrored and unrelated ones reach 0.12, covered cameras 0.01. Right pairs that are dark,
noisy or partly covered fall to 0.02; they still match 7 times better than with left and right exchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

WINDOW = 17  # edge [px] of what must look alike
MIN_CONTRAST = 2.0  # standard deviation in it [gray levels]
ALIKE = 0.7  # correlation
MIN_SHARE = 0.18  # of the matches look alike, and the pair is right; below, it must be
MIN_FACTOR = 3.0  # times as good as with left and right exchanged, on
MIN_PART = 0.003  # of the image
SURE_PART = 0.05  # of the image, to name the likely reason
# correlation of the rows' texture: pairs of other things reach 0.23, dark right ones 0.39 at least
MIN_ROWS = 0.3
MAX_SHIFT_PX = 2  # of the rows
SHIFT_SURE, SHIFT_BETTER = 0.4, 0.25  # correlation of shifted rows, and how much better than unshifted
FARTHEST_SHIFT_PX = 40


def contradiction(
    left: np.ndarray,
    right: np.ndarray,
    found: np.ndarray,
    infinity: float,
    exchanged: Callable[[], np.ndarray],
) -> str:
    """Why these gray images (H, W) uint8 are no rectified pair, in words; '' if they are one.

    found (H, W): disparities [px], NaN for none; infinity: that of infinitely far points [px]; exchanged():
    the disparities of (right, left), for a pair in doubt.
    """
    rows, likeness, unshifted = row_shift(left, right)
    if abs(rows) > MAX_SHIFT_PX and likeness > max(SHIFT_SURE, unshifted + SHIFT_BETTER):
        return (
            f'the rows of left and right differ by {abs(rows)} px (at {left.shape[1]} px width): wanted a '
            'rectified pair, taken at one time; calibrate it, or set rectified: false for raw images'
        )
    alike = looks_alike(left, right, found)
    if alike.sum() >= MIN_SHARE * np.isfinite(found).sum() and alike.mean() >= MIN_PART:
        return ''
    backwards = looks_alike(right, left, exchanged())
    if backwards.sum() > MIN_FACTOR * alike.sum() and backwards.mean() >= SURE_PART:
        return (
            f'left and right match on {100 * alike.mean():.1f} % of the image, exchanged on '
            f'{100 * backwards.mean():.1f} %: are left and right exchanged? (Or both cameras upside down: '
            'then turn the images and exchange them)'
        )
    if alike.sum() >= MIN_FACTOR * backwards.sum() and alike.mean() >= MIN_PART and unshifted >= MIN_ROWS:
        return ''
    if np.array_equal(left, right):
        return 'left and right are one and the same image: are both topics of one camera?'
    far = looks_alike(left, right, np.full(left.shape, infinity, np.float32)).mean()
    if far >= SURE_PART > MIN_FACTOR * alike.mean():
        return (
            'left and right show everything at the same place: it is too far away to measure with this '
            'baseline'
        )
    return (
        f'left and right show nothing in common (alike on {100 * alike.mean():.1f} % of the image): is one '
        'covered, do both belong to one camera and one moment, and are they rectified?'
    )


def looks_alike(left: np.ndarray, right: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of the gray image `left` that look like the pixel of `right` that lies `found`
    (H, W) [px] farther to the left, with texture around both; false where it is NaN.
    """
    height, width = left.shape
    matched = np.isfinite(found)
    # what has no match shows the border of the image, which looks like nothing
    u = np.arange(width, dtype=np.float32) - np.where(matched, found, np.float32(2 * width))
    v = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, 1)
    a = left.astype(np.float32)
    b = cv2.remap(
        right.astype(np.float32), u.astype(np.float32), v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(x, -1, (WINDOW, WINDOW))

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    together = mean(a * b) - mean_a * mean_b
    textured = np.minimum(var_a, var_b) > MIN_CONTRAST**2
    return matched & textured & (together > ALIKE * np.sqrt(np.maximum(var_a * var_b, 1e-6)))


def row_shift(left: np.ndarray, right: np.ndarray) -> tuple[int, float, float]:
    """How many pixels lower the right gray image shows the same things, by the texture of its rows; the
    correlation of the rows shifted so, and that of rows that are at most MAX_SHIFT_PX apart.
    """
    a, b = _row_texture(left), _row_texture(right)
    farthest = min(FARTHEST_SHIFT_PX, len(a) // 4)
    likeness = {}
    for shift in range(-farthest, farthest + 1):
        x, y = a[max(0, -shift) : len(a) - max(0, shift)], b[max(0, shift) : len(b) - max(0, -shift)]
        likeness[shift] = float(x @ y / max(np.sqrt((x @ x) * (y @ y)), 1e-9))
    best = max(likeness, key=lambda shift: likeness[shift])
    return best, likeness[best], max(likeness[shift] for shift in likeness if abs(shift) <= MAX_SHIFT_PX)


def _row_texture(gray: np.ndarray) -> np.ndarray:
    """(H - 1,) ln of the mean change from each row to the next, less that of the rows around."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1.0)
    texture = np.log(np.abs(np.diff(smooth, axis=0)).mean(1) + 1)
    return texture - cv2.blur(texture[:, None], (1, 31))[:, 0]
