"""Image files: JPEG, PNG, TIFF and WebP."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gsemsplat_ros.images.exif import focal_length
from gsemsplat_ros.images.levels import Levels
from gsemsplat_ros.images.view import View

FORMATS = ('JPEG', 'PNG', 'TIFF', 'WEBP')  # PIL knows many more, and starts Ghostscript for one of them
MAX_PIXELS = 100_000_000  # a small file can claim to hold gigabytes
MIN_FLOAT_WHITE = 32  # floats between 1 and this are rather depths in metres than a dark picture


@dataclass(frozen=True)
class ImageFile:
    """What an image file holds, upright by its EXIF.

    values: (H, W) gray or (H, W, 3) RGB; uint8, or uint16 of a file with more bits, not yet scaled.
    exif_focal: focal length [px] that the file tells; None: not told.
    """

    values: np.ndarray
    exif_focal: float | None

    @classmethod
    def read(cls, path: str | Path) -> ImageFile:
        """Of several pictures in a file, the first. Raises ValueError for anything but a picture of FORMATS
        with at most MAX_PIXELS, and for values that are none of a picture.
        """
        with _opened(Path(path)) as image:
            deep = ';16' in str(getattr(image, 'tile', ''))  # before anything is decoded, as EXIF of a PNG is
            focal = focal_length(image)
            return cls(_values(image, Path(path), deep), focal)


def views_of(*files: ImageFile) -> tuple[View, ...]:
    """Images of one camera, or of two alike, as views; those of 16 bits are scaled alike (`Levels`)."""
    levels = Levels()
    for file in files:
        levels.see(file.values)
    return tuple(View(_rgb(levels.to_8_bits(file.values)), exif_focal=file.exif_focal) for file in files)


def read_views(*paths: str | Path) -> tuple[View, ...]:
    """`views_of` the files at `paths`. Raises ValueError as `ImageFile.read`."""
    return views_of(*(ImageFile.read(path) for path in paths))


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, EXIF orientation applied. Raises ValueError as `ImageFile.read`."""
    return read_views(path)[0].image


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height as stored, without decoding. Raises ValueError for anything but an image file."""
    with _opened(Path(path)) as image:
        return image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, of which the header is read. Whatever is raised becomes one line, inside the `with` too:
    PIL raises what its parsers stumble over, and warns of what is read all the same.
    """
    if path.is_dir():
        raise ValueError(f'{path} is a folder: wanted an image file')
    if not path.is_file():
        raise ValueError(f'no image at {path}')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f'it has {image.width}x{image.height} px')
                yield image
    except Exception as error:
        reason = (
            'another format' if isinstance(error, UnidentifiedImageError) else ' '.join(str(error).split())
        )
        raise ValueError(
            f'{path} cannot be read as an image ({reason[:100] or type(error).__name__}): wanted a JPEG, '
            f'PNG, TIFF or WebP file of at most {MAX_PIXELS // 10**6} million pixels'
        ) from None


def _values(image: Image.Image, path: Path, deep: bool) -> np.ndarray:
    """The values of an opened image, as `ImageFile` has them; deep: the file has 16 bits a channel."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in 'IF':
        values = np.array(image)
        inverted = image.mode.startswith('I;16') and image.getexif().get(262) == 0  # TIFF: white is zero
        return _gray(65535 - values if inverted else values)
    rgb = np.array(image.convert('RGB'))  # of colours, PIL keeps 8 bits
    if not deep or image.mode not in ('RGB', 'RGBA'):
        return rgb
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if bgr is None or bgr.shape != rgb.shape:
        raise ValueError('16-bit colours that OpenCV does not read')
    return np.ascontiguousarray(bgr[..., ::-1])


def _gray(values: np.ndarray) -> np.ndarray:
    """Gray values of 32 bits, integers or floats, in 8 or 16. Raises ValueError where no white is plain."""
    low, high = values.min(), values.max()
    real = values.dtype.kind == 'f'
    if real and not np.isfinite(values).all():
        raise ValueError('it holds NaN or infinity')
    if real and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if low < 0 or high > 65535 or (real and high < MIN_FLOAT_WHITE):
        raise ValueError(f'its values go from {low:g} to {high:g}, not from 0 to 1, 255 or 65535')
    return np.rint(values).astype(np.uint16)


def _rgb(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 3 else cv2.cvtColor(values, cv2.COLOR_GRAY2RGB)
