"""Reader of labelled real pairs.

The labels are one JSON file, paths relative to it, in which everything but the images is optional:
    {"pairs": [{"first": path, "second": path,
                "camera": {"fx", "fy", "cx", "cy"},                     (px, of the first image)
                "second_camera": the same of the second image,          (default: that of the first)
                "baseline": m, "doffs": px,                             (makes it a rectified stereo pair)
                "disparity": path of an .npz,                           (its first array, for the first image)
                "second_from_first": 4x4 matrix,                        (true motion, rigid, m)
                "objects": [{"text": words, "boxes": [[x0, y0, x1, y1], ...]}],  (px of the first image)
                "absent": [words, ...]}]}
doffs (Middlebury's name) is the second cx minus the first, 0 unless the cameras say otherwise.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gsemsplat_ros.evaluation.json_fields import Field
from gsemsplat_ros.evaluation.metrics import rotation_error_deg
from gsemsplat_ros.images.calibration import check_calibration
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.image_file import ImageFile, views_of
from gsemsplat_ros.images.view import Pair, View

log = logging.getLogger(__name__)

KNOWN = (
    'first',
    'second',
    'camera',
    'second_camera',
    'baseline',
    'doffs',
    'disparity',
    'second_from_first',
    'objects',
    'absent',
)
INTRINSICS = ('fx', 'fy', 'cx', 'cy')
RIGID = 0.01  # largest error of a rotation's products: digits are rounded by hand
# what a rectified pair's motion may differ from its baseline by [deg], and as part of the baseline
STEREO_DEG, STEREO_PART = 1.0, 0.05
SAME_PX = 0.5  # cameras of a rectified pair differ by less, doffs aside

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class LabelledObject:
    """Words, and the boxes (x0, y0, x1, y1) [px], edges included, of it in the first image."""

    text: str
    boxes: tuple[Box, ...]

    def contains(self, pixel: tuple[float, float] | None) -> bool:
        """Whether a pixel (u, v) lies in one of the boxes; None does not."""
        return pixel is not None and any(
            x0 <= pixel[0] <= x1 and y0 <= pixel[1] <= y1 for x0, y0, x1, y1 in self.boxes
        )

    @property
    def area(self) -> float:
        """What the boxes cover together [px²]."""
        corners = np.array(self.boxes, np.float64)
        x, y = np.unique(corners[:, [0, 2]]), np.unique(corners[:, [1, 3]])
        in_x = (corners[:, :1] <= x[:-1]) & (x[1:] <= corners[:, 2:3])  # (boxes, columns between edges)
        in_y = (corners[:, 1:2] <= y[:-1]) & (y[1:] <= corners[:, 3:])
        covered = (in_y[:, :, None] & in_x[:, None, :]).any(0)
        return float((covered * np.outer(np.diff(y), np.diff(x))).sum())


@dataclass(frozen=True)
class LabelledPair:
    """A pair with its labels.

    name: path of the first image in the labels; depth (H, W) m: of the first image, NaN where unknown, or
    None; first_from_second (4, 4): true pose of the second camera in the frame of the first [m], or None;
    objects: in the first image, no two of one text; absent: words for what is not there.
    """

    name: str
    pair: Pair
    depth: np.ndarray | None
    first_from_second: np.ndarray | None
    objects: tuple[LabelledObject, ...]
    absent: tuple[str, ...]


def read_labels(path: str | Path) -> list[LabelledPair]:
    """All pairs of a file of labels, images and depth included.

    Logs a warning for members that it does not know. Raises ValueError for labels that cannot be used or
    contradict each other, with file and field.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f'no labels at {path}')
    labels = Field.read(path, 'an object with "pairs"')
    pairs = labels.get('pairs').items()
    if not pairs:
        raise labels.get('pairs').wrong('at least one pair')
    unknown = sorted({name for pair in pairs for name in pair.others(KNOWN)})
    if unknown:
        log.warning('%s: %s of its pairs not read: known are %s', path, ', '.join(unknown), ', '.join(KNOWN))
    return [read_pair(pair) for pair in pairs]


