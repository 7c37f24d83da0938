"""What a calibration must keep to before it is believed, wherever one enters: each check gives one line.

Where it is known, all are asked of the whole picture, before a region of interest is cut out of it. The
bounds are wide: they refuse other units, other image sizes and numbers that are none, never a lens that
somebody sells.
"""

from __future__ import annotations

import math

from gsemsplat_ros.images.camera import Camera

MIN_FOCAL = 10  # pixels: normalised focal lengths (fx / width) are about 1
# degrees along the wider side: thermal and tele lenses have 4 and more; beyond 150, the rim of a pinhole
# picture is stretched 15 times against its middle (1 / cos^2), so wider lenses are rectified to less
MIN_FOV, MAX_FOV = 3, 150
MAX_PIXEL_ASPECT = 1.5  # fx / fy or its inverse: anamorphic PAL has 1.46
# part of the side by which the principal point may lie off the middle: 0.08 in rectified pairs of Middlebury
# 2014; the calibration of twice or half the image size has 0.5 or 0.25
MAX_OFF_CENTRE = 0.2
MIN_BASELINE, MAX_BASELINE = 0.005, 3.0  # metres
USUAL_BASELINE = 0.1  # metres: between the units that would do, the one that comes nearest is the likely one
MAX_UNLIKE = 0.01  # of a rectified pair: part of the focal length, and of the height, that may differ


def doubt_camera(camera: Camera, whole: bool = True) -> str | None:
    """Why `camera` cannot be the calibration of a rectified image; None: it can. whole: the image is no
    part of a picture, so that the principal point lies near its middle.
    """
    numbers = (camera.fx, camera.fy, camera.cx, camera.cy)
    got = 'fx {:g}, fy {:g}, cx {:g}, cy {:g} for {}x{} px'.format(*numbers, camera.width, camera.height)
    if not all(map(math.isfinite, numbers)):
        return f'{got}: wanted finite numbers; calibrate the camera again'
    if min(camera.fx, camera.fy) < MIN_FOCAL:
        return f'{got}: wanted pixels; are they in normalised units (divided by the width)?'
    if not 1 / MAX_PIXEL_ASPECT <= camera.fx / camera.fy <= MAX_PIXEL_ASPECT:
        return f'{got}: wanted fx and fy within {MAX_PIXEL_ASPECT:g} times of each other; calibrate again'
    sides = ((camera.width, camera.fx), (camera.height, camera.fy))
    fov = max(math.degrees(2 * math.atan(side / 2 / focal)) for side, focal in sides)
    if not MIN_FOV <= fov <= MAX_FOV:
        return (
            f'{got}: a field of view of {fov:.3g} degrees, wanted {MIN_FOV} to {MAX_FOV}; is it the '
            'calibration of this image size, in pixels?'
        )
    off_x = abs(camera.cx - (camera.width - 1) / 2) / camera.width
    off_y = abs(camera.cy - (camera.height - 1) / 2) / camera.height
    if whole and max(off_x, off_y) > MAX_OFF_CENTRE:
        return (
            f'{got}: the principal point lies {max(off_x, off_y):.0%} of the side off the middle, wanted at '
            f'most {MAX_OFF_CENTRE:.0%}; is it the calibration of another '
            'image size, or of a part of the picture?'
        )
    farthest = max(
        math.degrees(math.atan(max(centre + 0.5, side - 0.5 - centre) / focal))
        for (side, focal), centre in zip(sides, (camera.cx, camera.cy))
    )
    if farthest > MAX_FOV / 2:  # possible for a part alone: its principal point may lie outside
        return (
            f'{got}: pixels up to {farthest:.3g} degrees off the axis, wanted at most {MAX_FOV / 2:g}; is it '
            'the calibration of this part of the picture, in pixels?'
        )
    return None


def doubt_baseline(baseline_m: float, fx: float | None = None) -> str | None:
    """Why `baseline_m` [m] cannot be that of a stereo pair; None: it can. fx [px]: given where the baseline
    was divided by it (P[3] of camera_info), which may have been once too often.
    """
    got = f'a stereo baseline of {baseline_m:g} m'
    wanted = f'wanted {MIN_BASELINE * 1000:g} mm to {MAX_BASELINE:g} m'
    if not math.isfinite(baseline_m):
        return f'{got}: {wanted}; calibrate the cameras again'
    if baseline_m < 0:
        return f'{got}: {wanted}; are left and right exchanged?'
    if baseline_m == 0:
        return f'{got}: {wanted}; are left and right calibrated one by one?'
    if MIN_BASELINE <= baseline_m <= MAX_BASELINE:
        return None
    value = 'P[3]' if fx else 'it'
    guesses = {f'is {value} in millimetres?': 1e-3, f'is {value} in centimetres?': 1e-2}
    if fx:
        guesses['P[3] must be -fx x baseline: is it not multiplied by fx?'] = fx
    likely = {
        words: abs(math.log(baseline_m * factor / USUAL_BASELINE))
        for words, factor in guesses.items()
        if MIN_BASELINE <= baseline_m * factor <= MAX_BASELINE
    }
    return (
        f'{got}: {wanted}; {min(likely, key=likely.__getitem__) if likely else "calibrate the cameras again"}'
    )


def doubt_pair(left: Camera, right: Camera) -> str | None:
    """Why two cameras of whole pictures are no rectified pair: all but cx must be alike; None: they are one.

    Where cx differs, as in pictures rectified towards a point, the disparity of infinity is not zero.
    """
    for name, one, other, limit in (
        ('fx', left.fx, right.fx, MAX_UNLIKE * left.fx),
        ('fy', left.fy, right.fy, MAX_UNLIKE * left.fy),
        ('cy', left.cy, right.cy, MAX_UNLIKE * left.height),
        ('cx', left.cx, right.cx, MAX_OFF_CENTRE * left.width),
    ):
        if not abs(one - other) <= limit:
            return (
                f'{name} is {one:g} px on the left and {other:g} px on the right: wanted at most {limit:.3g} '
                'px between the cameras of a rectified pair; calibrate them together'
            )
    return None


def check_calibration(left: Camera, right: Camera | None = None, baseline_m: float | None = None) -> None:
    """Raises ValueError with what is doubtful about the cameras of one view, or of two, and the baseline [m]
    that makes them a rectified pair.
    """
    doubt = doubt_camera(left) or (doubt_camera(right) if right else None)
    if not doubt and baseline_m is not None:
        doubt = doubt_baseline(baseline_m) or (doubt_pair(left, right) if right else None)
    if doubt:
        raise ValueError(doubt)
