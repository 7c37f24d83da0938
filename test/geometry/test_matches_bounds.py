"""No calibration that passes as numbers ends the process: what is native gets arguments that it can bear.

In a child process, so that a violation of memory is a failed test and not the end of all.
"""

import json
import subprocess
import sys

CHILD = """
import json
import numpy as np
from gsemsplat_ros.geometry.matches import disparity, match_pair
from gsemsplat_ros.images.calibration import check_calibration
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.detail import check_image
from gsemsplat_ros.images.view import Pair, View, fit

rng, counts = np.random.default_rng(3), dict(made=0, refused=0)
images = {}
for case in range(10_000):
    width, height = (int(rng.choice((15, 31, 32, 33, 48, 63, 64, 80, 97))) for _ in range(2))
    f = width * 10 ** rng.uniform(-0.5, 0.5) if rng.random() < 0.8 else 10 ** rng.uniform(-300, 300)
    sizes = [0.1 if rng.random() < 0.8 else 10 ** rng.uniform(-2, 290) for _ in range(2)]
    off = [width * rng.normal() * size for size in sizes]
    b = 10 ** (rng.uniform(-2, 0) if rng.random() < 0.9 else rng.uniform(-300, 300))
    if (width, height) not in images:
        noise = rng.integers(0, 256, (height, width + 4, 3), dtype=np.uint8)
        images[width, height] = noise[:, :-4].copy(), noise[:, 4:].copy()
    left, right = images[width, height]
    try:
        check_image(left)
        cameras = [Camera(width, height, f, f, width / 2 + x, height / 2) for x in off]
        check_calibration(*cameras, b)
        pair = Pair(View(left, cameras[0]), View(right, cameras[1]), b)
        fit(pair.first, 64, 48)
        matches = match_pair(pair)
    except ValueError as error:
        assert '\\n' not in str(error), error
        counts['refused'] += 1
        continue
    assert np.isfinite(matches.z_first).all() and np.isfinite(matches.uv_second).all(), case
    counts['made'] += 1
for width in (*range(1, 40), 63, 64, 65, 640):  # the matcher itself, whatever the door lets in
    gray = rng.integers(0, 256, (40, width), dtype=np.uint8)
    for smallest in (*range(-width - 20, width + 20, max(1, width // 20)), -(10**6), 10**6, -width, width):
        assert disparity(gray, gray, smallest).shape == gray.shape
print(json.dumps(counts))
"""


def test_ten_thousand_random_calibrations_are_used_or_refused_and_end_nothing():
    child = subprocess.run([sys.executable, '-c', CHILD], capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, (child.returncode, child.stderr[-2000:])
    counts = json.loads(child.stdout.splitlines()[-1])
    assert counts['made'] > 500 and counts['refused'] > 2000, counts