def read_pair(field: Field) -> LabelledPair:
    """One pair of the labels. Raises ValueError as `read_labels`."""
    files = [field.get(name).load(ImageFile.read) for name in ('first', 'second')]
    views = read_views(field, *views_of(*files))
    pair = Pair(*views, read_baseline(field, views[0].image, views[1].image))
    if pair.first.camera:
        try:
            check_calibration(pair.first.camera, pair.second.camera, pair.baseline_m)
        except ValueError as error:
            raise field.get('camera').wrong(f'a believable calibration ({error})') from None
    height, width = pair.first.image.shape[:2]
    depth = read_depth(field, pair) if field.has('disparity') else None
    objects: dict[str, tuple[Box, ...]] = {}
    for thing in field.get('objects').items() if field.has('objects') else ():
        text, boxes = thing.get('text').words(), thing.get('boxes')
        if not boxes.items():
            raise boxes.wrong('at least one box')
        objects[text] = objects.get(text, ()) + tuple(read_box(box, width, height) for box in boxes.items())
    absent = field.get('absent').items() if field.has('absent') else []
    for word in absent:
        if word.words() in objects:
            raise word.wrong('words for what is not there; it is among the objects too')
    return LabelledPair(
        name=str(field.get('first').value),
        pair=pair,
        depth=depth,
        first_from_second=read_motion(field, pair.baseline_m),
        objects=tuple(LabelledObject(text, boxes) for text, boxes in objects.items()),
        absent=tuple(dict.fromkeys(word.words() for word in absent)),
    )


def read_views(field: Field, first: View, second: View) -> tuple[View, View]:
    """Both views of a pair with their cameras, None where unknown. Raises ValueError as `read_labels`."""
    if not field.has('camera'):
        for name in ('second_camera', 'baseline'):
            if field.has(name):
                raise field.get(name).wrong('the camera of the first image beside it ("camera")')
        return first, second
    camera = read_camera(field.get('camera'), first.image)
    if field.has('second_camera'):
        return replace(first, camera=camera), replace(
            second, camera=read_camera(field.get('second_camera'), second.image)
        )
    if first.image.shape != second.image.shape:
        raise field.get('second').wrong(
            f"an image of the first one's size, {size(first.image)}, got {size(second.image)}; "
            'two sizes need a "second_camera"'
        )
    doffs = field.get('doffs').number() if field.has('doffs') else 0.0
    return replace(first, camera=camera), replace(second, camera=replace(camera, cx=camera.cx + doffs))


def read_camera(field: Field, image: np.ndarray) -> Camera:
    """The camera of an image. Raises ValueError, also for a principal point outside the image."""
    height, width = image.shape[:2]
    for name in field.others(INTRINSICS):
        raise field.get(name).wrong(f'only {", ".join(INTRINSICS)} in a camera')
    fx, fy = (field.get(name).number(positive=True) for name in ('fx', 'fy'))
    cx, cy = (field.get(name).number() for name in ('cx', 'cy'))
    for name, value, limit in (('cx', cx, width), ('cy', cy, height)):
        if not 0 <= value < limit:
            raise field.get(name).wrong(
                f'a point inside the {size(image)} image: the calibration of this size'
            )
    return Camera(width, height, fx, fy, cx, cy)


def read_baseline(field: Field, first: np.ndarray, second: np.ndarray) -> float | None:
    """The baseline [m] of a rectified pair, None for two free views. Raises ValueError as `read_labels`."""
    if not field.has('baseline'):
        for name in ('doffs', 'disparity'):
            if field.has(name):
                raise field.get(name).wrong('a "baseline" beside it: it belongs to a rectified pair')
        return None
    if first.shape != second.shape:
        raise field.get('second').wrong(
            f"an image of the first one's size, {size(first)}, got {size(second)}: a baseline makes the pair "
            'rectified'
        )
    baseline = field.get('baseline').number(positive=True)
    if field.has('second_camera'):
        camera, other = (read_camera(field.get(name), first) for name in ('camera', 'second_camera'))
        doffs = field.get('doffs').number() if field.has('doffs') else other.cx - camera.cx
        apart = (
            other.fx - camera.fx,
            other.fy - camera.fy,
            other.cy - camera.cy,
            other.cx - camera.cx - doffs,
        )
        if max(map(abs, apart)) > SAME_PX:
            raise field.get('second_camera').wrong(
                'the camera of a rectified pair, equal to the first but for cx, which differs by doffs'
            )
    return baseline


def read_depth(field: Field, pair: Pair) -> np.ndarray:
    """Depth (H, W) m of the first image of a rectified pair, NaN where unknown, from its disparity: fx *
    baseline / (disparity + doffs). Raises ValueError as `read_labels`.
    """
    camera, other = pair.first.camera, pair.second.camera
    assert camera and other and pair.baseline_m, 'a disparity comes with a baseline, and that with a camera'
    disparity = field.get('disparity').load(read_disparity)
    if disparity.shape != (camera.height, camera.width):
        raise field.get('disparity').wrong(
            f'an array of {(camera.height, camera.width)}, the size of the first image, got {disparity.shape}'
        )
    shifted = disparity + (other.cx - camera.cx)
    known = np.isfinite(disparity) & (disparity > 0) & (shifted > 0)
    return np.where(known, camera.depth_of(np.where(known, shifted, 1), pair.baseline_m), np.nan)


def read_motion(field: Field, baseline_m: float | None) -> np.ndarray | None:
    """True pose (4, 4) of the second camera in the frame of the first [m], also of a rectified pair by its
    baseline; None: unknown. Raises ValueError as `read_labels`.
    """
    rectified = np.eye(4)
    rectified[0, 3] = baseline_m or 0.0
    if not field.has('second_from_first'):
        return rectified if baseline_m else None
    given = field.get('second_from_first')
    matrix = given.matrix(4, 4)
    turn = matrix[:3, :3]
    if (
        np.abs(turn.T @ turn - np.eye(3)).max() > RIGID
        or np.linalg.det(turn) < 0
        or np.abs(matrix[3] - (0, 0, 0, 1)).max() > RIGID
    ):
        raise given.wrong('a rigid motion: a rotation, a translation [m] and the last row 0 0 0 1')
    motion = np.linalg.inv(matrix)
    if baseline_m and (
        rotation_error_deg(motion, rectified) > STEREO_DEG
        or np.linalg.norm(motion[:3, 3] - rectified[:3, 3]) > STEREO_PART * baseline_m
    ):
        raise given.wrong(f'the motion of a rectified pair: no rotation, and {-baseline_m:g} m along x')
    return motion


def read_box(field: Field, width: int, height: int) -> Box:
    """A box (x0, y0, x1, y1) [px] inside the image. Raises ValueError."""
    wanted = f'[x0, y0, x1, y1] with x0 < x1 and y0 < y1 inside the {width} x {height} image'
    numbers = field.items()
    if len(numbers) != 4:
        raise field.wrong(wanted)
    x0, y0, x1, y1 = (number.number() for number in numbers)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise field.wrong(wanted)
    return x0, y0, x1, y1


def read_disparity(path: Path) -> np.ndarray:
    """The first array of an .npz, (H, W) float64. Raises ValueError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = archive[archive.files[0]]
    except FileNotFoundError:
        raise ValueError(f'no disparity at {path}') from None
    # TypeError, AttributeError: an .npy, which is an array, not an archive
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f'{path} cannot be read as an .npz with an array ({error})') from None
    if values.dtype.kind not in 'fiu' or values.ndim != 2:
        raise ValueError(
            f'{path}: its first array is {values.dtype} {values.shape}: wanted (height, width) numbers'
        )
    return values.astype(np.float64)


def size(image: np.ndarray) -> str:
    """Width x height of an image (H, W, ...), for messages."""
    return f'{image.shape[1]} x {image.shape[0]}'
